package store

import (
	"encoding/binary"
	"errors"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// meddlers are those who write to files that this process fills. The system tells when a
// handle that was open for writing is closed; those of this process are closed after their
// watch has ended.
var meddlers watched

// watched is one place at the system for all files: there are few to be had.
type watched struct {
	mu      sync.Mutex
	opened  bool
	fd      int
	noticed map[int32]bool // watches, and whether somebody wrote
}

// watch is the number of a watch over one file; 0 if there is none.
type watch int32

// watchable: the system tells who else writes, unless it has no more watches.
const watchable = true

// watchFile begins to notice who else writes to f.
func watchFile(f *os.File) watch {
	m := &meddlers
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.opened {
		fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
		if err != nil {
			return 0
		}
		m.opened, m.fd, m.noticed = true, fd, make(map[int32]bool)
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return 0
	}
	number := -1
	err = conn.Control(func(fd uintptr) {
		// By this path it is the very file, whatever has its name.
		number, _ = unix.InotifyAddWatch(m.fd, "/proc/self/fd/"+strconv.Itoa(int(fd)), unix.IN_CLOSE_WRITE)
	})
	if err != nil || number <= 0 {
		return 0
	}
	m.noticed[int32(number)] = false
	return watch(number)
}

// touched reports whether somebody else has written to the file since the last call; told
// is false if that cannot be told.
func (w watch) touched() (touched, told bool) {
	if w == 0 {
		return false, false
	}
	m := &meddlers
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read()
	touched = m.noticed[int32(w)]
	m.noticed[int32(w)] = false
	return touched, true
}

// end ends the watch; it goes before the file is closed.
func (w watch) end() {
	if w == 0 {
		return
	}
	m := &meddlers
	m.mu.Lock()
	defer m.mu.Unlock()
	m.read()
	delete(m.noticed, int32(w))
	_, _ = unix.InotifyRmWatch(m.fd, uint32(w)) // there is none any more if the file is gone
}

// read takes in what the system has to tell; it needs mu.
func (m *watched) read() {
	buf := make([]byte, 4<<10)
	for {
		n, err := unix.Read(m.fd, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n <= 0 {
			return
		}
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; {
			number, mask := int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:])
			size := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
			b = b[min(size, len(b)):]
			if mask&unix.IN_Q_OVERFLOW != 0 {
				for k := range m.noticed {
					m.noticed[k] = true
				}
			}
			if _, known := m.noticed[number]; known && mask&unix.IN_CLOSE_WRITE != 0 {
				m.noticed[number] = true
			}
		}
	}
}
