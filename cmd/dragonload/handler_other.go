//go:build !linux && !darwin && !windows

package main

import (
	"context"
	"errors"
	"io"
)

// terminalFile is the terminal of this process.
const terminalFile = "/dev/tty"

var errNoHandlers = errors.New("there is no way known to register what opens links on this system; dragonload open LINK opens one")

func registerLinks(context.Context, string, string, io.Writer) error { return errNoHandlers }

func unregisterLinks(context.Context, io.Writer) error { return errNoHandlers }
