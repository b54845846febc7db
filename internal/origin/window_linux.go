package origin

import (
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// canUnlock: SO_BUF_LOCK (Linux 5.15) gives a buffer of fixed size back to the system's
// tuning. Without it a small buffer would stay small.
var canUnlock = func() bool {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK)
	return err == nil
}()

// setReceiveBuffer must run before the connection is made: a window that was offered is
// never taken back.
func setReceiveBuffer(network string, raw syscall.RawConn, size int) error {
	if network != "tcp" && network != "tcp4" && network != "tcp6" {
		return nil
	}
	return raw.Control(func(fd uintptr) {
		// If it fails the window is as large as always.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size)
	})
}

func unlock(c *net.TCPConn) {
	control(c, func(fd int) { _ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, 0) })
}

// roundTrip returns the shortest round trip seen on c, 0 if that is not known.
func roundTrip(c *net.TCPConn) (rtt time.Duration) {
	control(c, func(fd int) {
		if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			rtt = time.Duration(info.Min_rtt) * time.Microsecond
			if info.Min_rtt == 1<<32-1 {
				rtt = time.Duration(info.Rtt) * time.Microsecond
			}
		}
	})
	return rtt
}

func control(c *net.TCPConn, f func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}
