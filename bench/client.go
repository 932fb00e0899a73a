package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// OwnClient is the bench's own, which is light so that the target is what is measured.
const OwnClient = "own"

// Clients names what WithClient takes.
func Clients() []string {
	names := []string{OwnClient}
	for _, c := range otherClients() {
		names = append(names, c.name())
	}
	return names
}

func otherClients() []client { return []client{franzGo{}, kcat{}, &kafkaTools{}} }

// client is a library that loads a target as the programs do that use it: with its own batching,
// its own fetches and what these cost. A request is to it a record, and bytes are those of records'
// values, because that is what it counts. One value serves one workload.
type client interface {
	name() string
	// version is that of what is here; the error says what is not, and what to install.
	version() (string, error)
	// check says why the client cannot load a target as the shape wants it.
	check(s Shape) error
	// produce writes for about as long as the load says.
	produce(ctx context.Context, l *clientLoad) (Figure, error)
	// consume reads the topic from its beginning.
	consume(ctx context.Context, l *clientLoad) (Figure, error)
}

// clientLoad is what a client is to do, once.
type clientLoad struct {
	work     *work
	target   *Target
	duration time.Duration
	ends     []int64 // of the partitions, to be read
}

// rate is the records a second that are due; 0: as many as are taken.
func (l *clientLoad) rate() float64 {
	s := l.work.shape
	return s.Rate * float64(s.PerRequest) * float64(l.work.contents.records)
}

// records is how many the topic holds.
func (l *clientLoad) records() (sum int64) {
	for _, end := range l.ends {
		sum += end
	}
	return sum
}

// readAll is nil when every record of the topic was read.
func (l *clientLoad) readAll(f Figure) error {
	if want := l.records(); f.Records != want {
		return fmt.Errorf("bench: %s gave %d records of %d", l.target.Name, f.Records, want)
	}
	return nil
}

// WithClient has another client than the bench's own do a workload's work. The workload is then
// called by both names. Only those can that are nothing but writing or reading.
func WithClient(w Workload, name string) (Workload, error) {
	if name == OwnClient {
		return w, nil
	}
	all := otherClients()
	i := slices.IndexFunc(all, func(c client) bool { return c.name() == name })
	if i < 0 {
		return nil, fmt.Errorf("bench: no client is called %q: want %s", name, strings.Join(Clients(), ", "))
	}
	by := clientOf{client: all[i]}
	var err error
	if by.is, err = by.client.version(); err != nil {
		return nil, fmt.Errorf("bench: client %s: %w", name, err)
	}
	switch w := w.(type) {
	case *produceWork:
		c := &clientProduce{produceWork: *w, clientOf: by}
		c.name += "-by-" + name
		if c.shape.KeyBytes > 0 {
			return nil, fmt.Errorf("bench: %s has keys, which client %s does not send here", w.Name(), name)
		}
		return c, by.client.check(c.shape)
	case *consumeWork:
		c := &clientConsume{consumeWork: *w, clientOf: by}
		c.name += "-by-" + name
		return c, by.client.check(c.shape)
	}
	return nil, fmt.Errorf("bench: %s is more than writing or reading: it is done by the bench's own client only", w.Name())
}

// clientOf is the other client of a workload.
type clientOf struct {
	client client
	is     string // its version
}

// Client names it, with its version.
func (c clientOf) Client() (name, version string) { return c.client.name(), c.is }

// clientProduce writes by another client.
type clientProduce struct {
	produceWork
	clientOf
	acked int64 // records, since Prepare
}

// Prepare makes the topic.
func (w *clientProduce) Prepare(ctx context.Context, t *Target, run string) error {
	w.acked = 0
	return w.produceWork.Prepare(ctx, t, run)
}

// Run writes for about d.
func (w *clientProduce) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	f, err := w.client.produce(ctx, &clientLoad{work: &w.work, target: t, duration: d})
	f.Written = f.Bytes
	w.acked += f.Records
	return f, err
}

// Verify reads back as many records as were acknowledged, without gaps and by their checksums. What
// is in them is the client's affair.
func (w *clientProduce) Verify(ctx context.Context, t *Target) error {
	ends, err := endOffsets(ctx, t.Addr, w.topic, w.shape.Partitions)
	if err != nil {
		return err
	}
	var sum int64
	for _, end := range ends {
		sum += end
	}
	if sum != w.acked {
		return fmt.Errorf("bench: %s holds %d records of %d that were acknowledged", t.Name, sum, w.acked)
	}
	return verifyTopic(ctx, t, w.topic, w.shape.Partitions, nil, nil)
}

// clientConsume reads by another client what the bench's own has written.
type clientConsume struct {
	consumeWork
	clientOf
}

// Run reads for about d, or the topic once.
func (w *clientConsume) Run(ctx context.Context, t *Target, d time.Duration) (Figure, error) {
	if w.shape.Rate > 0 {
		return Figure{}, errors.New("bench: other clients read as fast as they can: --rate is not for them")
	}
	return w.client.consume(ctx, &clientLoad{work: &w.work, target: t, duration: d, ends: w.ends})
}

// clientValues is how many different values clients send in turns.
const clientValues = 1024

// textValues are values of letters and digits, which tools can read line by line. They compress as
// the shape says, and by a quarter more.
func (s Shape) textValues() [][]byte {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	values := make([][]byte, clientValues)
	for i := range values {
		v := make([]byte, s.RecordBytes)
		fillValue(rand.New(rand.NewPCG(s.Seed, uint64(i))), v, s.Redundancy)
		for j := range v {
			v[j] = letters[v[j]%byte(len(letters))]
		}
		values[i] = v
	}
	return values
}
