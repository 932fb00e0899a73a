// Package commitlog is the engine: a Store of Logs in Kafka's directory format.
// It appends, reads, truncates, recovers and retains; it keeps producers and
// leader epochs; it makes acknowledged data durable by group commit and holds the
// high watermark that replication computes.
//
// It owns a data directory: its lock, its checkpoint files, its clean-shutdown
// marker and every partition directory in it. What it promises of a crash stands
// in docs/durability.md. It refuses to know the protocol (its errors carry no Kafka
// codes), to log (it has an EventListener), and to decide what is committed.
//
// Lock order: Log.syncing, then Log.mu, then Log.epoch; checkpointFiles.mu, syncer.mu
// and janitor.mu are leaves below them, and Store.mu below checkpointFiles.mu. Who
// holds one log's syncing takes another's only if it is free. Log.mu is held for the
// append's own write and never for a sync, but in a truncation.
//
// The goroutines: the janitor, one for each store, and the workers of the syncer,
// at most Options.MaxSyncs and only while there is something to sync, and one that
// starts write-back. All are awaited by Close.
package commitlog
