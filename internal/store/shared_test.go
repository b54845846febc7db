package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"dragonload/internal/piece"
)

// shared puts the content of a grove where a user would keep it, and shares it.
func (g *grove) shared(change func(o *SharedOptions)) *Shared {
	g.t.Helper()
	o := SharedOptions{Root: filepath.Join(g.dir, "mine"), Layout: g.o.Layout, Digests: g.o.Digests}
	for k, file := range g.o.Files {
		path := filepath.Join(o.Root, filepath.FromSlash(file.Path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, g.content(k), 0o600)); err != nil {
			g.t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil {
			g.t.Fatal(err)
		}
		stamp := StampOf(info)
		stamp.Changed = 0 // nothing is believed of what was written just now
		o.Files = append(o.Files, SharedFile{file.Path, stamp})
	}
	if change != nil {
		change(&o)
	}
	s, err := OpenShared(o)
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { s.Close() })
	return s
}

func TestShared_readsWhatIsThere(t *testing.T) {
	t.Parallel()
	g := newGrove(t, someFiles)
	s := g.shared(func(o *SharedOptions) { o.Missing = []int{6} })
	have := s.Have()
	for _, i := range g.pieces() {
		missing := slices.Contains(g.pieces(6), i)
		got, err := s.ReadPiece(i, make([]byte, 0, 64<<10))
		switch {
		case missing && !errors.Is(err, ErrNotHeld), missing && have.Has(i):
			t.Errorf("piece %d of what is not there: %v", i, err)
		case !missing && (err != nil || !bytes.Equal(got, g.bytes(i)) || !have.Has(i)):
			t.Errorf("piece %d: %v", i, err)
		}
	}
	if _, err := s.ReadPiece(piece.Index(g.o.Layout.Count()), nil); !errors.Is(err, ErrNotHeld) {
		t.Errorf("a piece that the content has not got: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.ReadPiece(0, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// Whatever is done to a file, its pieces are lost once, and other files are served.
func TestShared_neverServesWhatHasChanged(t *testing.T) {
	t.Parallel()
	const file = 3
	sameTimes := func(t *testing.T, path string, do func(data []byte)) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		do(data)
		if err := errors.Join(os.WriteFile(path, data, 0o600), os.Chtimes(path, info.ModTime(), info.ModTime())); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(t *testing.T, path string){
		"removed": func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		"touched": func(t *testing.T, path string) {
			if err := os.Chtimes(path, time.Time{}, time.Unix(1e9, 0)); err != nil {
				t.Fatal(err)
			}
		},
		"cut short": func(t *testing.T, path string) {
			if err := os.Truncate(path, 100_000); err != nil {
				t.Fatal(err)
			}
		},
		"other bytes, same times": func(t *testing.T, path string) {
			sameTimes(t, path, func(data []byte) { data[70_000] ^= 1 })
		},
		"another file, same times": func(t *testing.T, path string) {
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			other := path + ".new"
			if err := errors.Join(os.WriteFile(other, make([]byte, info.Size()), 0o600),
				os.Chtimes(other, info.ModTime(), info.ModTime()), os.Rename(other, path)); err != nil {
				t.Fatal(err)
			}
		},
		"a link": func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+".moved"), os.Symlink(path+".moved", path)); err != nil {
				t.Skip(err)
			}
		},
		"a link above": func(t *testing.T, path string) {
			if err := errors.Join(os.Rename(path, path+".moved"), os.Mkdir(path, 0o700)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := newGrove(t, someFiles)
			var told []int
			s := g.shared(func(o *SharedOptions) {
				o.Changed = func(k int, lost piece.Extent, why error) {
					if _, want := o.Layout.File(k); lost != want || !errors.Is(why, ErrChanged) {
						t.Errorf("told of %v: %v", lost, why)
					}
					told = append(told, k)
				}
			})
			pieces := g.pieces(file)
			for _, i := range pieces {
				if _, err := s.ReadPiece(i, nil); err != nil {
					t.Fatal(err) // and is remembered as checked
				}
			}
			change(t, filepath.Join(g.dir, "mine", "big"))
			for range 2 {
				for _, i := range []piece.Index{pieces[1], pieces[0]} {
					if got, err := s.ReadPiece(i, nil); !errors.Is(err, ErrChanged) {
						t.Errorf("piece %d: %d bytes, %v", i, len(got), err)
					}
				}
			}
			if have := s.Have(); have.Has(pieces[5]) || have.Count() != g.o.Layout.Count()-len(pieces) {
				t.Errorf("%d pieces are held", have.Count())
			}
			if !slices.Equal(told, []int{file}) {
				t.Errorf("told of files %v", told)
			}
			for _, i := range g.pieces(0, 6) {
				if _, err := s.ReadPiece(i, nil); err != nil {
					t.Errorf("piece %d of a file that is as it was: %v", i, err)
				}
			}
		})
	}
}

