package commitlog

import (
	"errors"
	"math"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// A log start offset that a checkpoint makes up may be any: where no offsets are left, an append is
// refused, and the log can still be read and opened again.
func TestLogAtTheLastOffsets(t *testing.T) {
	for _, left := range []int64{0, 1, math.MaxInt32 - 1, math.MaxInt32, math.MaxInt32 + 1} {
		fs := vfs.NewMem()
		s := mustOpen(t, testOptions(fs))
		mustCreate(t, s, "t-0")
		if err := s.Close(1); err != nil {
			t.Fatal(err)
		}
		start := math.MaxInt64 - left
		made := []OffsetEntry{{Topic: "t", Offset: start}}
		if err := WriteOffsetCheckpoint(fs, "data/log-start-offset-checkpoint", made); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time with what the first left
			s = mustOpen(t, testOptions(fs))
			l := s.Log("t-0")
			if l.StartOffset() != start {
				t.Fatalf("%d left: starts at %d", left, l.StartOffset())
			}
			end := l.EndOffset()
			_, err := l.AppendReplica(spec{base: end, n: 1}.build())
			if want := end < math.MaxInt64; (err == nil) != want {
				t.Errorf("%d left: a replica's batch at %d: %v", left, end, err)
			}
			end = l.EndOffset()
			_, err = appendAs(l, FromClient, spec{n: 3}.build())
			if want := math.MaxInt64-end >= math.MaxInt32; (err == nil) != want || !want && !errors.Is(err, ErrNoOffsets) {
				t.Errorf("%d left: an append at %d: %v", left, end, err)
			}
			if n := len(readAll(t, l, start, l.EndOffset())); (n > 0) != (l.EndOffset() > start) {
				t.Errorf("%d left: %d batches up to %d", left, n, l.EndOffset())
			}
			if err := s.Close(1); err != nil {
				t.Fatal(err)
			}
		}
	}
}
