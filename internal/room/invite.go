package room

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"
)

// The secret of an invite, base64url without padding:
//
//	 0  1  version, 1
//	 1 32  id of the room (the authority's fingerprint)
//	33 16  id of the invite, random
//	49  8  end of validity, seconds since 1970, big endian
//	57  4  how many keys may join with it, 0 for any number, big endian
//	61 16  HMAC-SHA-256 of bytes 0 to 60, cut to 16 bytes, by a key derived from the
//	       authority's private key
//
// The MAC lets the authority make invites that nobody has to register.
const (
	inviteVersion = 1

	atRoom, atID, atExpiry, atUses, atMAC, tokenSize = 1, 33, 49, 57, 61, 77
)

const (
	// MaxUses is the largest number of uses that an invite counts.
	MaxUses = MaxMembers
	// MaxInviteLife bounds how long an invite is valid.
	MaxInviteLife = 365 * 24 * time.Hour

	maxInviteText = 4 << 10
	invitePrefix  = "dragon://"
)

// Invite is the right to join a room, as a link. String writes it; every way of
// printing it that does not say so, fmt and slog included, gives Redacted instead.
type Invite struct {
	Room    string
	Addrs   []string // host:port of the room's trackers, 1 to MaxTrackers
	RoomID  [32]byte
	Expires time.Time // whole seconds
	Uses    int       // how many keys may join; 0: any number

	// Token is what the joining node shows the tracker, inside TLS. It is the secret.
	Token []byte
}

// NewInvite makes an invite that uses keys may join with (0: any number) until expires
// from now. Only the room's creator can: ErrNoAuthority.
func (r *Room) NewInvite(uses int, expires time.Duration, now time.Time) (Invite, error) {
	switch {
	case r.caKey == nil:
		return Invite{}, fmt.Errorf("invite to room %s: %w", r.Name, ErrNoAuthority)
	case uses < 0 || uses > MaxUses:
		return Invite{}, fmt.Errorf("an invite can be for 0 (any number) to %d uses, not %d", MaxUses, uses)
	case expires < time.Second || expires > MaxInviteLife:
		return Invite{}, fmt.Errorf("an invite can last from 1s to %s, not %s", MaxInviteLife, expires)
	case len(r.Trackers) == 0:
		return Invite{}, fmt.Errorf("room %s has no tracker's address to invite to", r.Name)
	}
	token := make([]byte, tokenSize)
	token[0] = inviteVersion
	copy(token[atRoom:], r.ID[:])
	if _, err := rand.Read(token[atID:atExpiry]); err != nil {
		return Invite{}, fmt.Errorf("make an invite: %w", err)
	}
	binary.BigEndian.PutUint64(token[atExpiry:], uint64(now.Add(expires).Unix()))
	binary.BigEndian.PutUint32(token[atUses:], uint32(uses))
	mac, err := inviteMAC(r.caKey, token)
	if err != nil {
		return Invite{}, err
	}
	copy(token[atMAC:], mac)
	i, err := parseToken(token)
	i.Room, i.Addrs = r.Name, slices.Clone(r.Trackers)
	return i, err
}

// inviteMAC computes what the last 16 bytes of a token must be.
func inviteMAC(caKey ed25519.PrivateKey, token []byte) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, caKey.Seed(), nil, "dragonload invite", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive the key of invites: %w", err)
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(token[:atMAC])
	return mac.Sum(nil)[:tokenSize-atMAC], nil
}

// parseToken reads what a token says of itself; whether that is true only the
// authority can tell.
func parseToken(token []byte) (Invite, error) {
	if len(token) != tokenSize || token[0] != inviteVersion {
		return Invite{}, fmt.Errorf("%w: the part after # is cut off or from a newer program", ErrInviteSyntax)
	}
	expires, uses := binary.BigEndian.Uint64(token[atExpiry:]), binary.BigEndian.Uint32(token[atUses:])
	if expires > 1<<40 || uses > MaxUses {
		return Invite{}, fmt.Errorf("%w: the part after # is damaged", ErrInviteSyntax)
	}
	return Invite{
		RoomID:  [32]byte(token[atRoom:atID]),
		Expires: time.Unix(int64(expires), 0),
		Uses:    int(uses),
		Token:   bytes.Clone(token),
	}, nil
}

