package room

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"dragonload/internal/piece"
)

const identityFile = "identity.key"

// Identity is who a node is: an Ed25519 key, one per state folder. It never prints
// its key.
type Identity struct {
	ID  piece.NodeID // the public half
	Key ed25519.PrivateKey
}

func newIdentity(key ed25519.PrivateKey) *Identity {
	return &Identity{ID: piece.NodeID(key.Public().(ed25519.PublicKey)), Key: key}
}

// Format keeps the key out of every message, whatever the verb.
func (id Identity) Format(s fmt.State, _ rune) { fmt.Fprint(s, "node "+id.ID.String()) }

// LogValue keeps the key out of every log.
func (id Identity) LogValue() slog.Value { return slog.StringValue(id.ID.String()) }

// MarshalJSON refuses.
func (id Identity) MarshalJSON() ([]byte, error) { return nil, errors.New("an identity is not JSON") }

// LoadIdentity returns the identity of a state folder. At first use it makes both;
// processes that start at the same moment get the same identity. A folder that
// belongs to somebody else or that others may look into is refused, as is such a key;
// but an empty one, which a plain mkdir has made, is closed to others first.
func LoadIdentity(stateDir string) (*Identity, error) {
	if err := os.MkdirAll(stateDir, 0o700); err != nil {
		return nil, fmt.Errorf("make the state folder: %w", err)
	}
	if held, err := os.ReadDir(stateDir); err == nil && len(held) == 0 {
		_ = os.Chmod(stateDir, 0o700) // #nosec G302 -- a folder; what is not ours or stays open is refused next
	}
	if err := checkPrivate(stateDir, 0o700); err != nil {
		return nil, err
	}
	path := filepath.Join(stateDir, identityFile)
	id, err := readIdentity(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make an identity: %w", err)
	}
	encoded, err := encodeKey(key)
	if err != nil {
		return nil, err
	}
	err = createFile(path, encoded)
	if errors.Is(err, fs.ErrExist) { // another process was faster: its key is the one
		return readIdentity(path)
	}
	if err != nil {
		return nil, fmt.Errorf("store the identity: %w", err)
	}
	return newIdentity(key), nil
}

func readIdentity(path string) (*Identity, error) {
	key, err := readKey(path)
	if err != nil {
		return nil, err
	}
	return newIdentity(key), nil
}

// readKey reads a private key that encodeKey wrote, from a file that is nobody else's.
func readKey(path string) (ed25519.PrivateKey, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if err := checkPrivate(path, 0o600); err != nil {
		return nil, err
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" || len(rest) != 0 {
		return nil, fmt.Errorf("%s holds no private key in PEM; restore it from a backup, or move it away to begin with a new one", path)
	}
	// The parser's error is not passed on: it may quote what it has read.
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s holds a damaged private key", path)
	}
	own, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%s holds a key of another kind than Ed25519", path)
	}
	return own, nil
}

func encodeKey(key ed25519.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode a private key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
