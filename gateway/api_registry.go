package gateway

import (
	"context"
	"net/http"
	"time"

	"github.com/gin-gonic/gin"

	"wssgateway/gateway/wire"
)

// userAnswer is the answer to a call that asks for a user.
type userAnswer struct {
	User     string          `json:"user"`
	Online   bool            `json:"online"`
	Sessions []sessionAnswer `json:"sessions"`
}

type sessionAnswer struct {
	ID          string    `json:"id"`
	Device      string    `json:"device"`
	Client      string    `json:"client"`
	Node        string    `json:"node"`
	IP          string    `json:"ip"`
	ConnectedAt time.Time `json:"connected_at"`
	Channels    []string  `json:"channels"`
}

func (g *Gateway) apiUser(gc *gin.Context) {
	user, ok := userOf(gc)
	if !ok {
		return
	}
	ctx, cancel := g.requestContext()
	defer cancel()
	sessions, err := g.sessions.User(ctx, user)
	if err != nil {
		g.unavailable(gc, err)
		return
	}
	answer := userAnswer{User: user, Online: len(sessions) > 0, Sessions: []sessionAnswer{}}
	for _, s := range sessions {
		answer.Sessions = append(answer.Sessions, sessionAnswer{
			s.ID, s.Device, s.Client, s.Node, s.IP, s.ConnectedAt, append([]string{}, s.Channels...),
		})
	}
	gc.JSON(http.StatusOK, answer)
}

// userOf returns the user that a call names. If it cannot be one, the call has
// been answered.
func userOf(gc *gin.Context) (user string, ok bool) {
	user = gc.Param("user")
	if !ValidUser(user) {
		problem(gc, http.StatusBadRequest, wire.BadRequest, "not the name of a user")
		return "", false
	}
	return user, true
}

// apiDisconnect ends the sessions of a user, or one of them, wherever they are.
func (g *Gateway) apiDisconnect(gc *gin.Context) {
	user, ok := userOf(gc)
	if !ok {
		return
	}
	ctx, cancel := g.requestContext()
	defer cancel()
	n, err := g.disconnect(ctx, user, gc.Param("session"))
	if err != nil {
		g.unavailable(gc, err)
		return
	}
	gc.JSON(http.StatusOK, gin.H{"disconnected": n})
}

// disconnect ends the sessions of a user, or one of them, and returns how many had a
// connection, or may have one on a node that is away. Once the registry has that, it
// stands: a node that is not told finds out by itself.
func (g *Gateway) disconnect(ctx context.Context, user, id string) (int, error) {
	ended, err := g.sessions.Disconnect(ctx, user, id, causeDisconnected.Label)
	if err != nil {
		return 0, err
	}
	for _, o := range ended.Owners {
		if err := g.control.tell(ctx, opDisconnect, o); err != nil {
			g.log.Warn("telling a node to close a connection failed, it will find out",
				"node", o.Node.Name(), "session", o.Session, "error", err)
		}
	}
	return ended.Connections, nil
}

type nodeAnswer struct {
	Name        string    `json:"name"`
	Connections int       `json:"connections"`
	Channels    int       `json:"channels"`
	Version     string    `json:"version"`
	StartedAt   time.Time `json:"started_at"`
	Draining    bool      `json:"draining"`
}

func (g *Gateway) apiNodes(gc *gin.Context) {
	ctx, cancel := g.requestContext()
	defer cancel()
	nodes, err := g.sessions.Nodes(ctx)
	if err != nil {
		g.unavailable(gc, err)
		return
	}
	answer := []nodeAnswer{}
	for _, n := range nodes {
		answer = append(answer, nodeAnswer{n.Name, n.Connections, n.Channels, n.Version, n.StartedAt, n.Draining})
	}
	gc.JSON(http.StatusOK, gin.H{"nodes": answer})
}
