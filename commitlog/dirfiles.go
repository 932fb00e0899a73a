package commitlog

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/millrace-project/millrace/vfs"
)

// Names of files that Kafka keeps in a data directory or in a partition's.
const (
	metaPropertiesFile    = "meta.properties"
	cleanShutdownFile     = ".kafka_cleanshutdown"
	partitionMetadataFile = "partition.metadata"
)

// TopicID is a topic's identity; the zero value says that there is none. The
// text form is the 16 bytes in URL-safe base64 without padding, 22 characters.
type TopicID [16]byte

// String returns the text form.
func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// ParseTopicID reads the text form.
func ParseTopicID(s string) (id TopicID, err error) {
	p, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(p) != len(id) {
		return TopicID{}, fmt.Errorf("commitlog: not a topic id: %.40q", s)
	}
	copy(id[:], p)
	return id, nil
}

// parseLogName splits the directory name of a partition, "topic-N".
func parseLogName(name string) (topic string, partition int32, err error) {
	i := strings.LastIndexByte(name, '-')
	if i > 0 {
		n, err := strconv.ParseUint(name[i+1:], 10, 31)
		if err == nil && legalTopic(name[:i]) && strconv.FormatUint(n, 10) == name[i+1:] {
			return name[:i], int32(n), nil
		}
	}
	return "", 0, fmt.Errorf("commitlog: not a partition's directory: %.300q", name)
}

// formatLogName is the directory name of a partition.
func formatLogName(topic string, partition int32) string {
	return topic + "-" + strconv.Itoa(int(partition))
}

// legalTopic is Kafka's rule for topic names.
func legalTopic(topic string) bool {
	if topic == "" || topic == "." || topic == ".." || len(topic) > 249 {
		return false
	}
	for i := range len(topic) {
		c := topic[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '.' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

// dirKind says what a directory in a data directory is.
type dirKind uint8

const (
	dirOther   dirKind = iota // not a partition's
	dirLog                    // topic-N
	dirDeleted                // topic-N.<32 hex>-delete: to be removed
	dirFuture                 // topic-N.<32 hex>-future: the target of a move
	dirStray                  // topic-N.<32 hex>-stray: belongs to no known partition
)

// Suffixes of directory names, after the dot and 32 hex digits.
const (
	deleteSuffix = "-delete"
	futureSuffix = "-future"
	straySuffix  = "-stray"
)

// parseDirName tells what the directory of that name is. log is the name of the
// log it holds or held; in the suffixed forms Kafka may have cut the topic.
func parseDirName(name string) (log string, kind dirKind) {
	if _, _, err := parseLogName(name); err == nil {
		return name, dirLog
	}
	i := strings.LastIndexByte(name, '-')
	if i < 0 {
		return "", dirOther
	}
	switch name[i:] {
	case deleteSuffix:
		kind = dirDeleted
	case futureSuffix:
		kind = dirFuture
	case straySuffix:
		kind = dirStray
	default:
		return "", dirOther
	}
	log, ok := cutUnique(name[:i])
	if !ok {
		return "", dirOther
	}
	return log, kind
}

// cutUnique cuts ".<32 hex>" off.
func cutUnique(name string) (log string, ok bool) {
	i := len(name) - 33
	if i < 1 || name[i] != '.' {
		return "", false
	}
	if _, err := hex.DecodeString(name[i+1:]); err != nil {
		return "", false
	}
	return name[:i], true
}

// deletedDirName is what a log's directory is renamed to before it is removed.
func deletedDirName(log string) string { return uniqueDirName(log, deleteSuffix) }

// strayDirName is what the directory of a log without a partition is renamed to.
func strayDirName(log string) string { return uniqueDirName(log, straySuffix) }

// uniqueDirName is Kafka's form: the log's name, a dot, 32 random hex digits and
// the suffix, at most 255 bytes; of a longer one the topic is cut.
func uniqueDirName(log, suffix string) string {
	var id [16]byte
	rand.Read(id[:])
	tail := "." + hex.EncodeToString(id[:]) + suffix
	if over := len(log) + len(tail) - 255; over > 0 {
		topic, partition, err := parseLogName(log)
		if err != nil {
			panic("BUG: commitlog: " + err.Error())
		}
		log = formatLogName(topic[:len(topic)-over], partition)
	}
	return log + tail
}

// cleanShutdown is the content of the clean-shutdown marker.
type cleanShutdown struct {
	Version     int    `json:"version"`
	BrokerEpoch *int64 `json:"brokerEpoch"`
}

// encodeCleanShutdown is the content of the marker, byte for byte as Kafka writes it.
func encodeCleanShutdown(brokerEpoch int64) []byte {
	return fmt.Appendf(nil, `{"version":0,"brokerEpoch":%d}`, brokerEpoch)
}

// decodeCleanShutdown reads the broker epoch of the marker. Versions of Kafka
// before 3.8 left the file empty: that is an error here, although the marker counts.
func decodeCleanShutdown(p []byte) (brokerEpoch int64, err error) {
	var c cleanShutdown
	if err := json.Unmarshal(p, &c); err != nil {
		return 0, fmt.Errorf("commitlog: %s: %w", cleanShutdownFile, err)
	}
	if c.BrokerEpoch == nil {
		return 0, fmt.Errorf("commitlog: %s names no broker epoch", cleanShutdownFile)
	}
	return *c.BrokerEpoch, nil
}

// writePartitionMetadata writes the topic id of the partition whose directory is
// dir, atomically and durably.
func writePartitionMetadata(fs vfs.FS, dir string, id TopicID) error {
	return vfs.WriteFileAtomic(fs, filepath.Join(dir, partitionMetadataFile), encodePartitionMetadata(nil, id))
}

// readPartitionMetadata reads the topic id of the partition whose directory is
// dir. The error wraps os.ErrNotExist if there is no file, and is a *CorruptError
// if it is malformed.
func readPartitionMetadata(fs vfs.FS, dir string) (TopicID, error) {
	name := filepath.Join(dir, partitionMetadataFile)
	p, err := vfs.ReadFile(fs, name)
	if err != nil {
		return TopicID{}, err
	}
	id, err := decodePartitionMetadata(p)
	if err != nil {
		return TopicID{}, &CorruptError{File: name, Reason: err.Error()}
	}
	return id, nil
}

// encodePartitionMetadata appends the content of partition.metadata, which ends
// without a newline.
func encodePartitionMetadata(dst []byte, id TopicID) []byte {
	return fmt.Appendf(dst, "version: 0\ntopic_id: %s", id)
}

// decodePartitionMetadata reads the content of partition.metadata.
func decodePartitionMetadata(p []byte) (TopicID, error) {
	lines := strings.Split(strings.TrimRight(string(p), "\r\n"), "\n")
	if len(lines) < 2 {
		return TopicID{}, errors.New("malformed: two lines expected")
	}
	version, ok1 := strings.CutPrefix(strings.TrimSpace(lines[0]), "version: ")
	text, ok2 := strings.CutPrefix(strings.TrimSpace(lines[1]), "topic_id: ")
	if !ok1 || !ok2 {
		return TopicID{}, errors.New(`malformed: "version: " and "topic_id: " expected`)
	}
	if version != "0" {
		return TopicID{}, fmt.Errorf("unrecognized version %.20q", version)
	}
	id, err := ParseTopicID(text)
	if err != nil {
		return TopicID{}, err
	}
	if id == (TopicID{}) {
		return TopicID{}, errors.New("the topic id is zero")
	}
	return id, nil
}
