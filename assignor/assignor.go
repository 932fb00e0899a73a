// Package assignor spreads partitions over the members of a KIP-848 consumer group. It is pure: a Spec in, a target
// assignment out. It knows no group state, no epoch and no record.
//
// Source: KIP-848 (uniform and range assignors), KIP-881 (racks).
package assignor
