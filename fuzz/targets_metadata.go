package fuzz

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/quorum"
)

// fileNamed finds a file by a part of its name.
func fileNamed(t tree, part string) string {
	for _, name := range t.names() {
		if strings.Contains(name, part) {
			return name
		}
	}
	panic("BUG: no file " + part)
}

func checkMetadataFile(part string, p []byte) (outcome string, err error) {
	whole := metadataDirectory()
	name := fileNamed(whole, part)
	changed := tree{}
	for k, v := range whole {
		changed[k] = v
	}
	changed[name] = bytes.Clone(p)
	fs, err := memDir(changed)
	if err != nil {
		return "", err
	}
	checked := quorum.Check(fs, dataDir)
	after, err := memTree(fs, dataDir)
	if err != nil {
		return "", err
	}
	for _, f := range changed.names() {
		if !bytes.Equal(after[f], changed[f]) || len(after) != len(changed) {
			return "", fmt.Errorf("the check changed %s: %v", f, checked)
		}
	}
	store, q, err := openQuorum(fs)
	if err != nil {
		if strings.Contains(err.Error(), "BUG:") || !namesMetadata(err, name) {
			return "", fmt.Errorf("the refusal names no file: %w", err)
		}
		return "refused: " + err.Error(), nil
	}
	if err := compareMetadata(store.Log(quorum.LogName), q.Epoch(), whole, changed); err != nil {
		return "", errors.Join(err, q.Close(), store.Close(-1))
	}
	n := 0
	count := func(quorum.Entry) error { n++; return nil }
	err = q.Read(count, func(quorum.Snapshot) error { return nil }, count)
	first, berr := q.Bootstrap()
	outcome = fmt.Sprintf("%v %c; bootstrap %v %c", err, 'a'+min(n, 25), berr, 'a'+min(len(first), 25))
	if err := errors.Join(q.Close(), store.Close(5)); err != nil {
		return "", fmt.Errorf("close: %w", err)
	}
	return outcome, nil
}

// namesMetadata: a refusal says which file it is about, but for two that are about no damage: records
// behind a right checksum that make no sense, of which it is told in which batch they are, and voters
// that are others than this node.
func namesMetadata(err error, name string) bool {
	text := err.Error()
	return strings.Contains(text, filepath.Base(name)) || strings.HasPrefix(text, "quorum: batch at offset") ||
		strings.Contains(text, quorum.LogName) || errors.Is(err, quorum.ErrVoters)
}

// compareMetadata holds a metadata log that is served against its file: the directory was closed
// cleanly, so that all of it was committed and nothing is cut. Behind it stands what the election of
// the new epoch appended.
func compareMetadata(l *commitlog.Log, epoch int32, whole, changed tree) error {
	name := fileNamed(whole, quorum.LogName+"/"+fmt.Sprintf("%020d.log", 0))
	got, err := readLog(l)
	if err != nil {
		return fmt.Errorf("the metadata log is served and cannot be read: %w", err)
	}
	p, end := changed[name], int64(0)
	for _, b := range got {
		switch {
		case bytes.HasPrefix(p, b):
			p, end = p[len(b):], b.LastOffset()+1
		case len(p) > 0:
			return fmt.Errorf("the metadata log serves a batch at offset %d that is not what its file has there, %d bytes before the end", b.BaseOffset(), len(p))
		case b.LeaderEpoch() != epoch || !b.IsControl():
			return fmt.Errorf("the metadata log serves a batch at offset %d of epoch %d behind what was written; this epoch is %d", b.BaseOffset(), b.LeaderEpoch(), epoch)
		}
	}
	var last batch.Batch
	for rest := whole[name]; len(rest) > 0; {
		last, rest, err = batch.Next(rest)
		must(err)
	}
	if len(p) > 0 || end < last.LastOffset()+1 {
		return fmt.Errorf("the metadata log is served up to offset %d, was committed up to %d, and %d bytes of its file are not served", end, last.LastOffset()+1, len(p))
	}
	return nil
}
