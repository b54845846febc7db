package node

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"dragonload/internal/manifest"
	"dragonload/internal/piece"
	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/store"
)

// Bounds of a Spec that comes over the local API, whose callers are programs of the
// same user: they keep mistakes small, no more.
const (
	maxSpecText    = 64 << 10
	maxSpecHeader  = 1000
	maxChecksums   = 100
	maxSpecMirrors = 1000
	maxSelect      = 1000
)

// EncodeSpec returns s as it crosses the local API.
func EncodeSpec(s Spec) *nodev1.Spec {
	x := &nodev1.Spec{
		Url:            s.URL,
		Room:           s.Room,
		Dir:            s.Dir,
		Output:         s.Output,
		Overwrite:      s.Overwrite,
		AutoRename:     s.AutoRename,
		Restart:        s.Restart,
		Continue:       s.Continue,
		MaxConnections: uint32(max(s.MaxConnections, 0)),
		Netrc:          s.Netrc,
		NetrcNamed:     s.NetrcNamed,
		Cookies:        s.Cookies,
		UserAgent:      s.UserAgent,
		Proxy:          s.Proxy,
		CaCert:         s.CACert,
		Size:           s.Size,
		PieceLength:    s.PieceLength,
		PieceSums:      s.PieceSums,
		LimitRate:      s.LimitRate,
		LimitUpload:    s.LimitUpload,
		Timeout:        durationpb.New(s.Timeout),
		ConnectTimeout: durationpb.New(s.ConnectTimeout),
		MaxTries:       uint32(max(s.MaxTries, 0)),
		GiveUpAfter:    durationpb.New(s.GiveUpAfter),
		Linger:         durationpb.New(s.Linger),
		LendQuery:      s.LendQuery,
		Confirm:        uint32(s.Confirm),
		Manifest:       s.Manifest,
		ManifestId:     s.ManifestID,
		ManifestName:   s.ManifestName,
		Select:         s.Select,
		SeedAllow:      s.SeedAllow,
		NoSeeds:        s.NoSeeds,
	}
	for name, values := range s.Header {
		x.Header = append(x.Header, &nodev1.Header{Name: name, Values: values})
	}
	for _, m := range s.Mirrors {
		x.Mirrors = append(x.Mirrors, &nodev1.Mirror{Url: m.URL, Proxy: m.Proxy})
	}
	for _, c := range s.Checksums {
		x.Checksums = append(x.Checksums, &nodev1.Checksum{Algorithm: c.Algorithm, Hex: c.Hex})
	}
	return x
}

