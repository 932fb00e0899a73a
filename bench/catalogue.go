package bench

import (
	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
)

// Entry is a workload of the catalogue.
type Entry struct {
	Name  string
	About string
	Shape Shape // what it looks like unless the caller wants it otherwise
	make  func(name string, s Shape) Workload
}

// New makes the workload. change may alter its shape first; it may be nil.
func (e Entry) New(change func(*Shape)) Workload {
	s := e.Shape
	if change != nil {
		change(&s)
	}
	return e.make(e.Name, s)
}

// heldAgainst is the workload without what this one adds; "" if there is none.
func heldAgainst(name string) string {
	switch name {
	case "backfill":
		return "tail"
	case "connections":
		return "connections-active"
	case "transactions":
		return "transactions-plain"
	case "beside-cleaner":
		return "beside-cleaner-idle"
	}
	return ""
}

// Catalogue is every workload that there is, in the order of reports.
func Catalogue() []Entry {
	const kb64 = 64 << 10
	return append([]Entry{
		{"produce", "1 KB records in batches of 64 KB, one partition, 2 connections × 5 requests",
			Shape{Connections: 2, RecordBytes: 1024, BatchBytes: kb64}, newProduceWork},
		{"produce-100b", "the same with records of 100 B",
			Shape{Connections: 2, RecordBytes: 100, BatchBytes: kb64}, newProduceWork},
		{"produce-10-partitions", "the same with records of 100 B, over 10 partitions",
			Shape{Connections: 2, Partitions: 10, RecordBytes: 100, BatchBytes: kb64}, newProduceWork},
		{"produce-single", "one 100 B record a request, 4 connections × 20 requests",
			Shape{Connections: 4, InFlight: 20, RecordBytes: 100, BatchBytes: 1}, newProduceWork},
		{"produce-zstd", "batches of 64 KB that zstd has brought to a quarter",
			Shape{Connections: 2, RecordBytes: 1024, BatchBytes: kb64, Codec: batch.Zstd, Redundancy: 4}, newProduceWork},
		{"produce-zstd-random", "batches of 64 KB in zstd that do not compress",
			Shape{Connections: 2, RecordBytes: 1024, BatchBytes: kb64, Codec: batch.Zstd, Redundancy: 1}, newProduceWork},
		{"produce-paced", "4 KB batches at 200 a second, one at a time on each of 4 connections: the latency of an acknowledgement",
			Shape{Connections: 4, InFlight: 1, RecordBytes: 1024, BatchBytes: 4 << 10, Rate: 200}, newProduceWork},
		{"many-producers", "100 connections, each to 100 partitions, keyed records of 100 B in batches of 16 KB",
			Shape{Connections: 100, Partitions: 100, RecordBytes: 100, KeyBytes: 16, BatchBytes: 16 << 10}, newProduceWork},
		{"many-partitions", "1000 partitions, 10 a request, batches of 16 KB, 10 connections, from the moment at which the topic is there",
			Shape{Connections: 10, Partitions: 1000, PerRequest: 10, RecordBytes: 1024, BatchBytes: 16 << 10}, newProduceWork},
		{"consume", "fetches of 1 MiB over what was written before, 4 readers with a partition each",
			Shape{Connections: 4, Partitions: 4, InFlight: 1, RecordBytes: 1024, FetchBytes: 1 << 20}, newConsumeWork},
		{"consume-1-reader", "the same with one reader",
			Shape{Connections: 1, InFlight: 1, RecordBytes: 1024, FetchBytes: 1 << 20}, newConsumeWork},
		{"consume-16-readers", "the same with 16 readers",
			Shape{Connections: 16, Partitions: 16, InFlight: 1, RecordBytes: 1024, FetchBytes: 1 << 20, FillBytes: 512 << 20}, newConsumeWork},
		{"consume-64k", "fetches of 64 KB, 4 readers",
			Shape{Connections: 4, Partitions: 4, InFlight: 1, RecordBytes: 1024, FetchBytes: kb64}, newConsumeWork},
		{"consume-4k", "fetches of 4 KB, 4 readers",
			Shape{Connections: 4, Partitions: 4, InFlight: 1, RecordBytes: 960, FetchBytes: 4 << 10, FillBytes: 64 << 20}, newConsumeWork},
		{"end-to-end", "one 1 KB record a request, 1000 a second: from the moment at which it was due to that at which a reader has it",
			Shape{RecordBytes: 1024, InFlight: 64, Rate: 1000}, newTailWork},
		{"end-to-end-10k", "the same at 10 000 a second",
			Shape{RecordBytes: 1024, InFlight: 256, Rate: 10_000}, newTailWork},
		{"end-to-end-100-partitions", "the same at 10 000 a second over 100 partitions",
			Shape{Partitions: 100, RecordBytes: 1024, InFlight: 256, Rate: 10_000}, newTailWork},
		{"fan-out", "100 MB/s in batches of 64 KB to 16 readers of the tail",
			Shape{RecordBytes: 1024, BatchBytes: kb64, InFlight: 16, Rate: 1560, Readers: 16}, newTailWork},
		{"tail", "50 MB/s in batches of 64 KB to one reader of the tail: what backfill is to be held against",
			Shape{RecordBytes: 1024, BatchBytes: kb64, InFlight: 16, Rate: 780}, newTailWork},
		{"backfill", "the same beside 8 readers of 4 GB that are not in the page cache, whose bytes count too",
			Shape{RecordBytes: 1024, BatchBytes: kb64, InFlight: 16, Rate: 780, Cold: 8, FillBytes: 4 << 30}, newTailWork},
		{"connections-active", "100 connections at 5000 requests of 1 KB a second: what connections is to be held against",
			Shape{Connections: 100, Partitions: 10, RecordBytes: 1024, Rate: 5000}, newConnectionsWork},
		{"connections", "the same beside 10 000 connections that do nothing",
			Shape{Connections: 100, Partitions: 10, RecordBytes: 1024, Rate: 5000, Idle: 10_000}, newConnectionsWork},
		{"groups", "1000 groups of 10 members in the classic protocol, 16 groups at a time, until all are stable, then one rebalance of each",
			Shape{Connections: 16, Groups: 1000, Members: 10, Partitions: 10}, newGroupsWork},
		{"groups-consumer", "the same in KIP-848's protocol",
			Shape{Connections: 16, Groups: 1000, Members: 10, Partitions: 10}, newConsumerGroupsWork},
		{"commits", "the members of 1000 stable groups commit an offset each in turns, 16 connections × 10 requests",
			Shape{Connections: 16, InFlight: 10, Groups: 1000, Members: 10, Partitions: 10}, newCommitsWork},
		{"transactions", "1 KB records in batches of 16 KB to 10 partitions a request, a commit every 100 ms, 2 producers × 5 requests",
			Shape{Connections: 2, Partitions: 10, PerRequest: 10, RecordBytes: 1024, BatchBytes: 16 << 10}, newTransactionsWork},
		{"transactions-plain", "the same producers without transactions: what transactions is to be held against",
			Shape{Connections: 2, Partitions: 10, PerRequest: 10, RecordBytes: 1024, BatchBytes: 16 << 10}, newTransactionsPlainWork},
		{"exactly-once", "200 records a second that a program copies to a second topic in transactions, each to when a reader of that has it",
			Shape{RecordBytes: 1024, InFlight: 64, Rate: 200}, newCopyWork},
	}, logWorkloads()...)
}

