//go:build java

package java

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/millrace-project/millrace/interop/subject"
)

// TestCleanerFixtures has both go on with what Apache Kafka has cleaned elsewhere: the compacted topic of
// each directory in MILLRACE_FIXTURES.
func TestCleanerFixtures(t *testing.T) {
	dir := os.Getenv("MILLRACE_FIXTURES")
	if _, running := subject.Running(); running || dir == "" {
		t.Skip("needs brokers of its own, and MILLRACE_FIXTURES")
	}
	archives, err := filepath.Glob(filepath.Join(dir, "*.tar.zst"))
	if err != nil || len(archives) == 0 {
		t.Fatalf("no archives in %s: %v", dir, err)
	}
	for _, archive := range archives {
		t.Run(strings.TrimSuffix(filepath.Base(archive), ".tar.zst"), func(t *testing.T) {
			c := &cleanCase{t: t, dir: t.TempDir(), killed: strings.Contains(archive, "killed"), built: map[string]*storedLog{}}
			c.settings = append(slices.Clone(restSettings), "offsets.topic.num.partitions=4", "transaction.state.log.num.partitions=2", "producer.id.expiration.ms=2147483647")
			c.input = &cleanInput{nowMs: time.Now().UnixMilli(), topics: []cleanTopic{{
				name: "fx-compact", mixes: make([]mix, 1), found: true,
				configs: map[string]string{"segment.ms": "1000", "min.cleanable.dirty.ratio": "0", "delete.retention.ms": "0"},
			}}}
			if err := unpack(archive, c.data()); err != nil {
				t.Fatal(err)
			}
			if err := c.read(c.data(), c.built); err != nil {
				t.Fatal(err)
			}
			c.clean()
		})
	}
}

// unpack unpacks a .tar.zst.
func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := zstd.NewReader(f)
	if err != nil {
		return err
	}
	defer z.Close()
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Join(dir, filepath.FromSlash(h.Name))
		if h.FileInfo().IsDir() {
			err = os.MkdirAll(name, 0o755)
		} else {
			err = unpackFile(name, r, h)
		}
		if err != nil {
			return err
		}
	}
}

func unpackFile(name string, r io.Reader, h *tar.Header) error {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Truncate(h.Size), f.Close(), os.Chtimes(name, h.ModTime, h.ModTime))
}
