package commitlog

import (
	"github.com/millrace-project/millrace/vfs"
)

// Durability says when an append counts as acknowledged.
type Durability uint8

const (
	// Sync acknowledges what is on disk: the acknowledged offset is the synced one.
	Sync Durability = iota
	// OS acknowledges what the operating system has: the acknowledged offset is
	// the end. A power cut may lose what the background write-back had not
	// reached (at most CheckpointBytes or CheckpointIntervalMs).
	OS
)

// String returns the name used in settings: "sync" or "os".
func (d Durability) String() string {
	if d == OS {
		return "os"
	}
	return "sync"
}

// Options are the settings of a Store that live as long as the process. The
// zero value of each field is its default.
type Options struct {
	// FS is the door to files; nil is the operating system's.
	FS vfs.FS
	// Durability is Sync unless told otherwise.
	Durability Durability
	// NowMs is the wall clock in milliseconds; nil is time.Now.
	NowMs func() int64
	// Listener is told of events; nil functions are left out.
	Listener EventListener
	// Prepare is called when the directory is locked, before anything else is read or
	// written in it; its error ends Open, which returns it as it is.
	Prepare func() error
	// NoCheckpoint names the logs that stand in no checkpoint file of the
	// directory and are recovered from their start after an unclean stop, such
	// as "__cluster_metadata-0".
	NoCheckpoint []string
	// First names the logs that Open loads; the others wait for Load, to which
	// their settings are told. Empty: Open loads all.
	First []string
	// ReserveBytes is how much room on the disk is kept in the file
	// millrace.reserve, at most a hundredth of the file system; 0 is none. On a
	// full disk it goes, in steps, to everything but clients' records and what the
	// cleaner writes, and those are refused until it is whole again.
	ReserveBytes int64
	// ScrubIntervalMs is how often all sealed segments are read and checked; 0 is
	// never. ScrubBytesPerSecond (10 MiB) is how fast.
	ScrubIntervalMs, ScrubBytesPerSecond int64
	// Privileged says whether the records of a log may take from the reserve; nil
	// says so of none.
	Privileged func(name string) bool
	// InitialTaskDelayMs is log.initial.task.delay.ms (30 000): when the first
	// retention pass comes after the logs are loaded; negative is at once.
	InitialTaskDelayMs int64
	// RetentionCheckMs is log.retention.check.interval.ms (300 000): how far
	// retention passes are apart. Nothing is deleted between them.
	RetentionCheckMs int64
	// CheckpointIntervalMs is how long synced bytes may wait for the recovery
	// point (60 000).
	CheckpointIntervalMs int64
	// CheckpointBytes is how many bytes, summed over all logs, may lie between
	// recovery points and ends (256 MiB).
	CheckpointBytes int64
	// HighWatermarkMs is how often high watermarks are written (5 000).
	HighWatermarkMs int64
	// MaxSyncs bounds the fdatasyncs that run at once (16).
	MaxSyncs int

	// Files, of which tests have few: how many stay open that nobody uses, and how
	// many are open beside those with bytes that are not synced; how many of the
	// latter bring a checkpoint.
	idleHandles, openHandles, unsyncedHandles int
	// RecoveryWorkers bounds the logs that load at once (16, or 2 for each CPU if
	// those are more).
	RecoveryWorkers int
	// ProducerExpirationMs is producer.id.expiration.ms (86 400 000).
	ProducerExpirationMs int64
	// Cleaner is how compacted logs are cleaned; ConfigureCleaner changes it.
	Cleaner CleanerOptions
	// Configure returns the settings of a log that Open loads; nil, or a nil
	// result, is DefaultConfig.
	Configure func(name string) *Config
}

// EventListener is told what the engine did by itself. Its functions are called
// without locks held, from several goroutines, and must not block for long.
type EventListener struct {
	// LogOffline: the log failed and takes no more work; err is the cause.
	LogOffline func(name string, err error)
	// Recovered: a log was repaired while it loaded.
	Recovered func(RecoveryReport)
	// RetentionDeleted: segments left the log.
	RetentionDeleted func(RetentionReport)
	// Compacted: a pass over a compacted log has ended.
	Compacted func(CompactionReport)
	// CompactionFailed: a pass over the log ended with err; it is made again, after a
	// delay that grows with each failure.
	CompactionFailed func(name string, err error)
	// Quarantined: a pass met bytes that could not be read and kept them as they are.
	Quarantined func(name string, q Quarantine)
	// ReserveMoved: the reserve begins to be used, so that clients' records are
	// refused, or is whole again.
	ReserveMoved func(ReserveState)
	// Damaged: the scrub came upon something that is not as it was written, or that
	// cannot be read. It stays as it is.
	Damaged func(name string, err error)
	// Scrubbed: the scrub has looked at all sealed segments.
	Scrubbed func(ScrubReport)
	// Progress of loading: done of total logs.
	Progress func(done, total int)
	// JanitorError: background upkeep (checkpoint files, unlinking) failed; it
	// is tried again. name may be empty.
	JanitorError func(name string, err error)
}

// RecoveryReport says what recovery of one log read and cut.
type RecoveryReport struct {
	Log         string
	Segments    int   // segments walked
	BytesWalked int64 // bytes read and checked
	BytesCut    int64 // bytes cut from the end, deleted segments included
	End         int64 // the log's end after recovery
	Cause       error // why bytes were cut; nil if none were
}

// RetentionReport says which segments retention removed, and why.
type RetentionReport struct {
	Log      string
	Reason   string // "time", "size" or "start offset"
	Segments int
	Bytes    int64
	Start    int64 // the log start offset after it
}

func (o *Options) withDefaults() Options {
	var r Options
	if o != nil {
		r = *o
	}
	if r.FS == nil {
		r.FS = vfs.OS()
	}
	if r.NowMs == nil {
		r.NowMs = wallClockMs
	}
	switch {
	case r.InitialTaskDelayMs == 0:
		r.InitialTaskDelayMs = 30_000
	case r.InitialTaskDelayMs < 0:
		r.InitialTaskDelayMs = 0
	}
	setDefault(&r.RetentionCheckMs, 300_000)
	setDefault(&r.CheckpointIntervalMs, 60_000)
	setDefault(&r.CheckpointBytes, 256<<20)
	setDefault(&r.HighWatermarkMs, 5_000)
	setDefault(&r.ProducerExpirationMs, 86_400_000)
	if r.Privileged == nil {
		r.Privileged = func(string) bool { return false }
	}
	setDefault(&r.ScrubBytesPerSecond, 10<<20)
	if r.idleHandles <= 0 {
		r.idleHandles = min(maxIdleHandles, vfs.MaxOpen()/4) // what is open for use, and connections, come on top
	}
	if r.openHandles <= 0 {
		r.openHandles = maxOpenHandles
	}
	if r.unsyncedHandles <= 0 {
		r.unsyncedHandles = vfs.MaxOpen() / 2
	}
	if r.MaxSyncs <= 0 {
		r.MaxSyncs = 16
	}
	if r.RecoveryWorkers <= 0 {
		r.RecoveryWorkers = defaultRecoveryWorkers()
	}
	return r
}

func setDefault(v *int64, d int64) {
	if *v <= 0 {
		*v = d
	}
}
