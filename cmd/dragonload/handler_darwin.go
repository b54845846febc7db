package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// terminalFile is the terminal of this process.
const terminalFile = "/dev/tty"

const (
	appName    = "Dragonload Links.app"
	appID      = "org.dragonload.links"
	toolWithin = time.Minute
	lsregister = "/System/Library/Frameworks/CoreServices.framework/Frameworks/LaunchServices.framework/Support/lsregister"
)

func appFolder() (string, error) {
	home, err := os.UserHomeDir()
	return filepath.Join(home, "Applications", appName), err
}

// registerLinks makes a small application, for only those are told of links, and tells
// Launch Services of it.
func registerLinks(ctx context.Context, program, dir string, _ io.Writer) error {
	app, err := appFolder()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(app), 0o755); err != nil {
		return err
	}
	if err := os.RemoveAll(app); err != nil {
		return err
	}
	if err := tool(ctx, "/usr/bin/osacompile", "-o", app, "-e", appleScript(openCommand(program, dir))); err != nil {
		return err
	}
	info := filepath.Join(app, "Contents", "Info.plist")
	for _, change := range [][]string{
		{"-replace", "CFBundleIdentifier", "-string", appID},
		{"-replace", "LSUIElement", "-bool", "YES"},
		{"-replace", "CFBundleURLTypes", "-json", `[{"CFBundleURLName":"dragonload","CFBundleURLSchemes":["dragon"]}]`},
	} {
		if err := tool(ctx, "/usr/bin/plutil", append(change, info)...); err != nil {
			return err
		}
	}
	// What was changed after it was made must be signed again, by nobody in particular.
	if err := tool(ctx, "/usr/bin/codesign", "--force", "--sign", "-", app); err != nil {
		return err
	}
	return tool(ctx, lsregister, "-f", app)
}

// unregisterLinks removes what registerLinks has made.
func unregisterLinks(ctx context.Context, _ io.Writer) error {
	app, err := appFolder()
	if err != nil {
		return err
	}
	if _, err := os.Stat(app); err == nil {
		_ = tool(ctx, lsregister, "-u", app) // it is found to be gone sooner or later
	}
	return os.RemoveAll(app)
}

// tool runs one of the system's own programs.
func tool(ctx context.Context, path string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolWithin)
	defer cancel()
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(path), err, safeText(string(out[:min(len(out), 500)])))
	}
	return nil
}
