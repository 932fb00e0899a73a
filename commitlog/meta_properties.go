package commitlog

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/millrace-project/millrace/vfs"
)

// MetaProperties says whose a data directory is: the content of meta.properties
// (docs/format/meta-properties.md).
type MetaProperties struct {
	Version     int // 1 since KIP-631; 0, of the time of ZooKeeper, is refused
	ClusterID   string
	NodeID      int32
	DirectoryID TopicID
}

// ReadMetaProperties reads dir's meta.properties. The error wraps os.ErrNotExist
// if there is none, and is a *CorruptError if it is not of this form.
func ReadMetaProperties(fs vfs.FS, dir string) (MetaProperties, error) {
	name := filepath.Join(dir, metaPropertiesFile)
	p, err := vfs.ReadFile(fs, name)
	if err != nil {
		return MetaProperties{}, err
	}
	m, err := decodeMetaProperties(p)
	if err != nil {
		return MetaProperties{}, &CorruptError{File: name, Reason: err.Error()}
	}
	return m, nil
}

// WriteMetaProperties writes dir's meta.properties atomically and durably, as
// Kafka does: the date, nowMs in UTC, stands in a comment.
func WriteMetaProperties(fs vfs.FS, dir string, m MetaProperties, nowMs int64) error {
	return vfs.WriteFileAtomic(fs, filepath.Join(dir, metaPropertiesFile), encodeMetaProperties(nil, m, nowMs))
}

// encodeMetaProperties appends the content in the order in which Kafka's own
// file has it, which is that of a Java hash table.
func encodeMetaProperties(dst []byte, m MetaProperties, nowMs int64) []byte {
	dst = fmt.Appendf(dst, "#\n#%s\n", time.UnixMilli(nowMs).UTC().Format("Mon Jan 02 15:04:05 UTC 2006"))
	escape := strings.NewReplacer(`\`, `\\`, ":", `\:`, "=", `\=`, "#", `\#`, "!", `\!`)
	return fmt.Appendf(dst, "node.id=%d\ndirectory.id=%s\nversion=%d\ncluster.id=%s\n", m.NodeID, m.DirectoryID, m.Version, escape.Replace(m.ClusterID))
}

func decodeMetaProperties(p []byte) (m MetaProperties, err error) {
	values := map[string]string{}
	for line := range strings.Lines(string(p)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return m, fmt.Errorf("no key and value: %.100q", line)
		}
		values[strings.TrimSpace(key)] = unescape(strings.TrimSpace(value))
	}
	if m.Version, err = strconv.Atoi(values["version"]); err != nil || m.Version != 1 {
		return m, fmt.Errorf("version %.20q, this build reads version 1", values["version"])
	}
	node, err := strconv.ParseInt(values["node.id"], 10, 32)
	if err != nil || node < 0 {
		return m, fmt.Errorf("node.id is %.20q", values["node.id"])
	}
	m.NodeID = int32(node)
	if m.ClusterID = values["cluster.id"]; m.ClusterID == "" {
		return m, fmt.Errorf("no cluster.id")
	}
	if id, ok := values["directory.id"]; ok {
		if m.DirectoryID, err = ParseTopicID(id); err != nil {
			return m, fmt.Errorf("directory.id is %.40q", id)
		}
	}
	return m, nil
}

// unescape takes Java's backslashes out of a value.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
