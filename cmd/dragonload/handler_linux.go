package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// terminalFile is the terminal of this process.
const terminalFile = "/dev/tty"

const (
	desktopFile = "dragonload-open.desktop"

	// toolWithin bounds each of the desktop's own programs that is run.
	toolWithin = 20 * time.Second
	// maxMimeList is more than a list of default programs has.
	maxMimeList = 1 << 20
)

// userFolder returns a folder of the XDG Base Directory Specification.
func userFolder(variable, fallback string) (string, error) {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return dir, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, fallback), nil
}

func applicationsFolder() (string, error) {
	data, err := userFolder("XDG_DATA_HOME", ".local/share")
	return filepath.Join(data, "applications"), err
}

// registerLinks writes the desktop file and makes it the default for links.
func registerLinks(ctx context.Context, program, dir string, tell io.Writer) error {
	folder, err := applicationsFolder()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	file := filepath.Join(folder, desktopFile)
	if err := os.WriteFile(file+".new", []byte(desktopEntry(openCommand(program, dir))), 0o644); err != nil {
		return err
	}
	if err := os.Rename(file+".new", file); err != nil {
		return err
	}
	refresh(ctx, folder)
	if err := tool(ctx, "xdg-mime", "default", desktopFile, linkType); err != nil {
		fmt.Fprintf(tell, "dragonload: %s is written, but not made the default for links: %v; install xdg-utils, or choose it in your desktop's settings\n", file, err)
	}
	return nil
}

// unregisterLinks removes what registerLinks has made.
func unregisterLinks(ctx context.Context, _ io.Writer) error {
	folder, err := applicationsFolder()
	if err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(folder, desktopFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	refresh(ctx, folder)
	config, err := userFolder("XDG_CONFIG_HOME", ".config")
	if err != nil {
		return err
	}
	for _, list := range []string{filepath.Join(config, "mimeapps.list"), filepath.Join(folder, "mimeapps.list")} {
		if err := dropDefault(list); err != nil {
			return err
		}
	}
	return nil
}

// dropDefault takes our desktop file out of a list of default programs, if it is in it.
func dropDefault(list string) error {
	text, err := readBounded(list, maxMimeList)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	after := withoutDefault(string(text), desktopFile)
	if after == string(text) {
		return nil
	}
	info, err := os.Stat(list)
	if err != nil {
		return err
	}
	if err := os.WriteFile(list+".new", []byte(after), info.Mode().Perm()); err != nil {
		return err
	}
	return os.Rename(list+".new", list)
}

// refresh has the desktop read its files anew; most do by themselves.
func refresh(ctx context.Context, folder string) { _ = tool(ctx, "update-desktop-database", folder) }

// tool runs one of the desktop's own programs.
func tool(ctx context.Context, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, toolWithin)
	defer cancel()
	path, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, path, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, safeText(string(out[:min(len(out), 500)])))
	}
	return nil
}