// inviteID returns the part of a token under which its uses are counted.
func inviteID(token []byte) [16]byte { return [16]byte(token[atID:atExpiry]) }

// ParseInvite reads an invite link. Nothing that it does not know is let through: every
// error is ErrInviteSyntax and says what is wrong without quoting the secret.
func ParseInvite(s string) (Invite, error) {
	s = strings.TrimSpace(s)
	if len(s) > maxInviteText {
		return Invite{}, fmt.Errorf("%w: it has more than %d characters", ErrInviteSyntax, maxInviteText)
	}
	link, secret, _ := strings.Cut(s, "#")
	rest, ok := strings.CutPrefix(link, invitePrefix)
	if !ok {
		return Invite{}, fmt.Errorf("%w: it must begin with %s", ErrInviteSyntax, invitePrefix)
	}
	rest, query, hasQuery := strings.Cut(rest, "?")
	addr, name, ok := strings.Cut(rest, "/join/")
	if !ok {
		return Invite{}, fmt.Errorf("%w: it must look like dragon://HOST:PORT/join/NAME#SECRET", ErrInviteSyntax)
	}
	if err := CheckName(name); err != nil {
		return Invite{}, fmt.Errorf("%w: %w", ErrInviteSyntax, err)
	}
	addrs := []string{addr}
	if hasQuery {
		for pair := range strings.SplitSeq(query, "&") {
			key, value, _ := strings.Cut(pair, "=")
			if key != "also" {
				return Invite{}, fmt.Errorf("%w: unknown key %q", ErrInviteSyntax, key)
			}
			also, err := url.QueryUnescape(value)
			if err != nil {
				return Invite{}, fmt.Errorf("%w: %w", ErrInviteSyntax, err)
			}
			if addrs = append(addrs, also); len(addrs) > MaxTrackers {
				return Invite{}, fmt.Errorf("%w: it has more than %d addresses", ErrInviteSyntax, MaxTrackers)
			}
		}
	}
	for _, addr := range addrs {
		if err := CheckAddr(addr); err != nil {
			return Invite{}, fmt.Errorf("%w: %w", ErrInviteSyntax, err)
		}
	}
	// Strict: a second spelling of the same bytes is refused, as are line ends. The
	// decoder's error would quote the secret.
	token, err := base64.RawURLEncoding.Strict().DecodeString(secret)
	if err != nil || strings.ContainsAny(secret, "\r\n") {
		return Invite{}, fmt.Errorf("%w: the part after # is damaged", ErrInviteSyntax)
	}
	i, err := parseToken(token)
	if err != nil {
		return Invite{}, err
	}
	i.Room, i.Addrs = name, addrs
	return i, nil
}

// String returns the link, secret and all.
func (i Invite) String() string {
	return i.link() + "#" + base64.RawURLEncoding.EncodeToString(i.Token)
}

// Redacted returns the link without its secret.
func (i Invite) Redacted() string { return i.link() + "#…" }

func (i Invite) link() string {
	var b strings.Builder
	b.WriteString(invitePrefix)
	for n, addr := range i.Addrs {
		switch n {
		case 0:
			b.WriteString(addr + "/join/" + i.Room)
		case 1:
			b.WriteString("?also=" + addr)
		default:
			b.WriteString("&also=" + addr)
		}
	}
	return b.String()
}

// Format gives Redacted, whatever the verb.
func (i Invite) Format(s fmt.State, _ rune) { fmt.Fprint(s, i.Redacted()) }

// LogValue gives Redacted.
func (i Invite) LogValue() slog.Value { return slog.StringValue(i.Redacted()) }
