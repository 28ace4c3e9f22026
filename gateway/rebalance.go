package gateway

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"time"

	"github.com/gin-gonic/gin"

	"wssgateway/gateway/wire"
)

// A connection that has reached its age is asked to move: within a second, so
// that those which came together do not go together, and has ageGrace to do so.
const (
	ageNotice = time.Second
	ageGrace  = 20 * time.Second
	// ageJitter is the part of max_age by which a connection may get older.
	ageJitter = 0.1
)

// retireAt returns when, by the transport's clock, a connection that begins now has
// reached its age; 0 if it may get as old as it likes.
func (g *Gateway) retireAt() time.Duration {
	if g.cfg.MaxAge == 0 {
		return 0
	}
	return g.transport.Clock() + g.cfg.MaxAge + rand.N(1+time.Duration(ageJitter*float64(g.cfg.MaxAge)))
}

// retire asks the client of a connection that has reached its age to move.
func (c *conn) retire() {
	now := time.Now()
	c.goAway(farewell{goawayRebalance, now.Add(rand.N(ageNotice)), now.Add(ageGrace)})
	c.setDeadline(ageGrace)
}

// rebalancer asks clients to move when the server API wants it, until ctx is
// done. One order at a time: of those that come meanwhile the last one counts.
func (g *Gateway) rebalancer(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case share := <-g.rebalances:
			all := g.conns.shuffled()
			some := all[:shareOf(share, len(all))]
			g.log.Info("rebalancing", "connections", len(all), "moving", len(some))
			closed := g.handOver(ctx, some, g.cfg.drainWindow(), goawayRebalance)
			g.log.Info("rebalanced", "asked", len(some), "closed", closed)
		}
	}
}

// rebalance has a share of the connections asked to move. It does not wait.
func (g *Gateway) rebalance(share float64) {
	select {
	case <-g.rebalances: // an older order
	default:
	}
	select {
	case g.rebalances <- share:
	default: // another one has just come
	}
}

func shareOf(share float64, n int) int { return int(math.Round(share * float64(n))) }

// apiRebalance has a node ask a share of its clients to move.
func (g *Gateway) apiRebalance(gc *gin.Context) {
	share, err := strconv.ParseFloat(gc.Query("share"), 64)
	if err != nil || !(share > 0 && share <= 1) {
		problem(gc, http.StatusBadRequest, wire.BadRequest, "share: must be a number over 0 and up to 1")
		return
	}
	ctx, cancel := g.requestContext()
	defer cancel()
	nodes, err := g.sessions.Nodes(ctx)
	if err != nil {
		g.unavailable(gc, err)
		return
	}
	name, connections, found := gc.Param("node"), 0, false
	for _, n := range nodes {
		if n.Name != name {
			continue
		}
		if err := g.control.give(ctx, n.Node, order{Op: opRebalance, Share: share}); err != nil {
			g.unavailable(gc, err)
			return
		}
		found = true
		connections += n.Connections
	}
	if !found {
		problem(gc, http.StatusNotFound, wire.NotFound, "no node of this name runs")
		return
	}
	gc.JSON(http.StatusAccepted, gin.H{"node": name, "connections": connections, "moving": shareOf(share, connections)})
}
