package replication

import (
	"errors"
	"fmt"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/segment"
)

// ReadRequest says what a consumer reads of a partition.
type ReadRequest struct {
	Offset           int64
	LeaderEpoch      int32 // the leader epoch that the consumer knows, -1: not checked
	LastFetchedEpoch int32 // the epoch of the last batch that it has, -1: not checked
	MaxBytes         int
	MinOne           bool // the first batch comes whole, however large it is
	Committed        bool // up to the last stable offset, with the aborted transactions
}

// ReadResult is what a read found. Offsets are -1 with an Err.
type ReadResult struct {
	View          *segment.View // nil: nothing; the caller closes it
	Bound         int64         // up to which was read
	HighWatermark int64
	StableOffset  int64
	StartOffset   int64
	Aborted       []commitlog.AbortedTxn // with Committed: not nil, unless Diverged or the first batch did not fit
	// Diverged: the consumer's log left this one at the end of DivergingEpoch.
	Diverged        bool
	DivergingEpoch  int32
	DivergingOffset int64
	Err             error
}

// Len is how many bytes of records were found.
func (r *ReadResult) Len() int64 {
	if r.View == nil {
		return 0
	}
	return r.View.Len()
}

// Read reads from a partition that this node leads, as Kafka does: epochs first, then the offset,
// then bytes below the bound. What is between bound and end is empty without an error.
func (p *Partition) Read(r *ReadRequest) ReadResult {
	if err := p.CheckLeader(r.LeaderEpoch); err != nil {
		return failedRead(err)
	}
	// High watermark before the stable offset before the read: each is then valid for what follows.
	res := ReadResult{HighWatermark: p.log.HighWatermark(), StartOffset: p.log.StartOffset()}
	res.StableOffset = min(p.log.StableOffset(), res.HighWatermark)
	res.Bound = res.HighWatermark
	if r.Committed {
		res.Bound = res.StableOffset
		res.Aborted = noneAborted
	}
	if r.LastFetchedEpoch >= 0 {
		epoch, end := p.EndOffsetForEpoch(r.LastFetchedEpoch)
		if end < 0 || epoch < 0 || r.Offset < res.StartOffset {
			return failedRead(fmt.Errorf("%w: nothing is known of the last fetched epoch %d", commitlog.ErrOffsetOutOfRange, r.LastFetchedEpoch))
		}
		if epoch < r.LastFetchedEpoch || end < r.Offset {
			res.Diverged, res.DivergingEpoch, res.DivergingOffset, res.Aborted = true, epoch, end, nil
			return res
		}
	}
	if r.MaxBytes < 0 && r.Offset >= res.StartOffset && r.Offset < res.Bound {
		return failedRead(errMaxBytes)
	}
	if err := p.readView(r, &res); err != nil {
		return failedRead(err)
	}
	return res
}

// readView reads the records, and the aborted transactions among them where they are asked for.
func (p *Partition) readView(r *ReadRequest, res *ReadResult) (err error) {
	if !r.Committed {
		res.View, err = p.log.Read(r.Offset, res.Bound, r.MaxBytes, r.MinOne)
		return err
	}
	v, aborted, err := p.log.ReadCommitted(r.Offset, res.Bound, r.MaxBytes, r.MinOne)
	switch {
	case err != nil:
		return err
	case v != nil:
		if res.Aborted, err = abortedIn(v, aborted); err != nil {
			v.Close()
			return err
		}
	case r.MaxBytes > 0 && r.Offset < res.Bound:
		res.Aborted = nil // a first batch that does not fit: Kafka answers without the list
	}
	res.View = v
	return nil
}

var errMaxBytes = errors.New("replication: a read of fewer than zero bytes")

func failedRead(err error) ReadResult {
	return ReadResult{Bound: -1, HighWatermark: -1, StableOffset: -1, StartOffset: -1, Err: err}
}

var noneAborted = []commitlog.AbortedTxn{}

// abortedIn lists those of the aborted transactions that begin below the end of v.
func abortedIn(v *segment.View, all []commitlog.AbortedTxn) ([]commitlog.AbortedTxn, error) {
	if len(all) == 0 {
		return noneAborted, nil
	}
	end, err := endOf(v)
	if err != nil {
		return nil, err
	}
	kept := all[:0]
	for _, t := range all {
		if t.FirstOffset < end {
			kept = append(kept, t)
		}
	}
	return kept, nil
}

// endOf walks the batch headers of a view to one past its last whole batch.
func endOf(v *segment.View) (end int64, err error) {
	var p [batch.HeaderSize]byte
	for at := int64(0); at+batch.HeaderSize <= v.Len(); {
		if _, err := v.ReadAt(p[:], at); err != nil {
			return 0, err
		}
		h, err := batch.ParseHeader(p[:])
		if err != nil {
			return 0, fmt.Errorf("replication: %w", err)
		}
		end = h.NextOffset()
		at += int64(h.Size())
	}
	return end, nil
}
