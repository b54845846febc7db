package rpc

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
)

// localFile is where a running node says how to reach it, in its state folder.
const localFile = "node.json"

// provePath answers a nonce with a proof that the server knows the token. A client
// asks before it sends the token: after a node was killed its port may belong to
// another program, and the token, and what a download holds of secrets, must not go
// there.
const provePath = "/prove"

// ErrNoNode means that no node runs on a state folder.
var ErrNoNode = errors.New("no node runs on this state folder")

// local is the content of localFile.
type local struct {
	Addr  string `json:"addr"`  // literal loopback address and port
	Token string `json:"token"` // 64 hexadecimal digits; secret
	PID   int    `json:"pid"`
}

func newLocal(addr string) local {
	var token [32]byte
	rand.Read(token[:])
	return local{Addr: addr, Token: hex.EncodeToString(token[:]), PID: os.Getpid()}
}

// write puts l into a state folder so that readers see all of it or nothing.
func (l local) write(stateDir string) error {
	data, err := json.Marshal(l)
	if err != nil {
		return err
	}
	path := filepath.Join(stateDir, localFile)
	f, err := os.CreateTemp(stateDir, localFile+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	// CreateTemp gives mode 0600 before anything is written.
	_, err = f.Write(append(data, '\n'))
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // the error above is the one that matters
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// remove takes l out of a state folder, unless another node has written its own.
func (l local) remove(stateDir string) error {
	if now, err := readLocal(stateDir); err != nil {
		return err
	} else if now != l {
		return nil
	}
	return os.Remove(filepath.Join(stateDir, localFile))
}

// readLocal returns ErrNoNode if there is no file.
func readLocal(stateDir string) (local, error) {
	path := filepath.Join(stateDir, localFile)
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return local{}, ErrNoNode
	}
	if err != nil {
		return local{}, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close()
	var l local
	if err := json.NewDecoder(io.LimitReader(f, 4096)).Decode(&l); err != nil {
		return local{}, fmt.Errorf("read %s: %w", path, err)
	}
	if token, err := hex.DecodeString(l.Token); err != nil || len(token) != 32 || !loopback(l.Addr) {
		return local{}, fmt.Errorf("read %s: it names no node on this machine", path)
	}
	return l, nil
}

// loopback reports whether addr is a literal loopback address with a port. Names are
// not: a web page can make one point here (DNS rebinding).
func loopback(addr string) bool {
	a, err := netip.ParseAddrPort(addr)
	return err == nil && a.Addr().IsLoopback() && a.Addr().Zone() == ""
}

// prove returns the proof that l's token is known, for a nonce.
func (l local) prove(nonce string) string {
	mac := hmac.New(sha256.New, []byte(l.Token))
	mac.Write([]byte("dragonload local api 1\x00" + nonce))
	return hex.EncodeToString(mac.Sum(nil))
}
