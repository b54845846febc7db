package main

import (
	"encoding/json"
	"io"
	"sync"

	"dragonload/internal/node"
)

// jsonEvents writes one JSON object a line for each event. The names of the fields
// are part of the contract; a number that is not known is -1.
type jsonEvents struct {
	mu   sync.Mutex
	out  io.Writer
	err  error      // the first of writing
	weak [][]string // see people
}

type jsonHead struct {
	Event    string `json:"event"`
	Time     string `json:"time"`
	Download int    `json:"download"` // position of the SOURCE, from 1
}

type jsonStart struct {
	jsonHead
	URL       string `json:"url"`
	Path      string `json:"path"`
	Size      int64  `json:"size"`
	Resumed   int64  `json:"resumed"`
	Validator string `json:"validator,omitempty"`
	Manifest  string `json:"manifest,omitempty"` // info hash
	Files     int    `json:"files,omitempty"`    // that are wanted of it
}

type jsonProgress struct {
	jsonHead
	State         string  `json:"state"`
	Path          string  `json:"path"`
	Size          int64   `json:"size"`
	Have          int64   `json:"have"`
	OriginBytes   int64   `json:"origin_bytes"`
	PeerBytes     int64   `json:"peer_bytes"`
	UploadedBytes int64   `json:"uploaded_bytes"`
	Rate          int64   `json:"rate"`
	OriginRate    int64   `json:"origin_rate"`
	PeerRate      int64   `json:"peer_rate"`
	UploadRate    int64   `json:"upload_rate"`
	ETA           float64 `json:"eta_s"`
	Members       int     `json:"members"`
}

type jsonMember struct {
	jsonHead
	ID   string `json:"id"`
	Name string `json:"name"`
	Up   bool   `json:"up"`
}

type jsonProblem struct {
	jsonHead
	Code    string `json:"code"`
	Message string `json:"message"`
	Exit    int    `json:"exit,omitempty"`
}

type jsonSaved struct {
	jsonHead
	Path          string  `json:"path"`
	Size          int64   `json:"size"`
	SHA256        string  `json:"sha256"`
	Checked       string  `json:"checked"`
	OriginBytes   int64   `json:"origin_bytes"`
	PeerBytes     int64   `json:"peer_bytes"`
	UploadedBytes int64   `json:"uploaded_bytes"`
	Seconds       float64 `json:"seconds"`
	Reread        bool    `json:"reread,omitempty"`
	Manifest      string  `json:"manifest,omitempty"` // info hash
	Files         int     `json:"files,omitempty"`    // of a folder; sha256 is its manifest's info hash then

	ErrorChecks []string `json:"error_checks,omitempty"` // md5 and sha-1 that agree: no error on the way, no proof
}

func (j *jsonEvents) event(index int, ev node.Event) {
	line := jsonLine(index, ev)
	if line == nil {
		return
	}
	if saved, ok := line.(jsonSaved); ok && index < len(j.weak) {
		saved.ErrorChecks = j.weak[index]
		line = saved
	}
	text, err := json.Marshal(line)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err == nil {
		_, err = j.out.Write(append(text, '\n'))
	}
	if j.err == nil {
		j.err = err
	}
}

// jsonAsked returns where a get of these arguments was to write its events, nil if it
// was not asked for any. It looks at the words alone, for what could not be parsed ends
// in a failed event too, of download 0.
func jsonAsked(args []string, std streams) io.Writer {
	if len(args) == 0 || args[0] != "get" {
		return nil
	}
	var asked, piped bool
	for i, arg := range args {
		if arg == "--" {
			break
		}
		asked = asked || arg == "--json" || arg == "--json=true"
		piped = piped || arg == "-o-" || arg == "--output=-" || (arg == "-o" || arg == "--output") && i+1 < len(args) && args[i+1] == "-"
	}
	switch {
	case !asked:
		return nil
	case piped:
		return std.err
	}
	return std.out
}

// jsonLine returns nil for what has no line of its own.
func jsonLine(index int, ev node.Event) any {
	head := func(word string) jsonHead {
		return jsonHead{Event: word, Time: ev.Time.Format("2006-01-02T15:04:05.000Z07:00"), Download: index + 1}
	}
	switch {
	case ev.Start != nil:
		s := ev.Start
		return jsonStart{head("start"), s.URL, s.Path, s.Size, s.Resumed, s.Validator, s.Manifest, s.Files}
	case ev.Progress != nil:
		p := ev.Progress
		eta := float64(p.ETA.Milliseconds()) / 1000
		if p.ETA < 0 {
			eta = -1
		}
		return jsonProgress{
			head("progress"), p.State, p.Path, p.Size, p.Have, p.OriginBytes, p.PeerBytes, p.UploadedBytes,
			p.Rate, p.OriginRate, p.PeerRate, p.UploadRate, eta, p.Members,
		}
	case ev.Member != nil:
		return jsonMember{head("member"), ev.Member.ID, ev.Member.Name, ev.Member.Up}
	case ev.Warning != nil:
		return jsonProblem{head("warning"), ev.Warning.Code, ev.Warning.Message, 0}
	case ev.Saved != nil:
		s := ev.Saved
		return jsonSaved{
			head("saved"), s.Path, s.Size, s.SHA256, s.Checked, s.OriginBytes, s.PeerBytes, s.UploadedBytes,
			float64(s.Took.Milliseconds()) / 1000, s.Reread, s.Manifest, s.Files, nil,
		}
	case ev.Failed != nil:
		return jsonProblem{head("failed"), ev.Failed.Code, ev.Failed.Message, ev.Failed.Exit}
	}
	return nil
}
