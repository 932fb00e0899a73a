package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// The pieces end up one behind the other, however many of their bytes the first call has taken.
func TestWriteAt(t *testing.T) {
	var all []byte
	var pieces [][]byte
	for i := range limitMaxPieces {
		p := bytes.Repeat([]byte{byte(i + 1)}, 1+i*i%500)
		pieces, all = append(pieces, p), append(all, p...)
	}
	check := func(what string, skipped int, write func(f *os.File) error) {
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := write(f); err != nil {
			t.Fatal(err)
		}
		want := append(make([]byte, 4+skipped), all[skipped:]...)
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes, want %d (%v)", what, len(got), len(want), err)
		}
	}
	check("by one call", 0, func(f *os.File) error { return writeAt(f, pieces, 4) })
	check("one piece", 0, func(f *os.File) error { return writeAt(f, [][]byte{all}, 4) })
	for _, n := range []int{0, 1, 2, 100, 499, len(all) / 2, len(all) - 1} {
		check("the rest", n, func(f *os.File) error { return writeRest(f, pieces, 4, n) })
	}
}
