package commitlog

import (
	"bytes"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

func TestOffsetCheckpointBytes(t *testing.T) {
	got := encodeOffsets(nil, []OffsetEntry{{"b", 0, 7}, {"a", 10, 1 << 40}, {"a", 2, 0}})
	if want := "0\n3\na 2 0\na 10 1099511627776\nb 0 7\n"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := encodeOffsets(nil, nil); string(got) != "0\n0\n" {
		t.Errorf("no entries: %q", got)
	}
}

func TestOffsetCheckpointOnDisk(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/d", 0o755); err != nil {
		t.Fatal(err)
	}
	if entries, err := ReadOffsetCheckpoint(fs, "/d/x"); err != nil || entries != nil {
		t.Errorf("no file: %v, %v", entries, err)
	}
	want := []OffsetEntry{{"t", 0, 5}, {"t", 1, 6}}
	if err := WriteOffsetCheckpoint(fs, "/d/x", want); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadOffsetCheckpoint(fs.KillClone(), "/d/x"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestBadCheckpointsSayWhere(t *testing.T) {
	for _, c := range []struct {
		text   string
		pos    int64
		reason string
	}{
		{"1\n0\n", 0, "version"},
		{"", 0, "version"},
		{"0\n", 2, "number of entries"},
		{"0\nx\n", 2, "number of entries"},
		{"0\n-1\n", 2, "number of entries"},
		{"0\n2\nt 0 1\n", 10, "but found only 1"},
		{"0\n1\nt 0 1\nu 0 1\n", 10, "more than"},
		{"0\n1\nt 0\n", 4, "malformed"},
		{"0\n2\nt 0 1\nt x 1\n", 10, "malformed"},
		{"0\n1\nt 0 1 2\n", 4, "malformed"},
		{"0\n1\nt -1 2\n", 4, "malformed"},
	} {
		_, err := decodeOffsets("file", []byte(c.text))
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.File != "file" || corrupt.Pos != c.pos || !strings.Contains(corrupt.Reason, c.reason) {
			t.Errorf("%q: %v", c.text, err)
		}
	}
}

func TestCheckpointsAsKafkaMayWriteThem(t *testing.T) {
	entries, err := decodeOffsets("file", []byte("0\r\n1\r\nt  3\t9"))
	if err != nil || !reflect.DeepEqual(entries, []OffsetEntry{{"t", 3, 9}}) {
		t.Errorf("%v, %v", entries, err)
	}
	c, err := decodeEpochs("file", []byte("0\n2\n0 0\n3 17\n"))
	if err != nil || !reflect.DeepEqual(c.entries, []epochEntry{{0, 0}, {3, 17}}) {
		t.Errorf("%v, %v", c, err)
	}
	if got := encodeEpochs(nil, c); string(got) != "0\n2\n0 0\n3 17\n" {
		t.Errorf("%q", got)
	}
}

func FuzzCheckpoints(f *testing.F) {
	for _, s := range []string{"0\n0\n", "0\n1\nt 0 1\n", "0\n2\n0 0\n3 17\n", "0\n1\nt  3\t9", "1\n", "0\n99999999999\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		if entries, err := decodeOffsets("file", p); err == nil {
			again, err := decodeOffsets("file", encodeOffsets(nil, entries))
			if err != nil || !reflect.DeepEqual(entries, again) {
				t.Fatalf("%v came back as %v, %v", entries, again, err)
			}
		} else if !errors.As(err, new(*CorruptError)) {
			t.Fatal(err)
		}
		if c, err := decodeEpochs("file", p); err == nil {
			text := encodeEpochs(nil, c)
			again, err := decodeEpochs("file", text)
			if err != nil || !bytes.Equal(encodeEpochs(nil, again), text) {
				t.Fatalf("%v came back as %v, %v", c.entries, again, err)
			}
		} else if !errors.As(err, new(*CorruptError)) {
			t.Fatal(err)
		}
	})
}
