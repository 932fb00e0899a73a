package index

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// Collect tells of entries that are out of order or of another version; it hands none of them out.
func TestCollectChecksWhatItReads(t *testing.T) {
	var good []byte
	for _, last := range []uint64{10, 20, 30} {
		good = binary.BigEndian.AppendUint16(good, txnVersion)
		for _, v := range []uint64{7, last - 5, last, last - 5} {
			good = binary.BigEndian.AppendUint64(good, v)
		}
	}
	for name, edit := range map[string]func(p []byte){
		"a marker below the one before": func(p []byte) { binary.BigEndian.PutUint64(p[2*txnEntrySize+18:], 15) },
		"another version":               func(p []byte) { p[2*txnEntrySize+1] = 1 },
		"nothing":                       nil,
	} {
		fs, p := vfs.NewMem(), append([]byte(nil), good...)
		if edit != nil {
			edit(p)
		}
		create(t, fs, "x", p)
		x := OpenTxn(fs, vfs.NewHandles(2, 4), "x", 0, false)
		got, _, err := x.Collect(16, 40)
		var c *CorruptError
		if edit != nil && (!errors.As(err, &c) || c.Pos != txnEntrySize || got != nil) || edit == nil && (err != nil || len(got) != 2) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		x.Close()
	}
}
