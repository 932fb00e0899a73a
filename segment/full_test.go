package segment

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// TestSealThatFails: when one index cannot be sealed, the segment goes on being appended to, in all of them.
func TestSealThatFails(t *testing.T) {
	rng, _ := seedOf(t)
	for _, suffix := range []string{indexSuffix, timeIndexSuffix} {
		full := false
		fs := vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
			if full && op.Kind == vfs.OpWrite && strings.HasSuffix(op.Name, suffix) {
				return syscall.ENOSPC
			}
			return nil
		})
		p := newPair(t, rng, fs)
		for range 5 {
			p.append()
		}
		full = true
		if err := p.seg.Seal(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("seal without room for %s: %v", suffix, err)
		}
		for range 5 {
			p.append()
		}
		full = false
		if err := p.seg.Seal(); err != nil {
			t.Fatal(err)
		}
		p.checkAll()
		p.reopen(true)
		p.checkAll()
		if found, _, _, err := scrubAll(t, p.seg, p.twin.next(), 10_000); len(found) > 0 || err != nil {
			t.Errorf("%v, %v", found, err)
		}
		p.seg.Close()
	}
}

// TestCreateThatFails: nothing is left of a segment that could not be made; if it cannot be taken away,
// the error says that what is on disk is not known.
func TestCreateThatFails(t *testing.T) {
	for i, suffix := range []string{logSuffix, indexSuffix, timeIndexSuffix} {
		mem := vfs.NewMem()
		stuck := false
		fs := vfs.NewFaulty(mem, func(op vfs.Op) error {
			switch {
			case op.Kind == vfs.OpCreate && strings.HasSuffix(op.Name, suffix):
				return syscall.EMFILE
			case op.Kind == vfs.OpRemove && stuck:
				return syscall.EIO
			}
			return nil
		})
		if err := mem.MkdirAll("t", 0o755); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(fs, "t", 7, kafkaConfig()); !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrBroken) {
			t.Errorf("%s: %v", suffix, err)
		}
		if left, err := mem.ReadDir("t"); err != nil || len(left) > 0 {
			t.Errorf("%s: left %v, %v", suffix, left, err)
		}
		stuck = true
		if _, err := Create(fs, "t", 7, kafkaConfig()); !errors.Is(err, syscall.EMFILE) || errors.Is(err, ErrBroken) != (i > 0) {
			t.Errorf("%s, and it cannot be removed: %v", suffix, err)
		}
	}
}
