package bytes

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// same lists how the partition directories of two log directories differ; nothing when they hold
// the same files with the same bytes. partition.metadata has each broker's own topic id: its form
// is compared.
func same(a, b string) []string {
	var out []string
	dirsA, dirsB := partitions(a), partitions(b)
	if !slices.Equal(dirsA, dirsB) {
		out = append(out, fmt.Sprintf("partition directories: %v and %v", dirsA, dirsB))
	}
	for _, dir := range dirsA {
		if slices.Contains(dirsB, dir) {
			out = append(out, sameDir(filepath.Join(a, dir), filepath.Join(b, dir))...)
		}
	}
	for _, name := range []string{"recovery-point-offset-checkpoint", "replication-offset-checkpoint", "log-start-offset-checkpoint"} {
		if x, y := checkpoint(filepath.Join(a, name)), checkpoint(filepath.Join(b, name)); !slices.Equal(x, y) {
			out = append(out, fmt.Sprintf("%s: %v and %v", name, x, y))
		}
	}
	for _, name := range []string{"meta.properties", ".kafka_cleanshutdown"} {
		if x, y := form(filepath.Join(a, name)), form(filepath.Join(b, name)); x != y {
			out = append(out, fmt.Sprintf("%s: %q and %q", name, x, y))
		}
	}
	return out
}

func partitions(root string) []string {
	var out []string
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "by-") {
			out = append(out, e.Name())
		}
	}
	return out
}

func sameDir(a, b string) []string {
	var out []string
	filesA, filesB := files(a), files(b)
	if !slices.Equal(filesA, filesB) {
		out = append(out, fmt.Sprintf("%s: files\n    %v and\n    %v", filepath.Base(a), filesA, filesB))
	}
	for _, name := range filesA {
		if !slices.Contains(filesB, name) {
			continue
		}
		x, errX := os.ReadFile(filepath.Join(a, name))
		y, errY := os.ReadFile(filepath.Join(b, name))
		if errX != nil || errY != nil {
			out = append(out, fmt.Sprintf("%s/%s: %v, %v", filepath.Base(a), name, errX, errY))
			continue
		}
		if name == "partition.metadata" {
			if fx, fy := own.ReplaceAllString(string(x), "<own>"), own.ReplaceAllString(string(y), "<own>"); fx != fy {
				out = append(out, fmt.Sprintf("%s/%s: %q and %q", filepath.Base(a), name, fx, fy))
			}
			continue
		}
		if name == "leader-epoch-checkpoint" {
			// Kafka notes an epoch when it begins to lead, Millrace with its first append (docs/compat.md).
			end := logEnd(filesA)
			x, y = writtenEpochs(x, end), writtenEpochs(y, end)
		}
		if !bytes.Equal(x, y) {
			out = append(out, fmt.Sprintf("%s/%s: %s", filepath.Base(a), name, firstDifference(x, y)))
		}
	}
	return out
}

func files(dir string) []string {
	var out []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".deleted") {
			out = append(out, e.Name())
		}
	}
	return out
}

// logEnd is the end offset of a log that was closed: its last producer snapshot is named by it.
func logEnd(names []string) int64 {
	end := int64(0)
	for _, name := range names {
		if digits, ok := strings.CutSuffix(name, ".snapshot"); ok {
			off, err := strconv.ParseInt(digits, 10, 64)
			if err == nil {
				end = max(end, off)
			}
		}
	}
	return end
}

// writtenEpochs is the lines of a leader-epoch checkpoint whose epochs begin below end: those in
// which something was written.
func writtenEpochs(p []byte, end int64) []byte {
	var out []byte
	for i, line := range strings.Split(string(p), "\n") {
		_, start, ok := strings.Cut(line, " ")
		if off, err := strconv.ParseInt(start, 10, 64); i >= 2 && ok && err == nil && off < end {
			out = append(append(out, line...), '\n')
		}
	}
	return out
}

func firstDifference(x, y []byte) string {
	i := 0
	for i < min(len(x), len(y)) && x[i] == y[i] {
		i++
	}
	near := func(p []byte) []byte { return p[max(0, min(len(p), i-8)):min(len(p), i+24)] }
	return fmt.Sprintf("%d and %d bytes, first difference at %d: %x and %x", len(x), len(y), i, near(x), near(y))
}

// checkpoint returns the sorted lines of the load's partitions; Kafka writes a map's order.
func checkpoint(name string) []string {
	p, err := os.ReadFile(name)
	if err != nil {
		return nil
	}
	lines := strings.Split(strings.TrimSuffix(string(p), "\n"), "\n")
	out := []string{"version " + lines[0]}
	for _, l := range lines[min(2, len(lines)):] {
		if strings.HasPrefix(l, "by-") {
			out = append(out, l)
		}
	}
	slices.Sort(out)
	return out
}

// own is what each broker chooses itself: ids and epochs, and the date of a properties file.
var own = regexp.MustCompile(`[A-Za-z0-9_-]{22}|"brokerEpoch":[0-9]+|#[A-Z][a-z]{2} .*`)

// form is a small text file without what is the broker's own, lines sorted: Java writes a map's order.
func form(name string) string {
	p, err := os.ReadFile(name)
	if err != nil {
		return err.Error()[strings.LastIndex(err.Error(), ":")+1:]
	}
	lines := strings.Split(own.ReplaceAllString(string(p), "<own>"), "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
