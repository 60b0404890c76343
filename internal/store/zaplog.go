package store

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// zapToSlog makes the logger that etcd wants. etcd tells much: its information
// is our debugging. It also reports its own orderly end as errors; after quiet
// was called everything is debugging.
func zapToSlog(log *slog.Logger) (z *zap.Logger, quiet func()) {
	core := &slogCore{log: log.With("component", "etcd"), ending: new(atomic.Bool)}
	return zap.New(core), func() { core.ending.Store(true) }
}

type slogCore struct {
	log    *slog.Logger
	ending *atomic.Bool
}

// harmless tells the warnings that a start of our one member gives.
func harmless(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed",
		// Said when the first look comes before the first commit; it looks again every 4 s.
		"Failed to detect schema version",
		"failed to update storage version":
		return true
	}
	// Said when the election timer runs out before the first entries are
	// applied; it runs again.
	return strings.Contains(message, "cannot campaign at term")
}

func (c *slogCore) level(l zapcore.Level) slog.Level {
	switch {
	case c.ending.Load() || l < zapcore.WarnLevel:
		return slog.LevelDebug
	case l == zapcore.WarnLevel:
		return slog.LevelWarn
	}
	return slog.LevelError
}

func (c *slogCore) Enabled(l zapcore.Level) bool {
	return c.log.Enabled(context.Background(), c.level(l))
}

func (c *slogCore) With(fields []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log.With(attributes(fields)...), ending: c.ending}
}

func (c *slogCore) Check(e zapcore.Entry, checked *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if harmless(e.Message) || !c.Enabled(e.Level) {
		return checked
	}
	return checked.AddCore(e, c)
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	c.log.Log(context.Background(), c.level(e.Level), e.Message, attributes(fields)...)
	return nil
}

func (c *slogCore) Sync() error { return nil }

func attributes(fields []zapcore.Field) []any {
	encoder := zapcore.NewMapObjectEncoder()
	attrs := make([]any, 0, len(fields))
	for _, f := range fields {
		f.AddTo(encoder)
		if v, ok := encoder.Fields[f.Key]; ok {
			attrs = append(attrs, slog.Any(f.Key, v))
		}
	}
	return attrs
}
