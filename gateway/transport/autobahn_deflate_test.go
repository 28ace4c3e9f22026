package transport

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"wssgateway/gateway/wire"
	"wssgateway/gateway/wire/wiretest"
)

// deflateSizes are of messages, and of the fragments they are sent in, if any.
var deflateSizes = [][2]int{
	{16}, {64}, {256}, {1024}, {4096}, {8192}, {16384}, {32768}, {65536}, {131072},
	{8192, 256}, {16384, 256}, {32768, 256}, {65536, 256}, {131072, 256}, {131072, 1024}, {131072, 4096}, {131072, 32768},
}

// corpora are like the data of the suite: how well they compress differs.
func corpora() []string {
	random := rand.New(rand.NewPCG(1, 2))
	words := strings.Fields("Habe nun ach Philosophie Juristerei und Medizin Und leider auch Theologie Durchaus studiert mit heißem Bemühn")
	var prose, picture, noise, json, html strings.Builder
	for i := range 1 << 18 {
		noise.WriteByte(byte(random.Uint32()))
		picture.WriteByte(byte(i/512 + int(random.Uint32()%3)))
	}
	for prose.Len() < 1<<18 {
		prose.WriteString(words[random.IntN(len(words))] + " ")
	}
	for i := 0; json.Len() < 1<<18; i++ {
		fmt.Fprintf(&json, `{"id":%d,"name":"user-%x","active":%t},`, i, random.Uint32(), i%3 == 0)
	}
	for i := 0; html.Len() < 1<<18; i++ {
		fmt.Fprintf(&html, `<tr class="row"><td>%d</td><td><a href="/item/%x">item</a></td></tr>`, i, random.Uint32())
	}
	return []string{prose.String(), picture.String(), noise.String(), json.String(), html.String()}
}

// Section 12.
func compression() (cases []autobahnCase) {
	for i, corpus := range corpora() {
		op, kind := byte(wire.OpBinary), "binary "
		if i >= 3 {
			op, kind = byte(wire.OpText), "text "
		}
		for j, size := range deflateSizes {
			c := autobahnCase{name: fmt.Sprintf("12.%d.%d", i+1, j+1), limit: 1 << 18, deflates: true}
			for at := range 1 + min(1, 16_384/size[0]) {
				message := corpus[at*1000:][:size[0]]
				fragment := size[1]
				if fragment == 0 {
					fragment = 1 << 18
				}
				sent := fragments(rsv1|op, deflated(message), fragment)
				if len(sent) > 2 { // control frames may stand between them
					sent = append(frames(sent[0], clientPing("between"), clientPong("")), sent[1:]...)
					c.want = append(c.want, "pong between")
				}
				c.send = append(c.send, sent...)
				c.want = append(c.want, kind+message)
			}
			cases = append(cases, c)
		}
	}
	return cases
}

// TestAutobahnOffers are the offers of section 13, over HTTP: what is agreed upon
// holds.
func TestAutobahnOffers(t *testing.T) {
	const agreed = "permessage-deflate; client_no_context_takeover; server_no_context_takeover"
	const offer = "permessage-deflate; client_no_context_takeover; client_max_window_bits"
	tr := runTransport(t, testConfig())
	opened := make(chan *echo, 1)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		e := &echo{gone: make(chan struct{})}
		if err := tr.Accept(w, r, &e.Conn, e); err != nil {
			t.Error(err)
			return
		}
		tr.Work(e)
		opened <- e
	}))
	defer server.Close()
	for name, c := range map[string]struct{ offers, agreed string }{
		"13.1": {offer, agreed},
		"13.2": {offer + "; server_no_context_takeover", agreed},
		"13.3": {offer + "; server_max_window_bits=8", ""},
		"13.4": {offer + "; server_max_window_bits=15", agreed},
		"13.5": {offer + "; server_no_context_takeover; server_max_window_bits=8", ""},
		"13.6": {offer + "; server_no_context_takeover; server_max_window_bits=15", agreed},
		"13.7": {offer + "; server_no_context_takeover; server_max_window_bits=8, " + offer + "; server_no_context_takeover, " + offer, agreed},
		"none": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			peer, err := net.Dial("tcp", server.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			if err := handshake(c.offers).Write(peer); err != nil {
				t.Fatal(err)
			}
			r := bufio.NewReader(peer)
			answer, err := http.ReadResponse(r, nil)
			if err != nil || answer.StatusCode != http.StatusSwitchingProtocols || answer.Header.Get("Sec-WebSocket-Extensions") != c.agreed {
				t.Fatalf("answer %v, %v, want %q", answer, err, c.agreed)
			}
			e := <-opened
			e.peer = peer
			message := strings.Repeat(`{"number":13},`, 200)
			first, payload, want := byte(fin|wire.OpText), message, []string{"text " + message, "text " + message, "close 1000"}
			if c.agreed != "" {
				first, payload = first|rsv1, deflated(message)
			}
			for range 2 {
				_, _ = peer.Write(wiretest.Masked(first, payload))
			}
			_, _ = peer.Write(clientClose("\x03\xe8"))
			got, err := replies(r)
			checkEvents(t, got, want, nil)
			if err != nil {
				t.Error(err)
			}
			e.awaitGone(t)
		})
	}
}
