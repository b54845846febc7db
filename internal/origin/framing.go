package origin

// framing follows a body to see whether all of it is in chunks, as HTTP/1.1 sends them.
// HTTP/1.0 has none, so that net/http takes the sizes for bytes of the file where a server
// sends them with it all the same.
type framing struct {
	at    frame
	left  uint64 // in size the size so far, in data what is to come
	digit int    // digits of the size
	blank bool   // in trailer: nothing stands on this line yet
}

type frame uint8

const (
	inSize    frame = iota
	inExtra         // behind the size
	inData          // left bytes and an end of line
	inTrailer       // behind the last chunk
	inNothing       // all has come
	inNoChunk       // it is no such body
)

// take follows p.
func (f *framing) take(p []byte) {
	for len(p) > 0 && f.at != inNoChunk {
		if f.at == inData && f.left > 2 {
			n := min(uint64(len(p)), f.left-2)
			f.left -= n
			p = p[n:]
			continue
		}
		f.step(p[0])
		p = p[1:]
	}
}

func (f *framing) step(c byte) {
	switch f.at {
	case inSize:
		if v, ok := hexValue(c); ok && f.digit < 15 {
			f.left, f.digit = f.left<<4|v, f.digit+1
			return
		}
		f.at = inExtra
		if f.digit == 0 || c != ';' && c != ' ' && c != '\r' && c != '\n' {
			f.at = inNoChunk
		}
		if c == '\n' {
			f.sized()
		}
	case inExtra:
		if c == '\n' {
			f.sized()
		}
	case inData: // its end of line alone
		f.left--
		switch {
		case c != "\n\r"[f.left]:
			f.at = inNoChunk
		case f.left == 0:
			*f = framing{}
		}
	case inTrailer:
		switch {
		case c == '\n' && f.blank:
			f.at = inNothing
		case c != '\r':
			f.blank = c == '\n'
		}
	default:
		f.at = inNoChunk
	}
}

// sized: a line with a size has ended.
func (f *framing) sized() {
	if f.left == 0 {
		f.at, f.blank = inTrailer, true
		return
	}
	f.at, f.left = inData, f.left+2
}

// whole reports whether what has come is a body in chunks from its first byte to its last.
func (f *framing) whole() bool { return f != nil && f.at == inNothing }

func hexValue(c byte) (uint64, bool) {
	switch {
	case c >= '0' && c <= '9':
		return uint64(c - '0'), true
	case c >= 'a' && c <= 'f':
		return uint64(c-'a') + 10, true
	case c >= 'A' && c <= 'F':
		return uint64(c-'A') + 10, true
	}
	return 0, false
}
