package storetest

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
)

// Killed returns what is there when the process ends after n operations: all that it
// did, for the system lives on.
func (l Log) Killed(n int) Image {
	return l.cut(n, func(Op, bool) fate { return fate{kept: true} })
}

// A fate is what becomes of an operation that was not synced when the power went.
type fate struct {
	kept bool
	size bool                  // not kept, but the file's size is: zeros where nothing came
	torn func(sector int) bool // kept in parts: which sectors of sectorSize came
	unit int
}

// PowerCuts returns what may be there when the power goes after n operations: of what
// was not synced, everything or nothing, each thing alone, everything but that, names
// without data and data without names, sizes without data, and, drawn from rng, samples
// of any subset, with writes torn at 512 and 4096 bytes. Each image comes once; seen
// holds those that came before.
func (l Log) PowerCuts(n, samples int, rng *rand.Rand, seen map[[32]byte]bool) []Image {
	var open []int // operations not synced
	l.cut(n, func(_ Op, name bool) fate { open = append(open, 0); return fate{kept: true} })
	count := len(open)
	var images []Image
	try := func(decide func(k int, op Op, name bool) fate) {
		k := -1
		image := l.cut(n, func(op Op, name bool) fate { k++; return decide(k, op, name) })
		if sum := image.sum(); !seen[sum] {
			seen[sum] = true
			images = append(images, image)
		}
	}
	for _, names := range []bool{true, false} {
		for _, data := range []fate{{}, {kept: true}, {size: true}} {
			try(func(_ int, _ Op, name bool) fate {
				if name {
					return fate{kept: names}
				}
				return data
			})
		}
	}
	const exhaustive = 4
	if count <= exhaustive {
		for subset := range 1 << count {
			try(func(k int, _ Op, _ bool) fate { return fate{kept: subset>>k&1 == 1} })
		}
	} else {
		for one := range count {
			try(func(k int, _ Op, _ bool) fate { return fate{kept: k == one} })
			try(func(k int, _ Op, _ bool) fate { return fate{kept: k != one} })
		}
	}
	for range samples {
		if count == 0 {
			break
		}
		unit := []int{512, 4096}[rng.IntN(2)]
		try(func(_ int, _ Op, name bool) fate {
			switch rng.IntN(5) {
			case 0:
				return fate{}
			case 1:
				return fate{kept: true}
			case 2:
				return fate{size: true}
			}
			if name {
				return fate{kept: rng.IntN(2) == 0}
			}
			keep := rng.Uint64()
			return fate{kept: true, unit: unit, torn: func(sector int) bool { return keep>>(sector%64)&1 == 1 }}
		})
	}
	return images
}

// cut replays n operations; decide says what becomes of each that is not synced by then,
// in their order. name says that it is about a name and not about data.
func (l Log) cut(n int, decide func(op Op, name bool) fate) Image {
	ops := l.Ops[:n]
	synced := make(map[int]int)     // file: operations before this one are durable
	folders := make(map[string]int) // likewise of names in a folder
	all := 0                        // likewise of everything
	made := make(map[string]bool)   // where there is or was a folder
	folder := make(map[int]bool)    // numbers of folders
	for _, op := range ops {
		switch op.Kind {
		case SyncAll:
			all = max(all, op.Upto)
		case Mkdir:
			made[op.Path], folder[op.File] = true, true
		case Sync:
			synced[op.File] = max(synced[op.File], op.Upto)
		case SyncFolder:
			folders[op.Path] = max(folders[op.Path], op.Upto)
		}
	}
	names, files := make(map[string]int), make(map[int][]byte)
	for k, path := range l.Start.paths() {
		if name, is := strings.CutSuffix(path, "/"); is {
			names[name], made[name], folder[k+1] = k+1, true, true
			continue
		}
		names[path], files[k+1] = k+1, slices.Clone(l.Start[path])
	}
	for k, op := range ops {
		switch op.Kind {
		case Write, Truncate:
			f := fate{kept: true}
			if k >= max(all, synced[op.File]) {
				f = decide(op, false)
			}
			files[op.File] = op.apply(files[op.File], f)
		case Create, Mkdir, Rename, Remove:
			path := op.Path
			if k < max(all, folders[filepath.Dir(path)]) || decide(op, true).kept {
				delete(names, path)
				switch op.Kind {
				case Create, Mkdir:
					names[path] = op.File
				case Rename:
					names[op.To] = op.File
				}
			}
		}
	}
	image := make(Image)
	for path, file := range names {
		switch {
		case !reached(path, made, folder, names):
		case folder[file]:
			image[path+"/"] = nil
		default:
			image[path] = files[file]
		}
	}
	return image
}

// reached reports whether the folders on the way to path are there.
func reached(path string, made map[string]bool, folder map[int]bool, names map[string]int) bool {
	for up := filepath.Dir(path); up != "."; up = filepath.Dir(up) {
		if made[up] && !folder[names[up]] {
			return false
		}
	}
	return true
}

// apply carries out a write or a truncation, or what comes of it.
func (op Op) apply(data []byte, f fate) []byte {
	if !f.kept && !f.size {
		return data
	}
	if op.Kind == Truncate {
		if op.Size <= int64(len(data)) {
			return data[:op.Size:op.Size]
		}
		return append(data, make([]byte, op.Size-int64(len(data)))...)
	}
	if end := op.Offset + int64(len(op.Data)); end > int64(len(data)) {
		data = append(data, make([]byte, end-int64(len(data)))...)
	}
	switch {
	case f.torn != nil:
		for at := 0; at < len(op.Data); {
			// Sectors are those of the disk, not of the write.
			sector := (int(op.Offset) + at) / f.unit
			end := min((sector+1)*f.unit-int(op.Offset), len(op.Data))
			if f.torn(sector) {
				copy(data[op.Offset+int64(at):], op.Data[at:end])
			}
			at = end
		}
	case f.kept:
		copy(data[op.Offset:], op.Data)
	}
	return data
}

func (i Image) paths() []string { return slices.Sorted(maps.Keys(i)) }

func (i Image) sum() (sum [32]byte) {
	h := sha256.New()
	for _, path := range i.paths() {
		h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(path))))
		h.Write([]byte(path))
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(i[path]))))
		h.Write(i[path])
	}
	h.Sum(sum[:0])
	return sum
}
