package commitlog

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

func TestTopicIDText(t *testing.T) {
	const text = "jZNM2xW7Tq6KFQDPcJRgtQ" // as a partition.metadata of Kafka's has it
	id, err := ParseTopicID(text)
	if err != nil || id.String() != text {
		t.Errorf("%v, %v", id, err)
	}
	for _, bad := range []string{"", "AAAA", text + "A", text + "==", "jZNM2xW7Tq6KFQDPcJRg+Q"} {
		if _, err := ParseTopicID(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestLogNames(t *testing.T) {
	for _, c := range []struct {
		name, topic string
		partition   int32
	}{{"a-0", "a", 0}, {"a-b-17", "a-b", 17}, {"__cluster_metadata-0", "__cluster_metadata", 0}, {"x-2147483647", "x", 2147483647}, {"a--1", "a-", 1}} {
		topic, partition, err := parseLogName(c.name)
		if err != nil || topic != c.topic || partition != c.partition || formatLogName(topic, partition) != c.name {
			t.Errorf("%q: %q %d %v", c.name, topic, partition, err)
		}
	}
	for _, bad := range []string{"", "a", "-0", "a-", "a-01", "a-x", "a-2147483648", "a/b-0", "..-0", "a-0.0123456789abcdef0123456789abcdef-delete", "a b-0", strings.Repeat("x", 250) + "-0"} {
		if _, _, err := parseLogName(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestDirectoryNames(t *testing.T) {
	const hex = ".0123456789abcdef0123456789abcdef"
	for _, c := range []struct {
		name, log string
		kind      dirKind
	}{
		{"t-0", "t-0", dirLog},
		{"t-0" + hex + "-delete", "t-0", dirDeleted},
		{"t-0" + hex + "-future", "t-0", dirFuture},
		{"t-0" + hex + "-stray", "t-0", dirStray},
		{"t-0" + hex + "-other", "", dirOther},
		{"t-0-delete", "", dirOther},
		{"t-0.xyz-delete", "", dirOther},
		{"lost+found", "", dirOther},
		{"remote-log-index-cache", "", dirOther},
		{hex + "-delete", "", dirOther},
	} {
		if log, kind := parseDirName(c.name); log != c.log || kind != c.kind {
			t.Errorf("%q: %q, %d", c.name, log, kind)
		}
	}
	for _, name := range []string{deletedDirName("t-3"), strayDirName("t-3")} {
		if log, kind := parseDirName(name); log != "t-3" || kind != dirDeleted && kind != dirStray {
			t.Errorf("%q: %q, %d", name, log, kind)
		}
	}
	long := deletedDirName(strings.Repeat("x", 249) + "-12345")
	if log, kind := parseDirName(long); len(long) != 255 || kind != dirDeleted || !strings.HasSuffix(log, "x-12345") {
		t.Errorf("%d bytes: %q", len(long), long)
	}
	if first, second := deletedDirName("t-3"), deletedDirName("t-3"); first == second {
		t.Error("two names are the same")
	}
}

func TestCleanShutdownBytes(t *testing.T) {
	if got := string(encodeCleanShutdown(13)); got != `{"version":0,"brokerEpoch":13}` {
		t.Errorf("%s", got)
	}
	if epoch, err := decodeCleanShutdown(encodeCleanShutdown(-1)); epoch != -1 || err != nil {
		t.Errorf("%d, %v", epoch, err)
	}
	for _, bad := range []string{"", "{}", `{"version":0}`, `{"brokerEpoch":"x"}`, "13"} {
		if _, err := decodeCleanShutdown([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestPartitionMetadata(t *testing.T) {
	fs := vfs.NewMem()
	if err := fs.MkdirAll("/d/t-0", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := readPartitionMetadata(fs, "/d/t-0"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	id, err := ParseTopicID("jZNM2xW7Tq6KFQDPcJRgtQ")
	if err != nil {
		t.Fatal(err)
	}
	if err := writePartitionMetadata(fs, "/d/t-0", id); err != nil {
		t.Fatal(err)
	}
	p, err := vfs.ReadFile(fs, "/d/t-0/partition.metadata")
	if err != nil || string(p) != "version: 0\ntopic_id: jZNM2xW7Tq6KFQDPcJRgtQ" {
		t.Errorf("%q, %v", p, err)
	}
	if got, err := readPartitionMetadata(fs, "/d/t-0"); got != id || err != nil {
		t.Errorf("%v, %v", got, err)
	}
	for _, bad := range []string{"", "version: 0", "version: 1\ntopic_id: jZNM2xW7Tq6KFQDPcJRgtQ", "version: 0\ntopic_id: x", "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA", "topic_id: x\nversion: 0"} {
		if _, err := decodePartitionMetadata([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// As Kafka 4.2 wrote it.
const kafkaMetaProperties = "#\n#Sun Nov 22 01:46:56 UTC 2026\nnode.id=1\ndirectory.id=xm02ftk5TROEaCo1ghQaCw\nversion=1\ncluster.id=aSaNpRXMT86Oa8mR2yxaug\n"

func TestMetaPropertiesBytes(t *testing.T) {
	m, err := decodeMetaProperties([]byte(kafkaMetaProperties))
	if err != nil || m.NodeID != 1 || m.ClusterID != "aSaNpRXMT86Oa8mR2yxaug" || m.DirectoryID.String() != "xm02ftk5TROEaCo1ghQaCw" || m.Version != 1 {
		t.Fatalf("%+v, %v", m, err)
	}
	if got := encodeMetaProperties(nil, m, 1795312016000); string(got) != kafkaMetaProperties {
		t.Errorf("got %q", got)
	}
	for _, bad := range []string{"", "version=0\nbroker.id=1\n", "version=1\nnode.id=x\ncluster.id=c\n", "version=1\nnode.id=1\n", "version=1\nnode.id=1\ncluster.id=c\ndirectory.id=zz\n", "nonsense\n"} {
		if _, err := decodeMetaProperties([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func FuzzMetaProperties(f *testing.F) {
	f.Add([]byte(kafkaMetaProperties))
	f.Add([]byte("version=1\nnode.id=0\ncluster.id=a\\:b\\\\c\n"))
	f.Add([]byte("! x\n\nversion = 1\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := decodeMetaProperties(p)
		if err != nil || strings.TrimSpace(m.ClusterID) != m.ClusterID {
			return
		}
		if again, err := decodeMetaProperties(encodeMetaProperties(nil, m, 0)); err != nil || again != m {
			t.Fatalf("%+v came back as %+v, %v", m, again, err)
		}
	})
}

func FuzzDirectoryFiles(f *testing.F) {
	f.Add("version: 0\ntopic_id: jZNM2xW7Tq6KFQDPcJRgtQ")
	f.Add(`{"version":0,"brokerEpoch":13}`)
	f.Add("a-b-17")
	f.Add("t-0.0123456789abcdef0123456789abcdef-delete")
	f.Fuzz(func(t *testing.T, s string) {
		if id, err := decodePartitionMetadata([]byte(s)); err == nil {
			if again, err := decodePartitionMetadata(encodePartitionMetadata(nil, id)); err != nil || again != id {
				t.Fatalf("%v, %v", again, err)
			}
		}
		if epoch, err := decodeCleanShutdown([]byte(s)); err == nil {
			if again, err := decodeCleanShutdown(encodeCleanShutdown(epoch)); err != nil || again != epoch {
				t.Fatalf("%v, %v", again, err)
			}
		}
		if topic, partition, err := parseLogName(s); err == nil && formatLogName(topic, partition) != s {
			t.Fatalf("%q: %q %d", s, topic, partition)
		}
		if log, kind := parseDirName(s); (kind == dirOther) != (log == "") || kind == dirLog && log != s {
			t.Fatalf("%q: %q %d", s, log, kind)
		}
	})
}
