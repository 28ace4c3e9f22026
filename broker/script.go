package broker

import (
	"crypto/sha1"
	_ "embed" // for the scripts
	"encoding/hex"
)

// script is a Lua script, run by its hash and sent whole only to a Redis that
// does not have it (EVALSHA, EVAL).
type script struct {
	source, sha string
	stores      bool // it may store a message
}

var (
	//go:embed lua/prelude.lua
	preludeSource string
	//go:embed lua/publish.lua
	publishSource string
	//go:embed lua/head.lua
	headSource string
	//go:embed lua/page.lua
	pageSource string
	//go:embed lua/epoch.lua
	epochSource string
	//go:embed lua/call.lua
	callSource string
	//go:embed lua/member.lua
	memberSource string
	//go:embed lua/departures.lua
	departuresSource string
	//go:embed lua/depart.lua
	departSource string

	publishScript = newStoring(publishSource)
	headScript    = newScript(headSource)
	pageScript    = newScript(pageSource)
	epochScript   = newScript(epochSource)
	memberScript  = newStoring(memberSource)
	callScript    = newScript(callSource)

	departuresScript = newScript(departuresSource)
	departScript     = newScript(departSource)
)

func newScript(source string) *script {
	source = preludeSource + source
	sum := sha1.Sum([]byte(source)) // the name Redis gives a script, not a secret
	return &script{source: source, sha: hex.EncodeToString(sum[:])}
}

func newStoring(source string) *script {
	s := newScript(source)
	s.stores = true
	return s
}

func (s *script) args(command, body string, keys []string, argv []any) []any {
	args := make([]any, 0, 3+len(keys)+len(argv))
	args = append(args, command, body, len(keys))
	for _, k := range keys {
		args = append(args, k)
	}
	return append(args, argv...)
}
