package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"dragonload/internal/piece"
)

// Somebody else writes to the partial file while the download runs, behind what was hashed
// already: the damage is found before the file gets its name.
func TestFault12MeddledWithWhileItRuns(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell who else writes to a file")
	}
	meddle := map[string]func(b *bed) error{
		"bytes": func(b *bed) error {
			other, err := os.OpenFile(b.part(), os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = other.WriteAt([]byte("others"), b.layout.Range(1).Start+5)
			return errors.Join(err, other.Close())
		},
		"cut by its name": func(b *bed) error { return os.Truncate(b.part(), b.layout.Range(1).Start+5) },
		"cut": func(b *bed) error {
			other, err := os.OpenFile(b.part(), os.O_WRONLY|os.O_TRUNC, 0)
			if err != nil {
				return err
			}
			return other.Close()
		},
	}
	for name, by := range meddle {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBed(t, 6*piece.MinLength)
			damaged := make(chan piece.Index, 100)
			o := b.options()
			o.Damaged = func(i piece.Index, _ error) { damaged <- i }
			f := b.openWith(o)
			if err := f.Begin(b.pin, 0, false); err != nil {
				t.Fatal(err)
			}
			last := piece.Index(b.layout.Count() - 1)
			for i := range last {
				b.write(f, i)
			}
			hashed(t, f, last)
			if err := by(b); err != nil {
				t.Fatal(err)
			}
			b.write(f, last)
			rounds := 0
			for {
				done, err := f.Finish(t.Context())
				var lacks *IncompleteError
				if errors.As(err, &lacks) && rounds < 100 {
					rounds++
					b.write(f, lacks.Missing)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				if !done.Reread {
					t.Error("it does not say that it was read once more")
				}
				break
			}
			if rounds == 0 || len(damaged) == 0 {
				t.Errorf("%d pieces were missing, %d damaged", rounds, len(damaged))
			}
			if got, err := os.ReadFile(b.target()); err != nil || !bytes.Equal(got, b.data) {
				t.Errorf("the final name has wrong bytes (%v)", err)
			}
		})
	}
}

// Whoever only reads, and this program itself, is no reason to read the file again.
func TestFinish_readsNothingTwiceThatNobodyWroteTo(t *testing.T) {
	t.Parallel()
	b := newBed(t, 6*piece.MinLength)
	f := b.begun()
	b.write(f, b.all()...)
	if _, err := os.ReadFile(b.part()); err != nil {
		t.Fatal(err)
	}
	if done, err := f.Finish(t.Context()); err != nil || done.Reread {
		t.Errorf("read again: %t, %v", done.Reread, err)
	}
}

// hashed waits until the hash of the whole file has come to piece n.
func hashed(t *testing.T, f *File, n piece.Index) {
	t.Helper()
	if err := f.p.await(context.Background(), func() bool { return f.p.prefix >= n && !f.p.hashing }); err != nil {
		t.Fatal(err)
	}
}

// The same of a folder's files: of one that is open, and of one that is not.
func TestFault12MeddledWithInAFolder(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the system does not tell who else writes to a file")
	}
	for _, open := range []bool{true, false} {
		for name, by := range map[string]func(other *os.File) error{
			"bytes": func(other *os.File) error { _, err := other.WriteAt([]byte("others"), 70_000); return err },
			"cut":   func(other *os.File) error { return other.Truncate(70_000) },
		} {
			t.Run(fmt.Sprintf("%s, open %t", name, open), func(t *testing.T) {
				t.Parallel()
				g := newGrove(t, []TreeFile{{Path: "a/one", Size: 200_000}, {Path: "b", Size: 3}}).quick()
				lost := make(chan piece.Index, 100)
				g.o.Damaged = func(i piece.Index, _ error) { lost <- i }
				f := g.begun()
				g.write(f, 0, 1, 2)
				if err := f.p.await(t.Context(), func() bool { return f.p.durable.Count() == 3 && len(f.p.stale) == 0 }); err != nil {
					t.Fatal(err)
				}
				if !open {
					if err := f.tree.handles.clear(); err != nil {
						t.Fatal(err)
					}
				}
				other, err := os.OpenFile(filepath.Join(g.o.Target+".part", "a", "one"), os.O_WRONLY, 0)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(by(other), other.Close()); err != nil {
					t.Fatal(err)
				}
				g.write(f, 3, 4)
				rounds := 0
				for {
					_, err := f.Finish(t.Context())
					var lacks *IncompleteError
					if !errors.As(err, &lacks) || rounds == 100 {
						if err != nil {
							t.Fatal(err)
						}
						break
					}
					rounds++
					g.write(f, lacks.Missing)
				}
				if len(lost) == 0 {
					t.Error("no piece was found damaged")
				}
				for k := range g.o.Files {
					got, err := os.ReadFile(filepath.Join(g.o.Target, filepath.FromSlash(g.o.Files[k].Path)))
					if err != nil || !bytes.Equal(got, g.content(k)) {
						t.Errorf("%s has wrong bytes under its name (%v)", g.o.Files[k].Path, err)
					}
				}
			})
		}
	}
}
