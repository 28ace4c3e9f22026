package main

import (
	"io"
	"log/slog"
)

// newLogger returns the logger that everything in the process logs through. It
// is handed down and never made the default.
func newLogger(w io.Writer, cfg *config) *slog.Logger {
	options := &slog.HandlerOptions{Level: logLevels[cfg.LogLevel]}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if cfg.LogFormat == "json" {
		handler = slog.NewJSONHandler(w, options)
	}
	return slog.New(handler).With("node", cfg.NodeName)
}
