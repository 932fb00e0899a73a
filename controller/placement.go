package controller

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// assign gives the replicas of each partition of a new topic, as the request says them or placed.
func (m *machine) assign(t *kmsg.CreateTopicsRequestTopic) ([][]int32, *answer) {
	if len(t.ReplicaAssignment) > 0 {
		return m.manualAssignment(t)
	}
	switch {
	case t.ReplicationFactor < -1 || t.ReplicationFactor == 0:
		return nil, refuse(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	case t.NumPartitions < -1 || t.NumPartitions == 0:
		return nil, refuse(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	n, rf := t.NumPartitions, t.ReplicationFactor
	if n == -1 {
		n = m.opts.Config.NumPartitions
	}
	if rf == -1 {
		rf = m.opts.Config.DefaultReplicationFactor
	}
	out, reason := m.place(0, n, int(rf))
	if reason != "" {
		return nil, refuse(kerr.InvalidReplicationFactor, "Unable to replicate the partition %d time(s): %s", rf, reason)
	}
	return out, nil
}

func (m *machine) manualAssignment(t *kmsg.CreateTopicsRequestTopic) ([][]int32, *answer) {
	if t.ReplicationFactor != -1 {
		return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	}
	if t.NumPartitions != -1 {
		return nil, refuse(kerr.InvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	byIndex := map[int32][]int32{}
	rf := -1
	for _, a := range t.ReplicaAssignment {
		if _, ok := byIndex[a.Partition]; ok {
			return nil, refuse(kerr.InvalidReplicaAssignment, "Found multiple manual partition assignments for partition %d", a.Partition)
		}
		if refused := m.checkAssignment(a.Replicas, rf); refused != nil {
			return nil, refused
		}
		if len(m.active(a.Replicas)) == 0 {
			return nil, refuse(kerr.InvalidReplicaAssignment, "All brokers specified in the manual partition assignment for partition %d are fenced or in controlled shutdown.", a.Partition)
		}
		rf = len(a.Replicas)
		byIndex[a.Partition] = slices.Clone(a.Replicas)
	}
	out := make([][]int32, len(byIndex))
	for i := range out {
		replicas, ok := byIndex[int32(i)]
		if !ok {
			return nil, refuse(kerr.InvalidReplicaAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		out[i] = replicas
	}
	return out, nil
}

// checkAssignment checks the replicas that a request names for one partition; rf is what the others have, -1 for the first.
func (m *machine) checkAssignment(replicas []int32, rf int) *answer {
	if len(replicas) == 0 {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes an empty replica list.")
	}
	sorted := slices.Sorted(slices.Values(replicas))
	for i, id := range sorted {
		if m.img.Broker(id) == nil {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", id)
		}
		if i > 0 && sorted[i-1] == id {
			return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes the broker %d more than once.", id)
		}
	}
	if rf >= 0 && len(replicas) != rf {
		return refuse(kerr.InvalidReplicaAssignment, "The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), rf)
	}
	return nil
}

// active keeps the brokers that can lead: registered, not fenced, not shutting down.
func (m *machine) active(ids []int32) []int32 {
	var out []int32
	for _, id := range ids {
		if b := m.img.Broker(id); b != nil && !b.Fenced && !b.InControlledShutdown {
			out = append(out, id)
		}
	}
	return out
}

// place gives n partitions from first on rf replicas each, or the reason why it cannot. Leaders go round the brokers that
// are not fenced; replicas follow in the same order, fenced brokers last.
func (m *machine) place(first, n int32, rf int) (assignment [][]int32, reason string) {
	var usable, fenced []int32
	for _, b := range m.img.Brokers() {
		if b.Fenced {
			fenced = append(fenced, b.ID)
		} else {
			usable = append(usable, b.ID)
		}
	}
	switch {
	case rf <= 0:
		return nil, fmt.Sprintf("Invalid replication factor %d: the replication factor must be positive.", rf)
	case len(usable) == 0:
		return nil, "All brokers are currently fenced."
	case rf > len(usable)+len(fenced):
		return nil, fmt.Sprintf("The target replication factor of %d cannot be reached because only %d broker(s) are registered.", rf, len(usable)+len(fenced))
	}
	start := int(m.newID()[0])
	for p := range n {
		replicas := make([]int32, 0, rf)
		for i := 0; i < len(usable) && len(replicas) < rf; i++ {
			replicas = append(replicas, usable[(start+int(first+p)+i)%len(usable)])
		}
		replicas = append(replicas, fenced[:rf-len(replicas)]...)
		assignment = append(assignment, replicas)
	}
	return assignment, ""
}
