// Package compaction is the log cleaner's work: one pass over one log, and what an
// interrupted swap of segments is to become.
//
// A pass (Begin, Next, Close) is Kafka's Cleaner: it reads the dirty segments into an
// offset map, then goes through all segments from the start of the log, in groups, and
// writes what stays of each group into one new segment. What decides is pure and has a
// file each: grouping, transactions, the filter, the rebuilt batch, the offset map.
//
// It owns the files that end in .cleaned until it hands them over. It changes no
// segment, starts no goroutine and knows no clock: when to clean which log, how fast,
// and to let the new segments take the old ones' place is the log's business. Batches
// that cannot be read do not stop it: they stay, byte for byte, and are reported. The
// message formats before version 2 count as such.
//
// PlanRecovery decides by file names alone how to end an interrupted swap; whoever
// opens the log carries the plan out.
package compaction
