package broker

import (
	"context"
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/replication"
)

// Start answers requests and returns. After Shutdown it does nothing.
func (b *Broker) Start() {
	b.starting.Lock()
	defer b.starting.Unlock()
	if !b.stopping.Load() {
		b.server.Serve()
		if b.metrics != nil {
			b.metrics.serve()
		}
	}
}

// Serve answers requests until Shutdown or Close.
func (b *Broker) Serve() error {
	b.Start()
	<-b.done
	return nil
}

// Addr is the address ("host:port") of the first listener.
func (b *Broker) Addr() string { return b.server.Addrs()[b.cfg.Listeners[0].Name].String() }

// Shutdown stops in the order that keeps what was promised: the group coordinator resigns; no more requests; what is in
// flight is answered, until ctx is done; the controller notes the controlled shutdown; all logs are synced and
// their checkpoints written; last, and only if every log closed cleanly, the marker of a clean stop.
// A ctx that is done skips the waiting, never the sync.
func (b *Broker) Shutdown(ctx context.Context) error {
	b.starting.Lock()
	already := b.stopping.Swap(true)
	b.starting.Unlock()
	if already {
		<-b.done
		return b.stopped
	}
	defer close(b.done)
	b.deadlines.Hurry(func(e replication.Expirer) bool { // fetches that wait for more answer with what there is
		_, is := e.(*fetch)
		return is
	})
	// Members that wait for a rebalance are sent to look for another coordinator, or the drain would wait for them.
	b.groups.Close()
	b.txns.Close()
	b.markers.close()
	b.compactions.close()
	drained := b.server.Shutdown(ctx)
	if drained != nil {
		b.log.Warn("stopped before every request was answered", "cause", drained)
	}
	b.stopped = b.close()
	if b.stopped == nil {
		b.log.Info("stopped")
	}
	return b.stopped
}

// close ends everything below the server, which takes no more requests.
func (b *Broker) close() error {
	if b.metrics != nil {
		b.metrics.close()
	}
	b.stopOpening()
	var errs []error
	if err := b.ctl.Shutdown(); err != nil {
		errs = append(errs, err)
	}
	errs = append(errs, b.ctl.Close(), b.quorum.Close(), b.store.Close(b.brokerEpoch))
	b.deadlines.Close()
	if b.completions != nil {
		b.completions.Wait()
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("broker: %w", err)
	}
	return nil
}

// Close is Shutdown without waiting for what is in flight.
func (b *Broker) Close() error {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return b.Shutdown(ctx)
}

// abandon closes what a failed New has opened.
func (b *Broker) abandon() error {
	if b.metrics != nil {
		b.metrics.close()
	}
	b.stopOpening()
	var errs []error
	if b.server != nil {
		errs = append(errs, b.server.Close())
	}
	if b.groups != nil {
		b.groups.Close()
	}
	if b.txns != nil {
		b.txns.Close()
		b.markers.close()
	}
	if b.ctl != nil {
		errs = append(errs, b.ctl.Close())
	}
	if b.quorum != nil {
		errs = append(errs, b.quorum.Close())
	}
	if b.store != nil {
		errs = append(errs, b.store.Close(b.brokerEpoch))
	}
	if b.completions != nil {
		b.completions.Wait()
	}
	return errors.Join(errs...)
}
