package clients

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// beat is how often members of the classic protocol show that they live, to be quick.
const beat = 200 * time.Millisecond

// FranzGoGroups are franz-go's consumers: its balancers, and the consumer protocol with topics by
// name and by a pattern that the broker resolves.
func FranzGoGroups() []GroupConsumer {
	var out []GroupConsumer
	for name, balancer := range map[string]kgo.GroupBalancer{
		"range": kgo.RangeBalancer(), "roundrobin": kgo.RoundRobinBalancer(), "sticky": kgo.StickyBalancer(), "cooperative-sticky": kgo.CooperativeStickyBalancer(),
	} {
		out = append(out, GroupConsumer{Name: "franz-go-" + name, Static: true, Join: func(m Membership) (Member, error) {
			return joinFranzGo(m, kgo.ConsumeTopics(m.Topic), kgo.Balancers(balancer), kgo.HeartbeatInterval(beat))
		}})
	}
	// Not as static members: it goes away without its instance id in the request, which Kafka refuses,
	// so that nobody else can have the instance id before the session has ended.
	return append(out,
		GroupConsumer{Name: "franz-go-848", Consumer: true, Join: func(m Membership) (Member, error) {
			return joinFranzGo(m, kgo.ConsumeTopics(m.Topic), kgo.ServerSideBalancer())
		}},
		GroupConsumer{Name: "franz-go-848-regex", Consumer: true, Join: func(m Membership) (Member, error) {
			return joinFranzGo(m, kgo.ConsumeTopics("^"+m.Topic+"$"), kgo.ConsumeRegex(), kgo.ServerSideBalancer())
		}})
}

type franzGoMember struct {
	m    Membership
	cl   *kgo.Client
	stop context.CancelFunc
	done chan error
}

func joinFranzGo(m Membership, opts ...kgo.Opt) (Member, error) {
	lost := func(_ context.Context, _ *kgo.Client, had map[string][]int32) {
		m.Watch.Revoked(m.Name, had[m.Topic]...)
	}
	revoked := func(ctx context.Context, cl *kgo.Client, had map[string][]int32) {
		_ = cl.CommitUncommittedOffsets(ctx) // what is not committed is read again
		lost(ctx, cl, had)
	}
	opts = append(opts, kgo.SeedBrokers(m.Addr), kgo.ConsumerGroup(m.Group), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(100*time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) {
			m.Watch.Assigned(m.Name, got[m.Topic]...)
		}),
		kgo.OnPartitionsRevoked(revoked), kgo.OnPartitionsLost(lost))
	if m.Static {
		opts = append(opts, kgo.InstanceID(m.Name))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	f := &franzGoMember{m, cl, cancel, make(chan error, 1)}
	go func() { f.done <- f.read(ctx) }()
	return f, nil
}

func (f *franzGoMember) read(ctx context.Context) error {
	for ctx.Err() == nil {
		fs := f.cl.PollFetches(ctx)
		var failed error
		fs.EachError(func(_ string, _ int32, err error) {
			if !errors.Is(err, context.Canceled) {
				failed = errors.Join(failed, err)
			}
		})
		fs.EachRecord(func(r *kgo.Record) { f.m.Watch.Record(f.m.Name, r.Partition, r.Offset) })
		f.cl.AllowRebalance()
		if failed != nil {
			return failed
		}
	}
	return nil
}

// Close commits again while the broker says that the member's epoch is not the one it has.
func (f *franzGoMember) Close() error {
	f.stop()
	err := <-f.done
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		e := f.cl.CommitUncommittedOffsets(ctx)
		if !errors.Is(e, kerr.StaleMemberEpoch) && !errors.Is(e, kerr.RebalanceInProgress) && !errors.Is(e, kerr.IllegalGeneration) {
			err = errors.Join(err, e)
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if !f.m.Static {
		err = errors.Join(err, f.cl.LeaveGroupContext(ctx))
	}
	f.cl.CloseAllowingRebalance()
	f.m.Watch.Closed(f.m.Name)
	if err != nil {
		return fmt.Errorf("%s: %w", f.m.Name, err)
	}
	return nil
}
