package sim

import (
	"bufio"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"dragonload/internal/piece"
)

// A world as text: a line for what holds for all, one for the origin, one for each
// member and each fault, made of words "name=value". What is zero is left out; a flag
// that is set is its name alone. Lines that begin with # are for people.

// WriteText writes the world so that ReadWorld reads it again.
func (w *World) WriteText(out io.Writer) error {
	b := bufio.NewWriter(out)
	fmt.Fprintln(b, "world"+words(w))
	fmt.Fprintln(b, "origin"+words(&w.Origin))
	for k := range w.Members {
		fmt.Fprintf(b, "member%s\n", words(&w.Members[k]))
	}
	for k := range w.Faults {
		fmt.Fprintf(b, "fault %v%s\n", w.Faults[k].Kind, words(&w.Faults[k]))
	}
	return b.Flush()
}

// ReadWorld reads what WriteText wrote.
func ReadWorld(in io.Reader) (World, error) {
	var w World
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		if err := w.read(fields[0], fields[1:]); err != nil {
			return w, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return w, fmt.Errorf("read a world: %w", err)
	}
	return w, w.valid()
}

func (w *World) read(what string, args []string) error {
	switch what {
	case "world":
		return readWords(w, args)
	case "origin":
		return readWords(&w.Origin, args)
	case "member":
		w.Members = append(w.Members, Member{})
		return readWords(&w.Members[len(w.Members)-1], args)
	case "fault":
		if len(args) == 0 {
			return fmt.Errorf("a fault of no kind")
		}
		k := slices.Index(faultNames[:], args[0])
		if k < 0 {
			return fmt.Errorf("there is no fault %q", args[0])
		}
		w.Faults = append(w.Faults, Fault{Kind: FaultKind(k)})
		return readWords(&w.Faults[len(w.Faults)-1], args[1:])
	}
	return fmt.Errorf("a world has no %q", what)
}

// valid reports what would make a run of a world that was written by hand panic.
func (w *World) valid() error {
	if len(w.Members) == 0 || w.Size < 0 || w.Origin.Up <= 0 {
		return fmt.Errorf("a world needs members, a size and an origin that sends")
	}
	if w.ofManifest() {
		if _, err := piece.LayoutOf(w.pieceLength(), w.sizes()); err != nil {
			return err
		}
	}
	for k := range w.Members {
		if m := &w.Members[k]; m.LANUp <= 0 || m.LANDown <= 0 {
			return fmt.Errorf("member %d has no LAN", k)
		} else if m.Twin < 0 || m.Twin > k {
			return fmt.Errorf("member %d has the key of one that does not come before it", k)
		}
	}
	for k := range w.Faults {
		f := &w.Faults[k]
		if f.Member < 0 || f.Member >= len(w.Members) || f.Other < 0 || f.Other > len(w.Members) {
			return fmt.Errorf("fault %v concerns a member that there is not", f.Kind)
		}
		if f.Sides.Len() > 0 {
			sides := piece.NewBitfield(len(w.Members) + 1)
			for e := range f.Sides.Extents {
				for i := e.First; i < e.End() && int(i) < sides.Len(); i++ {
					sides.Set(i)
				}
			}
			f.Sides = sides
		}
	}
	return nil
}

// kebab turns QuietFrom into quiet-from and WANDelay into wan-delay.
func kebab(name string) string {
	var b strings.Builder
	runes := []rune(name)
	for k, c := range runes {
		if k > 0 && unicode.IsUpper(c) && (unicode.IsLower(runes[k-1]) || k+1 < len(runes) && unicode.IsLower(runes[k+1])) {
			b.WriteByte('-')
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// words writes the fields of *v, which is a World, an Origin, a Member or a Fault.
func words(v any) string {
	var b strings.Builder
	s := reflect.ValueOf(v).Elem()
	for k := range s.NumField() {
		f, name := s.Field(k), kebab(s.Type().Field(k).Name)
		if f.IsZero() {
			continue
		}
		switch x := f.Interface().(type) {
		case bool:
			if name != "drawn" {
				b.WriteString(" " + name)
			}
		case piece.Bitfield:
			if x.Count() > 0 {
				fmt.Fprintf(&b, " %s=%s", name, runs(&x))
			}
		case int, int64, uint64, time.Duration:
			fmt.Fprintf(&b, " %s=%v", name, x)
		}
	}
	return b.String()
}

// runs writes a set of members like 0-3,7.
func runs(x *piece.Bitfield) string {
	var all []string
	for e := range x.Extents {
		all = append(all, e.String())
	}
	return strings.Join(all, ",")
}

func readWords(v any, args []string) error {
	s := reflect.ValueOf(v).Elem()
	for _, arg := range args {
		name, value, _ := strings.Cut(arg, "=")
		k := 0
		for k < s.NumField() && kebab(s.Type().Field(k).Name) != name {
			k++
		}
		if k == s.NumField() {
			return fmt.Errorf("no %s has %q", strings.ToLower(s.Type().Name()), name)
		}
		if err := readWord(s.Field(k), value); err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
	}
	return nil
}

func readWord(f reflect.Value, value string) error {
	switch f.Interface().(type) {
	case bool:
		f.SetBool(true)
		return nil
	case time.Duration:
		d, err := time.ParseDuration(value)
		f.SetInt(int64(d))
		return err
	case piece.Bitfield:
		x, err := readRuns(value)
		f.Set(reflect.ValueOf(x))
		return err
	case int, int64:
		n, err := strconv.ParseInt(value, 10, 64)
		f.SetInt(n)
		return err
	case uint64:
		n, err := strconv.ParseUint(value, 10, 64)
		f.SetUint(n)
		return err
	}
	return fmt.Errorf("cannot be written in a world")
}

// maxSides bounds the numbers in a list of members.
const maxSides = 1 << 16

func readRuns(value string) (piece.Bitfield, error) {
	x := piece.NewBitfield(maxSides)
	for _, part := range strings.Split(value, ",") {
		low, high, isRun := strings.Cut(part, "-")
		if !isRun {
			high = low
		}
		a, err := strconv.ParseUint(low, 10, 16)
		if err != nil {
			return x, err
		}
		b, err := strconv.ParseUint(high, 10, 16)
		if err != nil {
			return x, err
		}
		for i := a; i <= b; i++ {
			x.Set(uint32(i))
		}
	}
	return x, nil
}