// A file of which all is as it was when it was hashed is not hashed again, and is as soon
// as it is not: whoever sets the time of writing back does not get away with it.
func TestShared_believesTheTimeOfChange(t *testing.T) {
	t.Parallel()
	g := newGrove(t, someFiles)
	i := g.pieces(3)[2]
	path := filepath.Join(g.dir, "mine", "big")
	// As if other bytes had been there when it was hashed: only hashing can tell.
	lie := func(o *SharedOptions) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		o.Files[3].Stamp = StampOf(info)
		o.Digests = slices.Clone(o.Digests)
		o.Digests[i] = piece.Digest{1}
	}
	s := g.shared(lie)
	if s.o.Files[3].Stamp.Changed == 0 {
		t.Skip("the system does not tell when a file has changed")
	}
	if got, err := s.ReadPiece(i, nil); err != nil || !bytes.Equal(got, g.bytes(i)) {
		t.Fatalf("it was hashed: %v", err)
	}
	for hashed, now := s.o.Files[3].Stamp, s.o.Files[3].Stamp; now == hashed; { // until the clock has moved
		err := os.Chtimes(path, time.Time{}, time.Unix(0, hashed.Modified))
		info, statErr := os.Stat(path)
		if err := errors.Join(err, statErr); err != nil {
			t.Fatal(err)
		}
		now = StampOf(info)
	}
	if _, err := s.ReadPiece(i, nil); !errors.Is(err, ErrChanged) {
		t.Errorf("it was not hashed: %v", err)
	}
}

// A file that has got another name, owner or inode, and has its bytes, is served.
func TestShared_servesAfterAChangeThatIsNone(t *testing.T) {
	t.Parallel()
	g := newGrove(t, someFiles)
	s := g.shared(nil)
	i := g.pieces(3)[2]
	if _, err := s.ReadPiece(i, nil); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(g.dir, "mine", "big")
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path+".new", g.content(3), 0o640), os.Chtimes(path+".new", info.ModTime(), info.ModTime()), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
	if got, err := s.ReadPiece(i, nil); err != nil || !bytes.Equal(got, g.bytes(i)) {
		t.Error(err)
	}
}

func TestOpenShared_refusesWhatDoesNotFit(t *testing.T) {
	t.Parallel()
	g := newGrove(t, someFiles)
	good := SharedOptions{Root: g.dir, Layout: g.o.Layout, Digests: g.o.Digests}
	for _, f := range g.o.Files {
		good.Files = append(good.Files, SharedFile{f.Path, Stamp{Size: f.Size}})
	}
	s, err := OpenShared(good)
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	for name, change := range map[string]func(o *SharedOptions){
		"no folder":    func(o *SharedOptions) { o.Root = filepath.Join(g.dir, "none") },
		"digests":      func(o *SharedOptions) { o.Digests = o.Digests[1:] },
		"files":        func(o *SharedOptions) { o.Files = o.Files[1:] },
		"size":         func(o *SharedOptions) { o.Files[0].Stamp.Size++ },
		"escape":       func(o *SharedOptions) { o.Files[0].Path = "../up" },
		"absolute":     func(o *SharedOptions) { o.Files[0].Path = "/etc/passwd" },
		"empty name":   func(o *SharedOptions) { o.Files[0].Path = "a//b" },
		"missing size": func(o *SharedOptions) { o.Missing = []int{-1}; o.Files[1].Stamp.Size = -1 },
	} {
		o := good
		o.Files = slices.Clone(good.Files)
		change(&o)
		if s, err := OpenShared(o); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}
