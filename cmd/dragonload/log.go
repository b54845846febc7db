package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
)

// openLog returns a log that writes to err what verbose asks for (errors; 1: and what
// changes; 2: every step) and all changes to the file, if one is named. The returned
// function closes the file.
func openLog(verbose int, file string, err io.Writer) (*slog.Logger, func(), error) {
	level := slog.LevelError
	switch {
	case verbose == 1:
		level = slog.LevelInfo
	case verbose > 1:
		level = slog.LevelDebug
	}
	screen := slog.NewTextHandler(err, &slog.HandlerOptions{Level: level})
	if file == "" {
		return slog.New(screen), func() {}, nil
	}
	f, openErr := os.OpenFile(file, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if openErr != nil {
		return nil, nil, usagef("--log-file: %w", openErr)
	}
	kept := slog.NewTextHandler(f, &slog.HandlerOptions{Level: min(level, slog.LevelInfo)})
	return slog.New(bothLogs{screen, kept}), func() { f.Close() }, nil
}

// bothLogs writes each record to both handlers, each by its own level.
type bothLogs struct{ a, b slog.Handler }

func (h bothLogs) Enabled(ctx context.Context, l slog.Level) bool {
	return h.a.Enabled(ctx, l) || h.b.Enabled(ctx, l)
}

func (h bothLogs) Handle(ctx context.Context, r slog.Record) error {
	var errs [2]error
	for i, one := range []slog.Handler{h.a, h.b} {
		if one.Enabled(ctx, r.Level) {
			errs[i] = one.Handle(ctx, r.Clone())
		}
	}
	return errors.Join(errs[:]...)
}

func (h bothLogs) WithAttrs(attrs []slog.Attr) slog.Handler {
	return bothLogs{h.a.WithAttrs(attrs), h.b.WithAttrs(attrs)}
}

func (h bothLogs) WithGroup(name string) slog.Handler {
	return bothLogs{h.a.WithGroup(name), h.b.WithGroup(name)}
}