// logWorkloads are about what a target does with its logs by itself, and what its engine could.
func logWorkloads() []Entry {
	return []Entry{
		{"compaction", "the log cleaner over 512 MB of 1 KB values, half of them out of date",
			Shape{RecordBytes: 1024, KeyBytes: 16, BatchBytes: 16 << 10, FillBytes: 512 << 20}, newCompactionWork},
		{"compaction-100b", "the same with values of 100 B: four million records, two million keys",
			Shape{RecordBytes: 100, KeyBytes: 16, BatchBytes: 16 << 10, FillBytes: 512 << 20}, newCompactionWork},
		{"compaction-zstd", "the same with values of 1 KB that zstd has brought to a quarter",
			Shape{RecordBytes: 1024, KeyBytes: 16, BatchBytes: 16 << 10, Codec: batch.Zstd, Redundancy: 4, FillBytes: 512 << 20}, newCompactionWork},
		{"beside-cleaner-idle", "25 MB/s in batches of 16 KB: what beside-cleaner is to be held against",
			Shape{RecordBytes: 1024, BatchBytes: 16 << 10, InFlight: 64, Rate: 1600}, newProduceWork},
		{"beside-cleaner", "the same while the log cleaner works on 1 GB of values of 100 B, half of them out of date",
			Shape{RecordBytes: 1024, BatchBytes: 16 << 10, InFlight: 64, Rate: 1600, FillBytes: 1 << 30}, newBesideCleanerWork},
		{"start", "a clean stop, then a start on what is there: from its run to its first answer", Shape{}, newStartWork},
		{"recover", "killed under 16 MB/s to 100 partitions that hold 1 GB: from the next run to the last batch of each",
			Shape{Connections: 2, Partitions: 100, RecordBytes: 1024, BatchBytes: 16 << 10, FillBytes: 1 << 30, Rate: 1000}, newRecoverWork},
		{"engine-append", "the log engine in this process: batches of 64 KB, acknowledged by the operating system, one at a time",
			Shape{InFlight: 1, RecordBytes: 1024, BatchBytes: 64 << 10}, newEngineAppendWork(commitlog.OS)},
		{"engine-append-sync", "the same when they are on disk, 16 waiting at a time",
			Shape{InFlight: 16, RecordBytes: 1024, BatchBytes: 64 << 10}, newEngineAppendWork(commitlog.Sync)},
		{"engine-read", "1 MiB at a time from the log engine in this process into a buffer, 4 readers with a log each",
			Shape{Connections: 4, Partitions: 4, RecordBytes: 1024, FetchBytes: 1 << 20}, newEngineReadWork},
	}
}
