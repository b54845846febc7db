package boltstate_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"dragonload/internal/piece"
	"dragonload/internal/room"
	"dragonload/internal/tracker"
	"dragonload/internal/tracker/boltstate"
	"dragonload/internal/tracker/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, place string) tracker.State {
	t.Helper()
	s, err := boltstate.Open(filepath.Join(place, "tracker.db"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestState_passesTheSuite(t *testing.T) {
	t.Parallel()
	statetest.Run(t, true, func(t *testing.T, place string, c *statetest.Clock) tracker.State {
		s, err := boltstate.OpenAt(filepath.Join(place, "tracker.db"), c.Now)
		if err != nil {
			t.Fatal(err)
		}
		return s
	})
}

// A copy of the file taken while it is open is what a kill -9 leaves.
func TestState_isDurableWithoutClose(t *testing.T) {
	t.Parallel()
	place, copied := t.TempDir(), t.TempDir()
	s := open(t, place)
	defer s.Close()
	id, invite, key := [32]byte{1}, [16]byte{2}, piece.NodeID{3}
	if err := s.UseInvite(t.Context(), id, invite, key, 1, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(place, "tracker.db"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(copied, "tracker.db"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	after := open(t, copied)
	defer after.Close()
	if err := after.UseInvite(t.Context(), id, invite, piece.NodeID{4}, 1, time.Now().Add(time.Hour)); !errors.Is(err, room.ErrInviteUsed) {
		t.Errorf("second key after the crash: %v, want ErrInviteUsed", err)
	}
}

func TestOpen_refusesAFileInUse(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	s := open(t, place)
	if second, err := boltstate.Open(filepath.Join(place, "tracker.db")); !errors.Is(err, tracker.ErrLocked) {
		t.Fatalf("second Open: %v, %v, want ErrLocked", second, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, place).Close()
}

func TestOpen_makesAPrivateFile(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("mode bits mean nothing on Windows")
	}
	place := t.TempDir()
	open(t, place).Close()
	info, err := os.Stat(filepath.Join(place, "tracker.db"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestOpen_refusesANewerFormat(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	open(t, place).Close()
	edit(t, place, func(tx *bbolt.Tx) error { return tx.Bucket([]byte("meta")).Put([]byte("format"), []byte{9}) })
	if _, err := boltstate.Open(filepath.Join(place, "tracker.db")); err == nil {
		t.Error("opened a file of format 9")
	}
}

func TestOpen_forgetsUsesOfInvitesLongExpired(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	id := [32]byte{1}
	s := open(t, place)
	for n, age := range []time.Duration{40 * 24 * time.Hour, 20 * 24 * time.Hour} {
		if err := s.UseInvite(t.Context(), id, [16]byte{byte(n)}, piece.NodeID{3}, 1, time.Now().Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	open(t, place).Close()
	edit(t, place, func(tx *bbolt.Tx) error {
		var left []byte
		err := tx.Bucket([]byte("rooms")).Bucket(id[:]).Bucket([]byte("uses")).ForEach(func(k, _ []byte) error {
			left = append(left, k[0])
			return nil
		})
		if !bytes.Equal(left, []byte{1}) {
			t.Errorf("uses left of invites %v, want only 1", left)
		}
		return err
	})
}

func TestState_reportsDamagedRecords(t *testing.T) {
	t.Parallel()
	place := t.TempDir()
	id, key := [32]byte{1}, piece.NodeID{3}
	s := open(t, place)
	if _, err := s.Number(t.Context(), id, key); err != nil {
		t.Fatal(err)
	}
	s.Close()
	edit(t, place, func(tx *bbolt.Tx) error {
		r := tx.Bucket([]byte("rooms")).Bucket(id[:])
		return errors.Join(r.Put([]byte("removals"), []byte{1}), r.Bucket([]byte("members")).Put(key[:], binary.BigEndian.AppendUint16(nil, 1)))
	})
	s = open(t, place)
	defer s.Close()
	if _, err := s.Number(t.Context(), id, key); err == nil {
		t.Error("Number believed a damaged record")
	}
	if _, err := s.Removed(t.Context(), id, key); err == nil {
		t.Error("Removed believed a damaged record")
	}
	if _, err := s.Removals(t.Context(), id); err == nil {
		t.Error("Removals believed a damaged list")
	}
}

func edit(t *testing.T, place string, f func(*bbolt.Tx) error) {
	t.Helper()
	db, err := bbolt.Open(filepath.Join(place, "tracker.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Update(f), db.Close()); err != nil {
		t.Fatal(err)
	}
}
