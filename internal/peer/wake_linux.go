package peer

import (
	"syscall"

	"golang.org/x/sys/unix"
)

const canWakeLate = true

func setWake(c syscall.RawConn, bytes int) (ok bool) {
	_ = c.Control(func(fd uintptr) {
		ok = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) == nil
	})
	return ok
}
