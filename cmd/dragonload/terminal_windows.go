package main

import (
	"os"

	"golang.org/x/sys/windows"
)

// understandEscapes has a console carry out escape sequences.
func understandEscapes(f *os.File) {
	var mode uint32
	handle := windows.Handle(f.Fd())
	if windows.GetConsoleMode(handle, &mode) == nil {
		_ = windows.SetConsoleMode(handle, mode|windows.ENABLE_VIRTUAL_TERMINAL_PROCESSING) // without, the block is ugly
	}
}
