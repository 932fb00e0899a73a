package commitlog

import (
	"bytes"
	"errors"
	"testing"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/vfs"
)

// Of what a leader sends, a batch with a wrong checksum keeps all of the append out, and the next good
// one goes on where the log ended.
func TestReplicaRefusesAWrongChecksum(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	l := mustCreate(t, s, "t-0")
	first, second := spec{base: 0, n: 2, epoch: 1, ts: 7}.build(), spec{base: 2, n: 2, epoch: 1, ts: 8}.build()
	for at := 17; at < len(second); at += 7 {
		bad := bytes.Clone(second)
		bad[at] ^= 0x10
		if _, err := l.AppendReplica(append(bytes.Clone(first), bad...)); err == nil || l.EndOffset() != 0 {
			t.Fatalf("a flipped bit at %d: %v, the log ends at %d", at, err, l.EndOffset())
		} else if at >= 21 && !errors.Is(err, batch.ErrCRC) {
			t.Fatalf("a flipped bit at %d: %v", at, err)
		}
	}
	if r, err := l.AppendReplica(append(bytes.Clone(first), second...)); err != nil || r.LastOffset != 3 {
		t.Fatal(r, err)
	}
	s.Close(1)
}
