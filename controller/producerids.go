package controller

import (
	"errors"
	"math"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
)

// producerIDBlock is how many producer ids a broker gets at once (ProducerIdsBlock.PRODUCER_ID_BLOCK_SIZE).
const producerIDBlock = 1000

var errNoProducerIDs = errors.New("controller: producer ids are used up")

// allocateProducerIDs gives the next block. The record holds what follows it, so that a crash skips ids and never
// repeats them.
func (m *machine) allocateProducerIDs(brokerEpoch int64) (first int64, rec metadata.Record, err error) {
	first = m.img.NextProducerID()
	if first > math.MaxInt64-producerIDBlock {
		return 0, rec, errNoProducerIDs
	}
	return first, metadata.Record{Message: &records.ProducerIdsRecord{BrokerID: m.opts.NodeID, BrokerEpoch: brokerEpoch, NextProducerID: first + producerIDBlock}}, nil
}
