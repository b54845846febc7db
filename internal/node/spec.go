package node

import (
	"net/http"
	"time"
)

// Spec is one download as its user asked for it. Paths are absolute. It crosses the
// local API when a running daemon carries the download out.
type Spec struct {
	URL  string // http or https
	Room string // name of a joined room; "" to work alone

	// Manifest, in place of a URL, is the metainfo file of what is downloaded (BitTorrent v2),
	// ManifestID only its info hash, by which members of the room have it. Mirrors are
	// its web seeds then: those that it names itself are not looked at.
	Manifest   []byte
	ManifestID string // 64 hexadecimal digits
	// ManifestName is what the content is called in the room, or the beginning of its id.
	ManifestName string
	Select       []string // globs that choose files of it, see manifest.Torrent.Select; none: all
	// SeedAllow lists what web seeds that a member's manifest names may be asked at besides
	// the public internet's ports 80 and 443, as origin.ParseAllowed reads it; at most
	// MaxSeedAllow. With NoSeeds they are not asked at all.
	SeedAllow []string
	NoSeeds   bool

	Dir    string // folder for a name that the origin or the URL gives
	Output string // file to write, absolute, instead; "-" is standard output
	// What to do if the final name exists: by default that is ErrExists.
	Overwrite  bool
	AutoRename bool // take name.1, name.2, ... instead
	Restart    bool // throw away what an earlier run left
	// Continue demands that what an earlier run left is gone on with: an origin that
	// cannot, for it has no ranges or names no version, ends the download.
	Continue bool

	// Mirrors are other addresses of the same bytes, the best first, at most MaxMirrors.
	// Only this member uses them.
	Mirrors []Mirror

	MaxConnections int         // to the origin; 0: adaptive, up to 8
	Header         http.Header // secret: sent to the URL's own origin only
	Netrc          string      // path of a netrc file; "" for none
	NetrcNamed     bool        // a manifest named the URL: it gets nothing of the file's default
	Cookies        string      // path of a Netscape cookie file; "" for none
	UserAgent      string
	Proxy          string // URL; "" takes none from the environment either
	CACert         string // path of a PEM file; its certificates are trusted besides the system's
	Checksums      []Checksum
	Size           int64 // that the file must have; 0: not known

	// PieceSums are the SHA-256, 32 bytes each, of each PieceLength bytes of the file, as a
	// Metalink says, at most MaxPieceSums. With several addresses one that brings others
	// is dropped at once.
	PieceLength int64
	PieceSums   []byte

	LimitRate   int64 // bytes per second from the origin and members together; 0: no limit
	LimitUpload int64 // bytes per second to members; 0: no limit

	Timeout        time.Duration // a source that sends nothing for this long is left
	ConnectTimeout time.Duration
	MaxTries       int           // per origin; 0: no limit
	GiveUpAfter    time.Duration // without a new byte
	// Confirm is how many members must state each piece alike, 2 to 8; with 0 and 1 the
	// first one's word and audits are enough.
	Confirm int

	// LendQuery lets members of the room that lend their line know the URL though it has a
	// query; without it only a URL that has none is told them.
	LendQuery bool
	Linger    time.Duration // serving members after the file is whole, at most
}

// Mirror is another address of the bytes of a URL.
type Mirror struct {
	URL   string // http or https
	Proxy string // URL; "" takes none
}

// Checksum is a digest that the finished file must have.
type Checksum struct {
	Algorithm string // sha-256, sha-512; sha-1 and md5 as checks against errors only
	Hex       string // lower case
}

// Event is one thing that a download tells its user. Exactly one of the pointers is
// set. Events of a download arrive in order; Saved or Failed is the last that tells
// of the file, Ended comes after it when nothing remains to be served.
type Event struct {
	Time     time.Time
	Start    *Start
	Progress *Progress
	Member   *MemberChange
	Warning  *Problem
	Saved    *Saved
	Failed   *Problem
	Ended    *struct{}
}

// Start tells what is downloaded, once the origin or the pool has said so.
type Start struct {
	URL       string // without user-info and query
	Path      string // where the file will be
	Size      int64  // -1 while unknown
	Resumed   int64  // bytes kept from an earlier run
	Validator string
	Manifest  string // info hash; "" if a URL is downloaded
	Files     int    // that are wanted of it
}

// Progress is where a download stands. Bytes count from the start of this run, Have
// counts what an earlier run left too.
type Progress struct {
	State                                  string // connecting, downloading, checking, waiting, serving
	Path                                   string
	Size, Have                             int64
	OriginBytes, PeerBytes, UploadedBytes  int64
	Rate, OriginRate, PeerRate, UploadRate int64         // bytes per second, over the last seconds
	ETA                                    time.Duration // negative while unknown
	Members                                int           // in the pool, this one included; 1 alone
}

// MemberChange tells that a neighbour has come or gone.
type MemberChange struct {
	ID, Name string
	Up       bool
}

// Problem is a warning or a failure: a stable code, one sentence that says what
// happened, to what and what to do next, and, for failures, the exit code.
type Problem struct {
	Code    string
	Message string
	Exit    int
}

// Saved tells that the file is whole under its final name.
type Saved struct {
	Path                                  string
	Size                                  int64
	SHA256                                string // hexadecimal; of a folder the info hash of its manifest
	Checked                               string // what it rests on; see the README's table
	OriginBytes, PeerBytes, UploadedBytes int64
	Took                                  time.Duration
	Reread                                bool   // what an earlier run left was hashed from disk again
	Manifest                              string // info hash; "" if a URL was downloaded
	Files                                 int    // in the folder; 0 of a single file
}
