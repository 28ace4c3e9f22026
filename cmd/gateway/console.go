package main

import (
	_ "embed"
	"io"
	"net/http"
	"time"

	"wssgateway/gateway"
)

//go:embed console/index.html
var consolePage []byte

// consoleTokenTTL outlasts no session worth keeping: the page gets a new token
// for every connection.
const consoleTokenTTL = time.Hour

// newConsole returns the page that development mode serves at /, and at
// /console/token?user= a token for any user that it asks for. The node refuses
// requests for it by another name than a loopback one.
func newConsole(cfg *config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", serveConsolePage)
	mux.HandleFunc("GET /console/token", func(w http.ResponseWriter, r *http.Request) {
		serveConsoleToken(cfg, w, r)
	})
	return mux
}

func serveConsolePage(w http.ResponseWriter, _ *http.Request) {
	header := w.Header()
	header.Set("Content-Type", "text/html; charset=utf-8")
	header.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; "+
		"script-src 'unsafe-inline'; connect-src 'self' ws:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK) // a router may have set 404 before it asked us
	_, _ = w.Write(consolePage)  // who left does not miss it
}

func serveConsoleToken(cfg *config, w http.ResponseWriter, r *http.Request) {
	user := r.URL.Query().Get("user")
	if !gateway.ValidUser(user) {
		http.Error(w, "this cannot be the name of a user: white space, control characters, * { } are not allowed", http.StatusBadRequest)
		return
	}
	signed, err := signToken(cfg, tokenOptions{User: user, TTL: consoleTokenTTL}, time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	_, _ = io.WriteString(w, signed)
}
