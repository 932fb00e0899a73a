package broker

import (
	"slices"
	"sync/atomic"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/txn"
	"github.com/millrace-project/millrace/wire"
)

// Before a batch begins a transaction in a partition, the transaction's coordinator says that the partition is in it
// (KIP-890). Producers from version 12 on do not add partitions themselves: the broker does it for them.

// Versions of Produce from which a producer knows TRANSACTION_ABORTABLE, and has its partitions added.
const (
	produceAbortable = 11
	produceAdds      = 12
)

// verified is what the coordinator says of one partition of the request.
type verified struct {
	guard commitlog.Guard
	asked bool      // it has answered for that guard
	code  wire.Code // why it is refused
}

// verification is what the coordinator is asked for a request that was not taken before it has answered. The connection
// waits, whose requests come in order, but not the goroutine in Handle, which holds memory that others need.
type verification struct {
	parts    []verified // as the request's partitions
	attempts int
	asking   atomic.Bool // parts are the coordinator's
}

// waits says whether the answer is still to come.
func (v *verification) waits() bool { return v != nil && v.asking.Load() }

// verify asks the coordinator for the partitions in which the request's batches would begin a transaction. What was staged
// before is appended first: it may open the transaction. It says waits when the request is to be given again.
func (p *produce) verify(st *connState, now int64) taking {
	p.verifies = p.req.TransactionalID != nil && (p.h.APIVersion >= produceAdds || p.b.verifiesPartitions())
	if !p.verifies {
		return took
	}
	v := st.verifying
	if v == nil {
		v = &verification{parts: make([]verified, len(p.parts))}
	}
	// The end of the producer's last transaction may come while the coordinator is asked, which waits for it: what was begun
	// before it does not count then, and is begun anew.
	for {
		for i := range p.parts {
			p.parts[i].verified = v.parts[i]
		}
		who, need := p.begins(now)
		if len(need) > 0 && len(st.staged) > 0 {
			if !p.b.appendStaged(st, now) {
				return ended
			}
			who, need = p.begins(now)
		}
		if v.attempts == verifyAttempts || !slices.ContainsFunc(need, func(i int) bool { return !p.parts[i].verified.asked }) {
			return took // what is not verified now, routePart refuses
		}
		st.verifying = v
		if p.ask(v, who, need, p.x.Conn().Again); v.waits() {
			return waits
		}
	}
}

// verifyAttempts is how often a verification is begun anew. The marker of one transaction can undo it once.
const verifyAttempts = 3

// unverified says whether a batch, which the coordinator should have answered for, may not be appended without: its guard is
// a newer one, or its partition was not served when there was one to be had.
func (p *produce) unverified(i int) bool {
	v := &p.parts[i].verified
	return p.verifies && !v.asked && v.guard != commitlog.MustBeOpen && v.code == wire.None && isTransactional(p.req.Partitions[i].Records)
}

// isTransactional says it of a record set that checkRecords has passed.
func isTransactional(records []byte) bool {
	b := batch.Batch(records)
	return b.IsTransactional() && b.HasProducer()
}

// begins lists the partitions in which a batch would begin a transaction, and notes everybody's guard.
func (p *produce) begins(now int64) (who txn.Identity, need []int) {
	for t := range p.req.Topics {
		topic := p.findTopic(&p.req.Topics[t])
		for i := p.req.Topics[t].First; i < p.req.Topics[t].First+p.req.Topics[t].Count; i++ {
			part := &p.req.Partitions[i]
			p.parts[i].topic = topic
			partition, err := topic.partition(part.Index)
			if err != nil || checkRecords(p.h.APIVersion, part.Records) != nil {
				continue // it is refused for that
			}
			if !isTransactional(part.Records) {
				continue
			}
			b := batch.Batch(part.Records)
			who = txn.Identity{ProducerID: b.ProducerID(), Epoch: b.ProducerEpoch()}
			guard := partition.Log().BeginVerification(now, commitlog.Begin{
				ProducerID: who.ProducerID, Epoch: who.Epoch, Sequence: b.BaseSequence(), Adds: p.h.APIVersion >= produceAdds,
			})
			if v := &p.parts[i].verified; guard != v.guard {
				*v = verified{guard: guard}
			}
			switch guard {
			case commitlog.MustBeOpen:
			case commitlog.Fenced:
				p.parts[i].verified.code = wire.ProducerFenced
			default:
				need = append(need, i)
			}
		}
	}
	return who, need
}

// ask has v hold what the coordinator says of each of those partitions, and calls again then.
func (p *produce) ask(v *verification, who txn.Identity, parts []int, again func()) {
	ps := make([]txn.Partition, len(parts))
	for k, i := range parts {
		ps[k] = txn.Partition{Topic: p.parts[i].topic.name, Index: p.req.Partitions[i].Index}
	}
	for i := range p.parts {
		v.parts[i] = p.parts[i].verified
	}
	v.attempts++
	v.asking.Store(true)
	answer := func(codeOf func(k int) wire.Code) {
		for k, i := range parts {
			v.parts[i].asked, v.parts[i].code = true, codeOf(k)
		}
		v.asking.Store(false)
		again()
	}
	id := string(p.req.TransactionalID)
	if p.h.APIVersion < produceAdds {
		p.b.txns.Verify(id, who, ps, func(codes []wire.Code) { answer(func(k int) wire.Code { return codes[k] }) })
	} else {
		p.b.txns.AddPartitions(id, who, ps, transactionVersion, func(code wire.Code) { answer(func(int) wire.Code { return code }) })
	}
}

// refusal is what the producer is told of a partition that was not verified.
func (v *verified) refusal(version int16) (code wire.Code, message *string) {
	switch v.code {
	case wire.None:
		return wire.None, nil
	case wire.ProducerFenced:
		return wire.InvalidProducerEpoch, nil
	case wire.TransactionAbortable:
		if version >= produceAbortable {
			return v.code, nil
		}
		return wire.InvalidTxnState, &notAdded
	case wire.InvalidTxnState:
		return v.code, &notAdded
	case wire.ConcurrentTransactions:
		if version >= produceAdds {
			return v.code, nil
		}
	case wire.NetworkException, wire.CoordinatorLoadInProgress, wire.CoordinatorNotAvailable, wire.NotCoordinator:
	default:
		return v.code, nil
	}
	// An error that producers try again without asking for metadata first.
	msg := "Unable to verify the partition has been added to the transaction. Underlying error: " + v.code.String()
	return wire.NotEnoughReplicas, &msg
}

var notAdded = "Partition was not added to the transaction"

// verifiesPartitions is transaction.partition.verification.enable as it is now.
func (b *Broker) verifiesPartitions() bool {
	return layersOf(b.cfg, b.image()).Value(config.Broker().Lookup("transaction.partition.verification.enable")).Bool
}
