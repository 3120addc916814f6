package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// ErrNotRunning means that no agent listens on the socket.
var ErrNotRunning = errors.New("the agent is not running")

// maxMessage bounds a call's input and its answer in bytes.
const maxMessage = 64 << 20

// Call is one named function. input is JSON as the caller sent it.
type Call func(ctx context.Context, input json.RawMessage) (any, error)

// Error is a failure that crossed the socket, with the exit code it leads to.
type Error struct {
	Code int    `json:"code"`
	Text string `json:"text"`
}

func (e *Error) Error() string { return e.Text }

// Server answers calls.
type Server struct {
	Calls map[string]Call
	// Code gives an error its exit code.
	Code func(error) int
}

// Listen opens the socket, taking the place of one that a dead agent left. The
// caller holds the state folder's lock, so no living agent owns it.
func Listen(path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("local socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		if len(path) > 100 {
			return nil, fmt.Errorf("local socket %s: the path is too long for a socket; choose a shorter state folder: %w", path, err)
		}
		return nil, fmt.Errorf("local socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("local socket: %w", err)
	}
	return l, nil
}

// Serve answers until ctx ends.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	h := &http.Server{
		Handler:           http.HandlerFunc(s.handle),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	stop := context.AfterFunc(ctx, func() { h.Close() })
	defer stop()
	err := h.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func (s *Server) handle(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	call, known := s.Calls[name]
	if !known || r.Method != http.MethodPost {
		s.answer(w, http.StatusNotFound, &Error{Code: 1, Text: fmt.Sprintf("the running agent does not know %q; is it of another version?", name)})
		return
	}
	input, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMessage))
	if err != nil {
		s.answer(w, http.StatusBadRequest, &Error{Code: 1, Text: "the call was cut short"})
		return
	}
	out, err := call(r.Context(), input)
	if err != nil {
		s.answer(w, http.StatusUnprocessableEntity, &Error{Code: s.Code(err), Text: err.Error()})
		return
	}
	s.answer(w, http.StatusOK, out)
}

func (s *Server) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // the caller has gone; nothing is lost with it
}

// Do calls the running agent. out is a pointer for the answer. ErrNotRunning if
// none listens; an *Error is the agent's own.
func Do(ctx context.Context, socket, name string, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	transport := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
			return ErrNotRunning
		}
		return fmt.Errorf("ask the running agent: %w", err)
	}
	defer res.Body.Close()
	d := json.NewDecoder(io.LimitReader(res.Body, maxMessage))
	if res.StatusCode != http.StatusOK {
		fault := &Error{Code: 1}
		if err := d.Decode(fault); err != nil {
			return fmt.Errorf("the running agent answered %s", res.Status)
		}
		return fault
	}
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("read the running agent's answer: %w", err)
	}
	return nil
}
