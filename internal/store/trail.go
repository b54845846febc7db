package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Behind the bytes of an unfinished file its partial file has a trail: what the journal
// knows of the download once more, so that progress can be rebuilt when the journal is
// damaged or gone. Nothing of it is believed before it is hashed. It is written after
// the first batch and cut off when the file is whole.
//
//	chunks    as in the journal, 8260 bytes each; the first at the size of the file
//	record    as in the journal, without the name of the partial file
//	foot      "dlpart 1", length of the record (4 bytes), CRC-32C of these
const (
	trailMagic   = "dlpart 1"
	trailFoot    = len(trailMagic) + 4 + 4
	sealedChunk  = chunkSize + 4
	maxTrailHead = 3 * maxPath
)

// trailState is what there may be of a trail.
type trailState uint8

const (
	trailNone  trailState = iota // nothing is behind the file's bytes
	trailSome                    // something may be, of which no chunk can be trusted to be there
	trailWhole                   // record and foot are there, and the chunks that were recorded
)

// trail writes chunks of the trail, and what is behind them if that is not there yet.
// The syncer calls it, or whoever has ended that.
func (p *partial) trail(values map[int][]byte) error {
	if p.trailed != trailWhole {
		p.trailed = trailSome // whatever comes of it is to be cut off
		head := p.rec
		head.part, head.clean = "", false
		b := head.encode()
		foot := binary.BigEndian.AppendUint32([]byte(trailMagic), uint32(len(b)))
		at := p.layout.Size + int64(chunks(p.layout.Count())*sealedChunk)
		if _, err := p.data.WriteAt(append(b, seal(foot)...), at); err != nil {
			return err
		}
		p.trailed = trailWhole
	}
	for n, value := range values {
		if _, err := p.data.WriteAt(value, p.layout.Size+int64(n*sealedChunk)); err != nil {
			return err
		}
	}
	return nil
}

// readTrail returns what the trail of a partial file says, and whether there is one.
func readTrail(data Handle) (k known, ok bool) {
	info, err := data.Stat()
	if err != nil || info.Size() < int64(trailFoot) {
		return k, false
	}
	foot := make([]byte, trailFoot)
	if _, err := data.ReadAt(foot, info.Size()-int64(trailFoot)); err != nil {
		return k, false
	}
	length := int64(binary.BigEndian.Uint32(foot[len(trailMagic):]))
	at := info.Size() - int64(trailFoot) - length
	if string(foot[:len(trailMagic)]) != trailMagic || length > maxTrailHead || at < 0 ||
		crc32.Checksum(foot[:trailFoot-4], castagnoli) != binary.BigEndian.Uint32(foot[trailFoot-4:]) {
		return k, false
	}
	head := make([]byte, length)
	if _, err := data.ReadAt(head, at); err != nil {
		return k, false
	}
	if k.rec, err = decodeRecord(head); err != nil {
		return k, false
	}
	if k.rec.tree {
		return k, false
	}
	count := chunks(k.rec.layout.Count())
	if at != k.rec.layout.Size+int64(count*sealedChunk) {
		return k, false
	}
	k.claims = newClaims(k.rec.layout.Count(), false)
	value := make([]byte, sealedChunk)
	for n := range count {
		if _, err := data.ReadAt(value, k.rec.layout.Size+int64(n*sealedChunk)); err == nil {
			_ = k.claims.decode(n, value, false) // a torn one claims nothing
		}
	}
	k.readable = true
	return k, true
}

// add takes over what other claims and c does not.
func (c *claims) add(other *claims) {
	for i, ok := other.have.Next(0); ok; i, ok = other.have.Next(i + 1) {
		if c.have.Set(i) {
			c.digests[i] = other.digests[i]
			if other.origin.Has(i) {
				c.origin.Set(i)
			}
		}
	}
}

// maxPartials bounds how many files of a folder Partials looks into.
const maxPartials = 1000

// Partials returns the partial files in folder whose trail says that they are of
// source, in the order of their names. It finds what a lost journal knew.
func (j *Journal) Partials(folder, source string) []string {
	dir, err := os.Open(folder)
	if err != nil {
		return nil
	}
	defer dir.Close()
	var found []string
	for looked := 0; looked < maxPartials; {
		names, err := dir.Readdirnames(100)
		for _, name := range names {
			if !strings.HasSuffix(name, ".part") {
				continue
			}
			looked++
			path := filepath.Join(folder, name)
			data, err := j.disk.Open(path, false)
			if err != nil {
				continue
			}
			if k, ok := readTrail(data); ok && k.rec.source == source {
				found = append(found, path)
			}
			data.Close()
		}
		if err != nil {
			break
		}
	}
	slices.Sort(found)
	return found
}

// Sweep removes the partial files, and the records, of downloads in folder to targets
// whose name begins with prefix: what a killed run left and nobody will go on with.
func (j *Journal) Sweep(folder, prefix string) error {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasPrefix(name, prefix) || !strings.HasSuffix(name, ".part") || !entry.Type().IsRegular() {
			continue
		}
		part := filepath.Join(folder, name)
		if e := j.disk.Remove(part); e != nil {
			err = errors.Join(err, e)
			continue
		}
		err = errors.Join(err, j.remove(strings.TrimSuffix(part, ".part")))
	}
	return err
}
