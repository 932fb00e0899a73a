package broker

import (
	"runtime"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/config"
)

// MemoryLimit is how much memory the process is to stay under, for GOMEMLIMIT, in bytes: the sum of
// the budgets. It is soft: the collector works harder as it comes near, and nothing is refused by it.
func MemoryLimit(cfg *config.Server) int64 {
	const mib = 1 << 20
	queued := int64(256 * mib) // netio's default
	if cfg.QueuedMaxRequestBytes > 0 {
		queued = cfg.QueuedMaxRequestBytes
	}
	metrics := int64(0)
	if cfg.MetricsListen != "" {
		metrics = int64(cfg.MetricsLagPartitions) * 3 << 10 // a scrape: what was measured, its series, and their text
	}
	sum := metrics
	for _, b := range [...]int64{
		max(queued, int64(cfg.SocketRequestMaxBytes)), // frames in flight
		64 * mib, // 1 024 read buffers of 64 KiB
		64 * mib, // reply buffers
		int64(runtime.GOMAXPROCS(0)) * batch.DefaultMaxDecompressed, // one batch at a time is decompressed on each processor
		int64(cfg.MaxFetchSessions) * 64 << 10,                      // fetch sessions of a thousand partitions
		128 * mib,                                                   // the metadata image, a hundred thousand partitions at rest
		128 * mib,                                                   // everything small: connections, requests that wait, the runtime
	} {
		sum += b
	}
	return sum
}
