package node

import "golang.org/x/sys/unix"

// limitUnanswered bounds how long what was sent may stay unacknowledged. If it cannot be
// set the system's own bound holds, a quarter of an hour.
func limitUnanswered(fd uintptr) {
	_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unansweredFor.Milliseconds()))
}