// DecodeSpec reads what EncodeSpec wrote. It checks form and bounds; whether the
// download makes sense is checked where it starts.
func DecodeSpec(x *nodev1.Spec) (Spec, error) {
	s := Spec{
		URL:            x.GetUrl(),
		Room:           x.GetRoom(),
		Dir:            x.GetDir(),
		Output:         x.GetOutput(),
		Overwrite:      x.GetOverwrite(),
		AutoRename:     x.GetAutoRename(),
		Restart:        x.GetRestart(),
		Continue:       x.GetContinue(),
		MaxConnections: int(min(x.GetMaxConnections(), 1<<16)),
		Netrc:          x.GetNetrc(),
		NetrcNamed:     x.GetNetrcNamed(),
		Cookies:        x.GetCookies(),
		UserAgent:      x.GetUserAgent(),
		Proxy:          x.GetProxy(),
		CACert:         x.GetCaCert(),
		Size:           x.GetSize(),
		PieceLength:    x.GetPieceLength(),
		PieceSums:      x.GetPieceSums(),
		LimitRate:      x.GetLimitRate(),
		LimitUpload:    x.GetLimitUpload(),
		MaxTries:       int(min(x.GetMaxTries(), 1<<30)),
		LendQuery:      x.GetLendQuery(),
		Confirm:        int(x.GetConfirm()),
		Manifest:       x.GetManifest(),
		ManifestID:     x.GetManifestId(),
		ManifestName:   x.GetManifestName(),
		Select:         x.GetSelect(),
		SeedAllow:      x.GetSeedAllow(),
		NoSeeds:        x.GetNoSeeds(),
	}
	if len(s.SeedAllow) > MaxSeedAllow {
		return Spec{}, fmt.Errorf("download with %d addresses of web seeds", len(s.SeedAllow))
	}
	if len(s.Manifest) > manifest.MaxTorrent || len(s.Select) > maxSelect {
		return Spec{}, fmt.Errorf("download with a manifest of %d bytes, of which %d globs choose", len(s.Manifest), len(s.Select))
	}
	for _, text := range append([]string{s.URL, s.ManifestID, s.ManifestName, s.Room, s.Dir, s.Output, s.Netrc, s.Cookies, s.UserAgent, s.Proxy, s.CACert}, slices.Concat(s.Select, s.SeedAllow)...) {
		if len(text) > maxSpecText {
			return Spec{}, fmt.Errorf("download with a text of %d bytes", len(text))
		}
	}
	if s.Size < 0 || s.Size > piece.MaxSize {
		return Spec{}, fmt.Errorf("download of a file of %d bytes", s.Size)
	}
	if len(s.PieceSums) > MaxPieceSums*sha256.Size {
		return Spec{}, fmt.Errorf("download with %d bytes of digests of its pieces", len(s.PieceSums))
	}
	if s.LimitRate < 0 || s.LimitUpload < 0 {
		return Spec{}, errors.New("download with a negative rate")
	}
	for _, d := range []struct {
		to   *time.Duration
		from *durationpb.Duration
	}{
		{&s.Timeout, x.GetTimeout()},
		{&s.ConnectTimeout, x.GetConnectTimeout()},
		{&s.GiveUpAfter, x.GetGiveUpAfter()},
		{&s.Linger, x.GetLinger()},
	} {
		if *d.to = d.from.AsDuration(); *d.to < 0 {
			return Spec{}, fmt.Errorf("download with a duration of %v", *d.to)
		}
	}
	if len(x.GetHeader()) > maxSpecHeader || len(x.GetChecksums()) > maxChecksums {
		return Spec{}, fmt.Errorf("download with %d header fields and %d checksums", len(x.GetHeader()), len(x.GetChecksums()))
	}
	for _, h := range x.GetHeader() {
		if s.Header == nil {
			s.Header = make(http.Header)
		}
		s.Header[h.GetName()] = append(s.Header[h.GetName()], h.GetValues()...)
	}
	if len(x.GetMirrors()) > maxSpecMirrors {
		return Spec{}, fmt.Errorf("download with %d mirrors", len(x.GetMirrors()))
	}
	for _, m := range x.GetMirrors() {
		if len(m.GetUrl()) > maxSpecText || len(m.GetProxy()) > maxSpecText {
			return Spec{}, errors.New("download with a mirror of a very long address")
		}
		s.Mirrors = append(s.Mirrors, Mirror{URL: m.GetUrl(), Proxy: m.GetProxy()})
	}
	for _, c := range x.GetChecksums() {
		s.Checksums = append(s.Checksums, Checksum{Algorithm: c.GetAlgorithm(), Hex: c.GetHex()})
	}
	return s, nil
}

