package store

import (
	"errors"
	"fmt"

	"dragonload/internal/piece"
)

// Errors that callers branch on. They come wrapped, with what they are about.
var (
	// ErrLocked: another process has the journal open.
	ErrLocked = errors.New("another dragonload works with this state folder")
	// ErrInUse: the same target or partial file is being filled already, by this
	// process or by another.
	ErrInUse = errors.New("it is being downloaded already; wait for that to end, or choose another name with -o")
	// ErrExists: the final name is taken and Options.Overwrite is not set.
	ErrExists = errors.New("the file exists already")
	// ErrCannotCreate: the partial file cannot be made, or what has its name is not
	// a file that may be written to.
	ErrCannotCreate = errors.New("cannot create the file")
	// ErrReplaced: what has the partial file's name is not the partial file of this
	// download. It is neither followed nor changed.
	ErrReplaced = errors.New("the partial file was replaced; not touching it")
	// ErrOtherSource: the partial file, or the journal, holds a download of another
	// Options.Source that cannot be gone on with. It is not changed.
	ErrOtherSource = errors.New("it holds a download of another address; not touching it")
	// ErrDiskFull: see DiskFullError. Trying again can help once there is room.
	ErrDiskFull = errors.New("the disk is full")
	// ErrReadOnly: the disk takes no writes. Passing.
	ErrReadOnly = errors.New("the disk is read-only")
	// ErrFolderGone: the folder of the download was moved, removed or unmounted.
	// Nothing is written to what may be in its place. Passing.
	ErrFolderGone = errors.New("the folder is gone")
	// ErrDiskFailing: the disk has failed to keep data more than once. The File takes
	// no more pieces; what the journal has recorded is kept.
	ErrDiskFailing = errors.New("the disk is failing")
	// ErrDamaged: the bytes of a piece on disk no longer match its digest, or cannot
	// be read. The piece should be given to Forget and fetched again.
	ErrDamaged = errors.New("damaged on disk")
	// ErrNotHeld: the piece is not stored here.
	ErrNotHeld = errors.New("the piece is not stored here")
	// ErrIncomplete: see IncompleteError.
	ErrIncomplete = errors.New("not all pieces are stored")
)

// DiskFullError tells how much room is wanted on the disk of Folder; it is
// ErrDiskFull. Free is -1 if the system did not say.
type DiskFullError struct {
	Folder     string
	Need, Free int64 // bytes
}

func (e *DiskFullError) Error() string {
	if e.Free < 0 {
		return fmt.Sprintf("the disk is full: needs %s more on the disk of %s; make room there", Bytes(e.Need), e.Folder)
	}
	return fmt.Sprintf("the disk is full: needs %s, %s free on the disk of %s; make room there", Bytes(e.Need), Bytes(e.Free), e.Folder)
}

// Passing reports whether err says only that nothing can be stored for now: the disk is
// full or read-only, or the folder is gone. File.Ready tells when it is over.
func Passing(err error) bool {
	return errors.Is(err, ErrDiskFull) || errors.Is(err, ErrReadOnly) || errors.Is(err, ErrFolderGone)
}

// IsDiskFull reports whether err, of writing to any file, means that the disk or what
// the user may have of it is full.
func IsDiskFull(err error) bool { return isFull(err) }

// Is makes a DiskFullError ErrDiskFull.
func (e *DiskFullError) Is(target error) bool { return target == ErrDiskFull }

// IncompleteError names the first piece that is missing from a file that was to be
// finished; it is ErrIncomplete. A piece can go missing after it was stored, when it
// is found damaged; Options.Damaged has told of it then.
type IncompleteError struct{ Missing piece.Index }

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("piece %d is not stored", e.Missing)
}

// Is makes an IncompleteError ErrIncomplete.
func (e *IncompleteError) Is(target error) bool { return target == ErrIncomplete }

// Bytes writes n with three digits and a decimal unit.
func Bytes(n int64) string {
	units := []string{"bytes", "kB", "MB", "GB", "TB", "PB"}
	v, u := float64(n), 0
	for v >= 999.5 && u < len(units)-1 {
		v, u = v/1000, u+1
	}
	if u == 0 {
		return fmt.Sprintf("%d bytes", n)
	}
	return fmt.Sprintf("%.3g %s", v, units[u])
}
