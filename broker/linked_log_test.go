package broker

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/records"
)

// link moves a log's directory to another disk, as an operator does, and returns where it is.
func link(t *testing.T, dir, name string) (moved string) {
	t.Helper()
	moved = filepath.Join(t.TempDir(), name)
	if err := errors.Join(os.Rename(filepath.Join(dir, name), moved), os.Symlink(moved, filepath.Join(dir, name))); err != nil {
		t.Fatal(err)
	}
	return moved
}

// removeSegment removes a segment as retention does.
func removeSegment(t *testing.T, dir string, base int64) {
	t.Helper()
	for _, ext := range []string{".log", ".index", ".timeindex"} {
		if err := os.Remove(filepath.Join(dir, fmt.Sprintf("%020d%s", base, ext))); err != nil {
			t.Fatal(err)
		}
	}
}

// A log behind a symbolic link is served as any other.
func TestLinkedLogs(t *testing.T) {
	for _, name := range []string{"t-0", quorum.LogName} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			n := startNode(t, dir)
			n.mustCreate("t", 1)
			for range 5 {
				n.mustProduce("t", "precious")
			}
			n.stop()
			link(t, dir, name)
			n = startNode(t, dir)
			if p := n.listOffset("t", 0, -1); p.ErrorCode != 0 || p.Offset != 5 {
				t.Errorf("the log ends at %d, code %d, want 5", p.Offset, p.ErrorCode)
			}
		})
	}
}

// Nor does it begin anew when its first segment has gone.
func TestLinkedLogAfterRetention(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	n.mustCreate("t", 1, "segment.bytes", "1048576")
	for range 4 {
		n.mustProduce("t", strings.Repeat("x", 700_000))
	}
	n.stop()
	removeSegment(t, link(t, dir, "t-0"), 0)
	n = startNode(t, dir)
	if p := n.listOffset("t", 0, -1); p.ErrorCode != 0 || p.Offset != 4 {
		t.Errorf("the log ends at %d, code %d, want 4", p.Offset, p.ErrorCode)
	}
	if base := n.mustProduce("t", "new"); base != 4 {
		t.Errorf("the next record has offset %d", base)
	}
}

// The same of the metadata log, with a snapshot and one segment that begins before its end.
func TestLinkedMetadataLogAfterRetention(t *testing.T) {
	dir := t.TempDir()
	n := startNode(t, dir)
	n.mustCreate("a", 1)
	img := n.b.image()
	if err := n.b.quorum.WriteSnapshot(quorum.Snapshot{End: img.Offset(), Epoch: img.Epoch(), TimestampMs: nowMs()}, encodedRecords(img)); err != nil {
		t.Fatal(err)
	}
	n.mustCreate("b", 1)
	n.mustProduce("b", "precious")
	n.stop()
	moved := link(t, dir, quorum.LogName)
	p, err := os.ReadFile(filepath.Join(moved, fmt.Sprintf("%020d.log", 0)))
	if err != nil {
		t.Fatal(err)
	}
	size := func(p []byte) int { return int(binary.BigEndian.Uint32(p[8:])) + 12 }
	for int64(binary.BigEndian.Uint64(p[size(p):])) < img.Offset() {
		p = p[size(p):]
	}
	removeSegment(t, moved, 0)
	if err := os.WriteFile(filepath.Join(moved, fmt.Sprintf("%020d.log", binary.BigEndian.Uint64(p))), p, 0o644); err != nil {
		t.Fatal(err)
	}
	n = startNode(t, dir)
	if n.b.image().Topic("b") == nil {
		t.Error("the topic that was made after the snapshot is gone")
	}
}

// encodedRecords are an image's records as a snapshot has them.
func encodedRecords(img *metadata.Image) func(yield func([]byte, error) bool) {
	return func(yield func([]byte, error) bool) {
		for r := range img.Records() {
			if !yield(records.AppendMetadata(nil, r.Message, r.Version)) {
				return
			}
		}
	}
}
