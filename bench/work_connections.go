package bench

import (
	"context"
	"fmt"
	"net"
	"time"
)

// connectionsWork is a load of writes beside connections that do nothing.
type connectionsWork struct{ produceWork }

func newConnectionsWork(name string, s Shape) Workload {
	return &connectionsWork{produceWork{newWork(name, s)}}
}

// idleSettles is how long idle connections have done nothing when the load beside them begins:
// what is measured is a crowd that is there, not one that comes.
const idleSettles = 15 * time.Second

// Run opens the idle connections, lets them be idle, writes for d, and makes sure that every idle one
// still answers.
func (w *connectionsWork) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	idle := make([]net.Conn, 0, w.shape.Idle)
	defer func() {
		for _, c := range idle {
			c.Close()
		}
	}()
	dial := w.driver.withDefaults().dial
	for len(idle) < w.shape.Idle {
		c, err := dial(ctx, t.Addr)
		if err == nil {
			idle = append(idle, c)
			err = hello(c)
		}
		if err != nil {
			return Figure{}, fmt.Errorf("bench: idle connection %d to %s: %w", len(idle), t.Name, err)
		}
	}
	if len(idle) > 0 {
		if err := pause(ctx, idleSettles); err != nil {
			return Figure{}, err
		}
	}
	f, err := w.produceWork.Run(ctx, t, d)
	if err != nil {
		return f, err
	}
	for i, c := range idle {
		if err := hello(c); err != nil {
			f.Errors++
			if f.Error == "" {
				f.Error = fmt.Sprintf("idle connection %d: %v", i, err)
			}
		}
	}
	return f, nil
}
