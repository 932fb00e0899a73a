package broker

import (
	"strings"
	"testing"

	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/quorum"
	"github.com/millrace-project/millrace/vfs"
)

// nameless is a new directory whose meta.properties has no directory.id, as Kafka wrote them before 3.7.
func nameless(t *testing.T) *vfs.Mem {
	t.Helper()
	mem := vfs.NewMem()
	if err := mem.MkdirAll("data", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := quorum.Format(mem, "data", quorum.FormatOptions{NodeID: 1, NowMs: nowMs()}); err != nil {
		t.Fatal(err)
	}
	p, err := vfs.ReadFile(mem, "data/meta.properties")
	if err != nil {
		t.Fatal(err)
	}
	var kept strings.Builder
	for line := range strings.Lines(string(p)) {
		if !strings.HasPrefix(line, "directory.id=") {
			kept.WriteString(line)
		}
	}
	if err := vfs.WriteFileAtomic(mem, "data/meta.properties", []byte(kept.String())); err != nil {
		t.Fatal(err)
	}
	return mem
}

func directoryID(t *testing.T, mem *vfs.Mem) commitlog.TopicID {
	t.Helper()
	m, err := commitlog.ReadMetaProperties(mem, "data")
	if err != nil {
		t.Fatal(err)
	}
	return m.DirectoryID
}

// A directory of the time before directories had ids, when voters were configured, gets one and keeps it.
func TestDirectoryGetsAnID(t *testing.T) {
	mem := nameless(t)
	if err := mem.Remove("data/" + quorum.LogName + "/00000000000000000000-0000000000.checkpoint"); err != nil {
		t.Fatal(err)
	}
	n := startOn(t, mem)
	n.mustCreate("t", 1)
	n.mustProduce("t", "a")
	id := directoryID(t, mem)
	if id == (commitlog.TopicID{}) || id != n.b.directoryID {
		t.Fatalf("directory.id is %s, the broker's %s", id, commitlog.TopicID(n.b.directoryID))
	}
	again := startOn(t, mem.KillClone())
	if again.b.directoryID != n.b.directoryID {
		t.Errorf("directory.id is %s after a restart, was %s", commitlog.TopicID(again.b.directoryID), id)
	}
}

// Where the metadata log knows the id of the voter's directory, a made-up one is none, and is not written.
func TestLostDirectoryIDIsNotMadeUp(t *testing.T) {
	mem := nameless(t)
	cfg, err := config.Load(config.Standalone("data", "127.0.0.1:0"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(cfg, Options{FS: mem}); err == nil || !strings.Contains(err.Error(), "directory id") {
		t.Errorf("error %v", err)
	}
	if id := directoryID(t, mem); id != (commitlog.TopicID{}) {
		t.Errorf("directory.id %s was written", id)
	}
}
