package main

import (
	"context"
	"errors"
	"io"

	"golang.org/x/sys/windows/registry"
)

// terminalFile is the console of this process.
const terminalFile = "CONOUT$"

const linkKey = `Software\Classes\dragon`

// registerLinks writes the keys of a scheme, for this user alone.
func registerLinks(_ context.Context, program, dir string, _ io.Writer) error {
	for _, one := range []struct{ key, name, value string }{
		{linkKey, "", "URL:dragonload"},
		{linkKey, "URL Protocol", ""},
		{linkKey + `\DefaultIcon`, "", windowsQuoted(program) + ",0"},
		{linkKey + `\shell\open\command`, "", windowsCommand(openCommand(program, dir))},
	} {
		k, _, err := registry.CreateKey(registry.CURRENT_USER, one.key, registry.SET_VALUE)
		if err != nil {
			return err
		}
		err = k.SetStringValue(one.name, one.value)
		if err = errors.Join(err, k.Close()); err != nil {
			return err
		}
	}
	return nil
}

// unregisterLinks removes what registerLinks has made, the innermost first.
func unregisterLinks(context.Context, io.Writer) error {
	for _, key := range []string{`\shell\open\command`, `\shell\open`, `\shell`, `\DefaultIcon`, ""} {
		if err := registry.DeleteKey(registry.CURRENT_USER, linkKey+key); err != nil && !errors.Is(err, registry.ErrNotExist) {
			return err
		}
	}
	return nil
}