// EncodeEvent returns e as it crosses the local API.
func EncodeEvent(e Event) *nodev1.DownloadEvent {
	x := &nodev1.DownloadEvent{Time: timestamppb.New(e.Time)}
	switch {
	case e.Start != nil:
		x.Event = &nodev1.DownloadEvent_Start{Start: &nodev1.Start{
			Url:       e.Start.URL,
			Path:      e.Start.Path,
			Size:      e.Start.Size,
			Resumed:   e.Start.Resumed,
			Validator: []byte(e.Start.Validator),
			Manifest:  e.Start.Manifest,
			Files:     uint32(max(e.Start.Files, 0)),
		}}
	case e.Progress != nil:
		x.Event = &nodev1.DownloadEvent_Progress{Progress: EncodeProgress(*e.Progress)}
	case e.Member != nil:
		x.Event = &nodev1.DownloadEvent_Member{Member: &nodev1.MemberChange{
			Id:   e.Member.ID,
			Name: e.Member.Name,
			Up:   e.Member.Up,
		}}
	case e.Warning != nil:
		x.Event = &nodev1.DownloadEvent_Warning{Warning: encodeProblem(e.Warning)}
	case e.Saved != nil:
		x.Event = &nodev1.DownloadEvent_Saved{Saved: &nodev1.Saved{
			Path:          e.Saved.Path,
			Size:          e.Saved.Size,
			Sha256:        e.Saved.SHA256,
			Checked:       e.Saved.Checked,
			OriginBytes:   e.Saved.OriginBytes,
			PeerBytes:     e.Saved.PeerBytes,
			UploadedBytes: e.Saved.UploadedBytes,
			Took:          durationpb.New(e.Saved.Took),
			Reread:        e.Saved.Reread,
			Manifest:      e.Saved.Manifest,
			Files:         uint32(max(e.Saved.Files, 0)),
		}}
	case e.Failed != nil:
		x.Event = &nodev1.DownloadEvent_Failed{Failed: encodeProblem(e.Failed)}
	case e.Ended != nil:
		x.Event = &nodev1.DownloadEvent_Ended{Ended: &nodev1.Ended{}}
	}
	return x
}

// EncodeProgress returns p as it crosses the local API.
func EncodeProgress(p Progress) *nodev1.Progress {
	return &nodev1.Progress{
		State:         p.State,
		Path:          p.Path,
		Size:          p.Size,
		Have:          p.Have,
		OriginBytes:   p.OriginBytes,
		PeerBytes:     p.PeerBytes,
		UploadedBytes: p.UploadedBytes,
		Rate:          p.Rate,
		OriginRate:    p.OriginRate,
		PeerRate:      p.PeerRate,
		UploadRate:    p.UploadRate,
		Eta:           durationpb.New(p.ETA),
		Members:       uint32(max(p.Members, 0)),
	}
}

func encodeProblem(p *Problem) *nodev1.Problem {
	return &nodev1.Problem{Code: p.Code, Message: p.Message, Exit: int32(p.Exit)}
}

// DecodeEvent reads what EncodeEvent wrote. An event of a kind that is not known here,
// from a newer node, has no pointer set.
func DecodeEvent(x *nodev1.DownloadEvent) Event {
	e := Event{Time: x.GetTime().AsTime()}
	switch x := x.GetEvent().(type) {
	case *nodev1.DownloadEvent_Start:
		e.Start = &Start{
			URL:       x.Start.GetUrl(),
			Path:      x.Start.GetPath(),
			Size:      x.Start.GetSize(),
			Resumed:   x.Start.GetResumed(),
			Validator: string(x.Start.GetValidator()),
			Manifest:  x.Start.GetManifest(),
			Files:     int(x.Start.GetFiles()),
		}
	case *nodev1.DownloadEvent_Progress:
		p := DecodeProgress(x.Progress)
		e.Progress = &p
	case *nodev1.DownloadEvent_Member:
		e.Member = &MemberChange{ID: x.Member.GetId(), Name: x.Member.GetName(), Up: x.Member.GetUp()}
	case *nodev1.DownloadEvent_Warning:
		e.Warning = decodeProblem(x.Warning)
	case *nodev1.DownloadEvent_Saved:
		e.Saved = &Saved{
			Path:          x.Saved.GetPath(),
			Size:          x.Saved.GetSize(),
			SHA256:        x.Saved.GetSha256(),
			Checked:       x.Saved.GetChecked(),
			OriginBytes:   x.Saved.GetOriginBytes(),
			PeerBytes:     x.Saved.GetPeerBytes(),
			UploadedBytes: x.Saved.GetUploadedBytes(),
			Took:          x.Saved.GetTook().AsDuration(),
			Reread:        x.Saved.GetReread(),
			Manifest:      x.Saved.GetManifest(),
			Files:         int(x.Saved.GetFiles()),
		}
	case *nodev1.DownloadEvent_Failed:
		e.Failed = decodeProblem(x.Failed)
	case *nodev1.DownloadEvent_Ended:
		e.Ended = &struct{}{}
	}
	return e
}

