//go:build !linux

package peer

import "syscall"

// Elsewhere readiness is told at the first byte whatever is set, or not known to wait.
const canWakeLate = false

func setWake(syscall.RawConn, int) bool { return false }
