package rpc

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/net/netutil"

	nodev1 "dragonload/internal/rpc/gen/dragonload/node/v1"
	"dragonload/internal/rpc/gen/dragonload/node/v1/nodev1connect"
)

const (
	// maxLocalConns bounds the programs that talk to one node at a time, whatever its own
	// bound is.
	maxLocalConns = 256
	// maxWaitingEvents bounds the events that wait for a caller which does not read.
	// Progress takes no place, since a later one replaces it.
	maxWaitingEvents = 1024
	// localWrite is how long a caller may leave the last events unread.
	localWrite = 3 * time.Second
	localStop  = 5 * time.Second

	// maxLocalMessage has room for a download with its manifest.
	maxLocalMessage = 64<<20 + MaxMessage
)

// LocalNode is what the local API asks of a node. Its methods are called concurrently.
type LocalNode interface {
	// Download carries out one download and hands each event to send, which never
	// waits. When ctx ends, the download is paused: the work is kept. It returns when
	// the download has ended; what went wrong with it is an event, errors are of the
	// request (ErrMalformed) or of the node (ErrStopping).
	Download(ctx context.Context, spec *nodev1.Spec, send func(*nodev1.DownloadEvent)) error
	Status(ctx context.Context) (*nodev1.StatusResponse, error)
	// ReloadRooms looks at the state folder again.
	ReloadRooms(ctx context.Context) error
	// Finished tells what is remembered of the download that was saved at a path; nil if
	// there is nothing.
	Finished(ctx context.Context, path string) (*nodev1.Finished, error)
	// Unfinished tells what is recorded of the unfinished download to a path, or whose
	// partial file has it; nil if there is nothing.
	Unfinished(ctx context.Context, path string) (*nodev1.Unfinished, error)
	// LeaveRoom forgets a room.
	LeaveRoom(ctx context.Context, name string) error
	// RemoveMember shuts out whom a word means in a room made here, if that is exactly
	// one member; with its error nothing is certain.
	RemoveMember(ctx context.Context, room, member string) (matches []Member, epoch uint64, err error)

	// Share offers a file or folder and hands each event to send, which never waits.
	// When ctx ends, so does the hashing. Errors as with Download.
	Share(ctx context.Context, req *nodev1.ShareRequest, send func(*nodev1.ShareEvent)) error
	// Unshare ends the share that is meant, if that is exactly one.
	Unshare(ctx context.Context, what, room string) ([]*nodev1.Shared, error)
	Shares(ctx context.Context) ([]*nodev1.Shared, error)
	// Manifest returns the metainfo file of the share that is meant, if that is exactly
	// one.
	Manifest(ctx context.Context, what string) ([]*nodev1.Shared, []byte, error)
	// Search asks a room for what its members hold.
	Search(ctx context.Context, req *nodev1.SearchRequest) (found []*nodev1.Found, more bool, err error)
}

// LocalServer serves a node's local API on a loopback port of its own choice.
type LocalServer struct {
	stateDir string
	local    local
	listener net.Listener
	node     LocalNode
	log      *slog.Logger
	conns    int // open at once

	// calls counts the requests that are being answered; none is let in once stopping
	// is set, so that Serve can wait for the others.
	mu       sync.RWMutex
	stopping bool
	calls    sync.WaitGroup
}

// ListenLocal opens the port and writes node.json into the state folder, in place of
// what a node that was killed left there. At most so many connections are open at once,
// further ones wait. The caller holds the state folder's lock, and calls Serve next.
func ListenLocal(stateDir string, n LocalNode, conns int, log *slog.Logger) (*LocalServer, error) {
	listener, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open local API: %w", err)
	}
	s := &LocalServer{
		stateDir: stateDir,
		local:    newLocal(listener.Addr().String()),
		listener: listener,
		node:     n,
		log:      log,
		conns:    min(conns, maxLocalConns),
	}
	if err := s.local.write(stateDir); err != nil {
		listener.Close()
		return nil, fmt.Errorf("open local API: %w", err)
	}
	return s, nil
}

