package host

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"

	"github.com/reevehq/reeve/plugins/sdk"
)

// logger gives go-plugin, and through it the connector, the host's slog. All
// texts are the connector's own and cleaned.
type logger struct {
	slog *slog.Logger
	name string
	args []any
}

func newLogger(l *slog.Logger, alias string) hclog.Logger {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	return &logger{slog: l.With("connector", alias)}
}

func (l *logger) Log(level hclog.Level, msg string, args ...any) {
	at := slog.LevelDebug
	switch level {
	case hclog.Info:
		// Without a name it is go-plugin that speaks: of processes coming and
		// going, which the host tells better.
		if l.name != "" {
			at = slog.LevelInfo
		}
	case hclog.Warn:
		at = slog.LevelWarn
	case hclog.Error:
		at = slog.LevelError
	}
	if !l.slog.Enabled(context.Background(), at) {
		return
	}
	attrs := []any{"said", sdk.Clean(msg)}
	if l.name != "" {
		attrs = append(attrs, "part", sdk.Clean(l.name))
	}
	for i := 0; i+1 < len(args); i += 2 {
		attrs = append(attrs, sdk.Clean(fmt.Sprint(args[i])), sdk.Clean(fmt.Sprint(args[i+1])))
	}
	l.slog.Log(context.Background(), at, "connector log", attrs...)
}

func (l *logger) Trace(string, ...any)          {}
func (l *logger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, append(l.args, args...)...) }
func (l *logger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, append(l.args, args...)...) }
func (l *logger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, append(l.args, args...)...) }
func (l *logger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, append(l.args, args...)...) }

func (l *logger) IsTrace() bool { return false }
func (l *logger) IsDebug() bool { return l.slog.Enabled(context.Background(), slog.LevelDebug) }
func (l *logger) IsInfo() bool  { return l.slog.Enabled(context.Background(), slog.LevelInfo) }
func (l *logger) IsWarn() bool  { return l.slog.Enabled(context.Background(), slog.LevelWarn) }
func (l *logger) IsError() bool { return l.slog.Enabled(context.Background(), slog.LevelError) }

func (l *logger) ImpliedArgs() []any { return l.args }

func (l *logger) With(args ...any) hclog.Logger {
	return &logger{slog: l.slog, name: l.name, args: append(l.args[:len(l.args):len(l.args)], args...)}
}

func (l *logger) Name() string { return l.name }

func (l *logger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

func (l *logger) ResetNamed(name string) hclog.Logger {
	return &logger{slog: l.slog, name: name, args: l.args}
}

func (l *logger) SetLevel(hclog.Level) {}

func (l *logger) GetLevel() hclog.Level {
	switch {
	case l.IsDebug():
		return hclog.Debug
	case l.IsInfo():
		return hclog.Info
	case l.IsWarn():
		return hclog.Warn
	default:
		return hclog.Error
	}
}

func (l *logger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}

func (l *logger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer { return lineWriter{l} }

type lineWriter struct{ l *logger }

func (w lineWriter) Write(b []byte) (int, error) {
	w.l.Info(string(bytes.TrimRight(b, "\n")))
	return len(b), nil
}
