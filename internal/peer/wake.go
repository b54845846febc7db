package peer

import (
	"net"
	"syscall"
	"time"
)

// A line that brings a long body wakes its reader only when much has come, not for each
// segment (SO_RCVLOWAT; epoll keeps to it since Linux 4.18). Measured in the lab: 6 to 10 %
// less CPU time a GiB, the kernel's included (bench/README.md).
const (
	// wakeDelay is for how long bytes may lie unread because of it.
	wakeDelay = 20 * time.Millisecond
	wakeMost  = 128 << 10
	wakeLeast = 8 << 10

	// wakeMargin is what of a body may have left the socket and not been read from the
	// connection: a record of TLS decrypted, another one not, and what package tls asks
	// for beyond that.
	wakeMargin = 2*(16<<10+256) + 4<<10
)

// wake sets how much wakes the reader of a connection.
type wake struct {
	socket syscall.RawConn // nil where it cannot be set
	set    int             // what is set now; 1 at first
	rate   int64           // bytes per second of the last body
}

func newWake(c net.Conn) wake {
	for layered, ok := c.(interface{ NetConn() net.Conn }); ok; layered, ok = c.(interface{ NetConn() net.Conn }) {
		c = layered.NetConn()
	}
	if tcp, ok := c.(*net.TCPConn); ok && canWakeLate {
		if raw, err := tcp.SyscallConn(); err == nil {
			return wake{socket: raw, set: 1}
		}
	}
	return wake{set: 1}
}

// before is called before a read of a body of which left bytes are to come: never may
// more be waited for than is to come.
func (w *wake) before(left int64) {
	if w.socket == nil {
		return
	}
	if want := wakeAfter(left, w.rate); want != w.set && setWake(w.socket, want) {
		w.set = want
	}
}

// wakeAfter returns how many bytes should wake a reader that awaits left more at rate
// bytes per second: 1, or wakeLeast doubled, so that it changes rarely.
func wakeAfter(left, rate int64) int {
	most := min(left-wakeMargin, rate/int64(time.Second/wakeDelay), wakeMost)
	want := 1
	for n := int64(wakeLeast); n <= most; n *= 2 {
		want = int(n)
	}
	return want
}

// measure notes how fast a body came.
func (w *wake) measure(bytes int64, took time.Duration) {
	w.rate = bytes * int64(time.Second) / max(int64(took), int64(time.Millisecond))
}