// Serve serves until ctx ends. Then it removes node.json, ends the calls, and returns
// when they have ended.
func (s *LocalServer) Serve(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewNodeServiceHandler(localHandler{s}, HandlerOptions(), connect.WithReadMaxBytes(maxLocalMessage)))
	mux.HandleFunc("GET "+provePath, func(w http.ResponseWriter, r *http.Request) {
		nonce := r.URL.Query().Get("nonce")
		if len(nonce) < 32 || len(nonce) > 128 {
			http.Error(w, "a nonce of 32 to 128 characters is wanted", http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, s.local.prove(nonce))
	})
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	server := &http.Server{
		Handler:           s.guard(mux),
		Protocols:         &protocols,
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	stop := make(chan struct{})
	unhook := context.AfterFunc(ctx, func() {
		defer close(stop)
		if err := s.local.remove(s.stateDir); err != nil {
			s.log.Warn("node.json stays behind", "err", err)
		}
		late, cancel := context.WithTimeout(context.WithoutCancel(ctx), localStop)
		defer cancel()
		if server.Shutdown(late) != nil {
			_ = server.Close() // of the listener, which Shutdown has closed
		}
	})
	err := server.Serve(netutil.LimitListener(s.listener, s.conns))
	if unhook() {
		// It is not ctx that ended the server.
		err = errors.Join(err, server.Close(), s.local.remove(s.stateDir))
		s.wait()
		return fmt.Errorf("serve local API: %w", err)
	}
	<-stop
	s.wait()
	return nil
}

func (s *LocalServer) enter() bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if !s.stopping {
		s.calls.Add(1)
	}
	return !s.stopping
}

func (s *LocalServer) wait() {
	s.mu.Lock()
	s.stopping = true
	s.mu.Unlock()
	s.calls.Wait()
}

// guard lets through what a program of this user on this machine asks, and nothing that
// a web page can make a browser ask.
func (s *LocalServer) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !s.enter() {
			s.refuse(w, r, ErrStopping)
			return
		}
		defer s.calls.Done()
		if !loopback(r.Host) {
			http.Error(w, "this is the local API of another name", http.StatusMisdirectedRequest)
			return
		}
		if len(r.Header["Origin"]) > 0 {
			http.Error(w, "the local API is not for web pages", http.StatusForbidden)
			return
		}
		if r.URL.Path != provePath {
			token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
			if !ok || subtle.ConstantTimeCompare([]byte(token), []byte(s.local.Token)) != 1 {
				s.refuse(w, r, ErrBadToken)
				return
			}
		}
		// A stream gets a write deadline when it ends, which must not outlive it.
		w.Header().Set("Connection", "close")
		control := http.NewResponseController(w)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), controlKey{}, control)))
	})
}

func (s *LocalServer) refuse(w http.ResponseWriter, r *http.Request, refusal *Refusal) {
	if err := Refuse(w, r, refusal); err != nil {
		s.log.Debug("answer to a refused call was not sent", "err", err)
	}
}

// Refuse answers a request that does not reach its service, in the caller's protocol.
func Refuse(w http.ResponseWriter, r *http.Request, refusal *Refusal) error {
	return connect.NewErrorWriter().Write(w, r, ToWire(refusal))
}

// controlKey finds the *http.ResponseController of a call in its context: Connect does
// not hand the connection's deadlines on.
type controlKey struct{}

// localHandler turns the calls of the service into those of the node.
type localHandler struct{ s *LocalServer }

func (h localHandler) Download(ctx context.Context, req *connect.Request[nodev1.DownloadRequest], stream *connect.ServerStream[nodev1.DownloadEvent]) error {
	if req.Msg.GetSpec() == nil {
		return ToWire(malformed("download", fmt.Errorf("no spec")))
	}
	err := follow(ctx, stream, func(ctx context.Context, send func(*nodev1.DownloadEvent)) error {
		return h.s.node.Download(ctx, req.Msg.GetSpec(), send)
	})
	return h.answer("download", err)
}

