package commitlog

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// BenchmarkSyncMany appends a batch of 200 B to each of many logs and waits until all are on disk: what a burst over many
// partitions costs, by how many syncs may run at once. Beside it the least that it could cost: the same bytes in one file
// with one sync. Its ground is the file system of TMPDIR, which wants to be a journaled one.
func BenchmarkSyncMany(b *testing.B) {
	for _, logs := range []int{1, 100, 1000} {
		for _, syncs := range []int{8, 16, 32, 64} {
			b.Run(fmt.Sprintf("logs=%d/syncs=%d", logs, syncs), func(b *testing.B) { benchmarkSyncMany(b, logs, syncs) })
		}
		b.Run(fmt.Sprintf("logs=%d/one-file", logs), func(b *testing.B) { benchmarkSyncOneFile(b, logs) })
	}
}

func smallBatch() []byte { return spec{n: 1, value: 130, ts: wallClockMs(), epoch: -1}.build() } // 200 B with its headers

func benchmarkSyncMany(b *testing.B, logs, syncs int) {
	s, err := Open(b.TempDir(), &Options{MaxSyncs: syncs})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(1)
	all := make([]*Log, logs)
	for i := range all {
		if all[i], err = s.Create(fmt.Sprintf("t-%d", i), TopicID{1}, nil); err != nil {
			b.Fatal(err)
		}
	}
	data := smallBatch()
	e := &Entry{Data: data}
	burst := func() {
		for _, l := range all {
			batch.Batch(data).SetBaseOffset(0)
			if l.Append(wallClockMs(), 0, []*Entry{e}); e.Err != nil {
				b.Fatal(e.Err)
			}
		}
		for _, l := range all {
			if err := l.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	}
	burst() // the names are new
	for b.Loop() {
		burst()
	}
}

func benchmarkSyncOneFile(b *testing.B, logs int) {
	f, err := vfs.OS().OpenFile(filepath.Join(b.TempDir(), "file"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var all []byte
	for range logs {
		all = append(all, smallBatch()...)
	}
	pos := int64(0)
	for b.Loop() {
		if _, err := f.WriteAt(all, pos); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		pos += int64(len(all))
	}
}