// DecodeProgress reads what EncodeProgress wrote.
func DecodeProgress(x *nodev1.Progress) Progress {
	return Progress{
		State:         x.GetState(),
		Path:          x.GetPath(),
		Size:          x.GetSize(),
		Have:          x.GetHave(),
		OriginBytes:   x.GetOriginBytes(),
		PeerBytes:     x.GetPeerBytes(),
		UploadedBytes: x.GetUploadedBytes(),
		Rate:          x.GetRate(),
		OriginRate:    x.GetOriginRate(),
		PeerRate:      x.GetPeerRate(),
		UploadRate:    x.GetUploadRate(),
		ETA:           x.GetEta().AsDuration(),
		Members:       int(x.GetMembers()),
	}
}

// EncodeKept returns what is remembered of a finished download as it crosses the local
// API.
func EncodeKept(k store.Kept) *nodev1.Finished {
	x := &nodev1.Finished{
		Size:        k.Size,
		Modified:    timestamppb.New(k.Modified),
		Finished:    timestamppb.New(k.Finished),
		PieceLength: k.PieceLength,
		Sha256:      k.SHA256[:],
		From:        k.From,
	}
	for _, s := range k.Sums {
		x.Sums = append(x.Sums, &nodev1.Checksum{Algorithm: s.Algorithm, Hex: hex.EncodeToString(s.Sum)})
	}
	return x
}

// Unfinished returns what a journal knows of the download to path, or whose partial file
// path is, as it crosses the local API; nil if nothing.
func Unfinished(journal *store.Journal, path string) (*nodev1.Unfinished, error) {
	for _, target := range []string{strings.TrimSuffix(path, ".part"), path} {
		r, found, err := journal.Record(target)
		if err != nil {
			return nil, err
		}
		if found {
			version := r.Pin.Kind.String()
			if r.Pin.Kind != piece.NoValidator {
				version += " " + r.Pin.Validator
			}
			return &nodev1.Unfinished{
				Target: r.Target, Part: r.Part, Size: r.Pin.Size, Version: strings.ToValidUTF8(version, "\uFFFD"),
				PieceLength: r.Layout.PieceLength, Pieces: int64(r.Layout.Count()),
				HeldPieces: int64(r.Have.Count()), HeldBytes: heldBytes(r.Layout, &r.Have), OriginPieces: int64(r.Origin.Count()), Clean: r.Clean,
			}, nil
		}
		if part, ok := journal.Begun(target); ok {
			if _, err := os.Lstat(part); err == nil {
				return &nodev1.Unfinished{Target: target, Part: part, Begun: true}, nil
			}
		}
	}
	return nil, nil
}

// DecodeKept reads what EncodeKept wrote of the file at path.
func DecodeKept(path string, x *nodev1.Finished) (store.Kept, error) {
	k := store.Kept{
		Path:        path,
		Size:        x.GetSize(),
		Modified:    x.GetModified().AsTime(),
		Finished:    x.GetFinished().AsTime(),
		PieceLength: x.GetPieceLength(),
		From:        x.GetFrom(),
	}
	if len(x.GetSha256()) != len(k.SHA256) {
		return store.Kept{}, errors.New("finished download without a digest")
	}
	copy(k.SHA256[:], x.GetSha256())
	for _, c := range x.GetSums() {
		sum, err := hex.DecodeString(c.GetHex())
		if err != nil {
			return store.Kept{}, fmt.Errorf("finished download with a bad digest: %w", err)
		}
		k.Sums = append(k.Sums, store.Sum{Algorithm: c.GetAlgorithm(), Sum: sum})
	}
	return k, nil
}

func decodeProblem(x *nodev1.Problem) *Problem {
	return &Problem{Code: x.GetCode(), Message: x.GetMessage(), Exit: int(x.GetExit())}
}