// follow runs work and sends its events, the last ones after it has ended.
func follow[T any](ctx context.Context, stream *connect.ServerStream[T], work func(context.Context, func(*T)) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	q := newEvents[*T](cancel)
	var sending sync.WaitGroup
	sending.Go(func() {
		if err := q.sendTo(ctx, stream.Send); err != nil {
			cancel(err)
		}
	})
	err := work(ctx, q.add)
	q.end()
	// While the work went on, a caller that did not read cost nothing; now it must.
	if control, ok := ctx.Value(controlKey{}).(*http.ResponseController); ok {
		if err := control.SetWriteDeadline(time.Now().Add(localWrite)); err != nil {
			cancel(err)
		}
	}
	sending.Wait()
	if err == nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return err
}

func (h localHandler) Status(ctx context.Context, _ *connect.Request[nodev1.StatusRequest]) (*connect.Response[nodev1.StatusResponse], error) {
	status, err := h.s.node.Status(ctx)
	if err != nil {
		return nil, h.answer("status", err)
	}
	return connect.NewResponse(status), nil
}

func (h localHandler) ReloadRooms(ctx context.Context, _ *connect.Request[nodev1.ReloadRoomsRequest]) (*connect.Response[nodev1.ReloadRoomsResponse], error) {
	if err := h.s.node.ReloadRooms(ctx); err != nil {
		return nil, h.answer("reload-rooms", err)
	}
	return connect.NewResponse(&nodev1.ReloadRoomsResponse{}), nil
}

func (h localHandler) LeaveRoom(ctx context.Context, req *connect.Request[nodev1.LeaveRoomRequest]) (*connect.Response[nodev1.LeaveRoomResponse], error) {
	if err := h.s.node.LeaveRoom(ctx, req.Msg.GetRoom()); err != nil {
		return nil, h.answer("leave-room", err)
	}
	return connect.NewResponse(&nodev1.LeaveRoomResponse{}), nil
}

func (h localHandler) Finished(ctx context.Context, req *connect.Request[nodev1.FinishedRequest]) (*connect.Response[nodev1.FinishedResponse], error) {
	finished, err := h.s.node.Finished(ctx, req.Msg.GetPath())
	if err != nil {
		return nil, h.answer("finished", err)
	}
	return connect.NewResponse(&nodev1.FinishedResponse{Finished: finished}), nil
}

func (h localHandler) Unfinished(ctx context.Context, req *connect.Request[nodev1.UnfinishedRequest]) (*connect.Response[nodev1.UnfinishedResponse], error) {
	unfinished, err := h.s.node.Unfinished(ctx, req.Msg.GetPath())
	if err != nil {
		return nil, h.answer("unfinished", err)
	}
	return connect.NewResponse(&nodev1.UnfinishedResponse{Unfinished: unfinished}), nil
}

func (h localHandler) RemoveMember(ctx context.Context, req *connect.Request[nodev1.RemoveMemberRequest]) (*connect.Response[nodev1.RemoveMemberResponse], error) {
	matches, epoch, err := h.s.node.RemoveMember(ctx, req.Msg.GetRoom(), req.Msg.GetMember())
	if err != nil {
		return nil, h.answer("remove-member", err)
	}
	answer := &nodev1.RemoveMemberResponse{Epoch: epoch}
	for _, m := range matches {
		answer.Matches = append(answer.Matches, &nodev1.RoomMember{Id: m.ID[:], Name: m.Name, Removed: m.Removed})
	}
	return connect.NewResponse(answer), nil
}

// answer is where an error of a call dies: here it is logged, the caller gets a word.
func (h localHandler) answer(call string, err error) error {
	if err != nil {
		h.s.log.Debug("local call ended with an error", "call", call, "err", err)
	}
	return ToWire(err)
}
