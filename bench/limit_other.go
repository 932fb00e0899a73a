//go:build !linux

package bench

import (
	"io"
	"os"
	"syscall"
)

// writeAt writes pieces one behind the other from pos on.
func writeAt(f *os.File, pieces [][]byte, pos int64) error {
	for _, p := range pieces {
		if _, err := f.WriteAt(p, pos); err != nil {
			return err
		}
		pos += int64(len(p))
	}
	return nil
}

// dataSync returns when what was written to the file is on disk.
func dataSync(f *os.File) error { return f.Sync() }

// trySend sends some of p.
func trySend(fd int, p []byte) (int, error) { return syscall.Write(fd, p) }

const sendCall = "write"

// sendFile copies: the limit of other systems is not the least that they could do.
func sendFile(raw syscall.RawConn, f *os.File, from, n int64) error {
	buf := make([]byte, 256<<10)
	for n > 0 {
		p := buf[:min(int64(len(buf)), n)]
		if _, err := f.ReadAt(p, from); err != nil {
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		if err := sendMore(raw, p); err != nil {
			return err
		}
		from, n = from+int64(len(p)), n-int64(len(p))
	}
	return nil
}
