package controller

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
)

// machine is the controller's state: the image with everything that was written, committed or not. Its decisions read
// it and change nothing; Apply changes it. The runtime's loop is its only user.
type machine struct {
	img   *metadata.Image
	epoch int32 // leader epoch of what it writes
	opts  *Options
	newID func() [16]byte

	pending   []publication // written and not committed, oldest first
	published func(*metadata.Image, *metadata.Delta)
}

// publication is an image that waits for its records to be committed.
type publication struct {
	end   int64
	img   *metadata.Image
	delta *metadata.Delta
}

func newMachine(img *metadata.Image, epoch int32, o *Options) *machine {
	return &machine{img: img, epoch: epoch, opts: o, newID: quorum.RandomUUID, published: func(*metadata.Image, *metadata.Delta) {}}
}

// Apply implements coordinator.Machine.
func (m *machine) Apply(base int64, timestampMs int64, batches [][]metadata.Record) {
	b := metadata.NewBuilder(m.img)
	off := base
	for _, recs := range batches {
		for _, r := range recs {
			if err := b.Apply(off, m.epoch, timestampMs, r.Message); err != nil {
				panic("BUG: the controller wrote a record that does not apply: " + err.Error())
			}
			off++
		}
	}
	img, delta := b.Build()
	m.img = img
	m.pending = append(m.pending, publication{off, img, delta})
}

// Committed implements coordinator.Machine.
func (m *machine) Committed(end int64) {
	for len(m.pending) > 0 && m.pending[0].end <= end {
		p := m.pending[0]
		m.pending = m.pending[1:]
		m.published(p.img, p.delta)
	}
}

// level is the finalized metadata version.
func (m *machine) level() int16 { return m.img.Feature(metadata.FeatureMetadataVersion) }

func (m *machine) elrEnabled() bool {
	return m.img.Feature(metadata.FeatureELR) > 0 && metadata.ELRAllowed(m.level())
}

// metadataLog is the quorum as the coordinator's runtime sees it.
type metadataLog struct {
	Quorum
	snaps *snapshots
}

// Append implements coordinator.Log.
func (l *metadataLog) Append(epoch int32, timestampMs int64, batches [][]metadata.Record) (int64, error) {
	encoded := make([][][]byte, 0, len(batches))
	size := 0
	for _, recs := range batches {
		values := make([][]byte, 0, len(recs))
		for _, r := range recs {
			v, err := records.AppendMetadata(nil, r.Message, r.Version)
			if err != nil {
				return 0, fmt.Errorf("controller: %w", err)
			}
			values = append(values, v)
			size += len(v)
		}
		encoded = append(encoded, values)
	}
	base, err := l.Quorum.Append(epoch, timestampMs, encoded)
	if err == nil {
		l.snaps.wrote(size)
	}
	return base, err
}

// answer is what a request gets for one of its items: code 0 is success; msg nil leaves the text to the client.
type answer struct {
	code int16
	msg  *string
}

func refuse(e *kerr.Error, format string, args ...any) *answer {
	msg := fmt.Sprintf(format, args...)
	return &answer{e.Code, &msg}
}

func bare(e *kerr.Error) *answer { return &answer{code: e.Code} }

func (a *answer) get() (code int16, msg *string) {
	if a == nil {
		return 0, nil
	}
	return a.code, a.msg
}

// failure is the answer to a request that was not decided or not committed.
func failure(err error) *answer {
	switch {
	case errors.Is(err, errTimedOut), errors.Is(err, coordinator.ErrBusy):
		return bare(kerr.RequestTimedOut)
	case errors.Is(err, coordinator.ErrClosed):
		return bare(kerr.NotController)
	}
	return bare(kerr.KafkaStorageError)
}
