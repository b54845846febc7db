package node

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestFault18UnansweredConnections: a connection whose other end is gone without a word is
// given up after 30 s, whether something was sent over it or not; on the side that has
// made it, and on the side that has taken it.
func TestFault18UnansweredConnections(t *testing.T) {
	t.Parallel()
	l, err := systemNetwork{}.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	made, err := systemNetwork{}.Dial(t.Context(), "tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer made.Close()
	taken, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]net.Conn{"made": made, "taken": taken} {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		option := func(level, name int) (value int) {
			if cerr := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), level, name) }); cerr != nil || err != nil {
				t.Fatal(cerr, err)
			}
			return value
		}
		if ms := option(unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); ms != 30_000 {
			t.Errorf("%s: what was sent may stay unacknowledged for %d ms", name, ms)
		}
		idle, every, times := option(unix.IPPROTO_TCP, unix.TCP_KEEPIDLE), option(unix.IPPROTO_TCP, unix.TCP_KEEPINTVL), option(unix.IPPROTO_TCP, unix.TCP_KEEPCNT)
		if option(unix.SOL_SOCKET, unix.SO_KEEPALIVE) == 0 || idle+every*times > 30 {
			t.Errorf("%s: an idle end is given up after %d s + %d times %d s", name, idle, times, every)
		}
	}
}
