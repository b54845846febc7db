//go:build !windows

package main

import "os"

// understandEscapes is for consoles that must be asked to.
func understandEscapes(*os.File) {}
