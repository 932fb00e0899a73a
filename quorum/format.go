package quorum

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"path/filepath"

	"github.com/millrace-project/millrace/batch"
	"github.com/millrace-project/millrace/commitlog"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/vfs"
)

// bootstrapName is the file of the records that a cluster begins with, beside meta.properties.
const bootstrapName = "bootstrap.checkpoint"

// maxKRaftVersion is the newest kraft.version: voters in the log (KIP-853).
const maxKRaftVersion = 1

// newestMetadataVersion is the level of Kafka 4.2 (4.2-IV1).
const newestMetadataVersion = 29

// Endpoint is where a voter listens.
type Endpoint struct {
	Name string // listener name, e.g. CONTROLLER
	Host string
	Port uint16
}

// FormatOptions say how a directory is formatted.
type FormatOptions struct {
	ClusterID          string // "" = random
	NodeID             int32
	DirectoryID        [16]byte // zero = random
	ControllerListener Endpoint
	MetadataVersion    int16 // 0 = the newest; 22 (4.0-IV0) or later
	NowMs              int64
}

// ErrFormatted is returned by Format for a directory that is formatted already.
var ErrFormatted = errors.New("quorum: the directory is formatted already")

// Format writes what `kafka-storage format --standalone` writes: bootstrap.checkpoint, the metadata log's first
// snapshot with this node as its voter, and last meta.properties, whose presence makes the directory a formatted one.
// Everything is durable when it returns.
func Format(files vfs.FS, dir string, o FormatOptions) error {
	if o.ClusterID == "" {
		o.ClusterID = uuidString(RandomUUID())
	}
	if o.DirectoryID == ([16]byte{}) {
		o.DirectoryID = RandomUUID()
	}
	if o.MetadataVersion == 0 {
		o.MetadataVersion = newestMetadataVersion
	}
	if o.MetadataVersion < 22 || o.MetadataVersion > newestMetadataVersion {
		return fmt.Errorf("quorum: cannot format at metadata.version %d", o.MetadataVersion)
	}
	if _, err := files.Stat(filepath.Join(dir, "meta.properties")); err == nil {
		return ErrFormatted
	} else if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("quorum: %w", err)
	}
	if err := files.MkdirAll(filepath.Join(dir, LogName), 0o755); err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	if err := syncAncestors(files, dir); err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	header := []controlRecord{{batch.SnapshotHeader, &records.SnapshotHeaderRecord{}}}
	if err := writeSnapshot(files, filepath.Join(dir, bootstrapName), 0o644, 0, o.NowMs, header, bootstrapValues(o.MetadataVersion)); err != nil {
		return err
	}
	voter := records.VotersVoter{VoterID: o.NodeID, VoterDirectoryID: o.DirectoryID,
		Endpoints:           []records.VotersEndpoint{{Name: o.ControllerListener.Name, Host: o.ControllerListener.Host, Port: o.ControllerListener.Port}},
		KRaftVersionFeature: records.KRaftVersionFeature{MaxSupportedVersion: maxKRaftVersion}}
	header = append([]controlRecord{{batch.SnapshotHeader, &records.SnapshotHeaderRecord{LastContainedLogTimestamp: o.NowMs}}},
		controlRecord{batch.KRaftVersion, &records.KRaftVersionRecord{KRaftVersion: maxKRaftVersion}},
		controlRecord{batch.KRaftVoters, &records.VotersRecord{Voters: []records.VotersVoter{voter}}})
	none := func(func([]byte, error) bool) {}
	if err := writeSnapshot(files, filepath.Join(dir, LogName, snapshotID{}.name()), 0o400, 0, o.NowMs, header, none); err != nil {
		return err
	}
	m := commitlog.MetaProperties{Version: 1, ClusterID: o.ClusterID, NodeID: o.NodeID, DirectoryID: o.DirectoryID}
	if err := commitlog.WriteMetaProperties(files, dir, m, o.NowMs); err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	return nil
}

// Begun reports whether the metadata log in dir is more than what Format leaves, whole or not: somebody was elected, or
// there are records.
func Begun(files vfs.FS, dir string) (bool, error) {
	entries, err := files.ReadDir(filepath.Join(dir, LogName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("quorum: %w", err)
	}
	for _, e := range entries {
		if e.Name() == stateName {
			return true, nil
		}
		if filepath.Ext(e.Name()) != ".log" {
			continue
		}
		if info, err := e.Info(); err != nil || info.Size() > 0 {
			return true, err
		}
	}
	return false, nil
}

// syncAncestors makes the name of dir durable, and those of the directories on the way to it that may be as new.
func syncAncestors(files vfs.FS, dir string) error {
	for p := filepath.Dir(dir); ; p = filepath.Dir(p) {
		if err := files.SyncDir(p); err != nil && !errors.Is(err, fs.ErrPermission) {
			return err
		}
		if p == filepath.Dir(p) {
			return nil
		}
	}
}

// bootstrapFeatures are the features that a new cluster has on, in the order of the file, each from the metadata
// version on that brings it.
var bootstrapFeatures = [...]struct {
	name  string
	level int16
	since int16
}{
	{"eligible.leader.replicas.version", 1, 26},
	{"group.version", 1, 22},
	{"share.version", 1, 28},
	{"streams.version", 1, 29},
	{"transaction.version", 2, 24},
}

func bootstrapValues(metadataVersion int16) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		if !yield(featureLevel("metadata.version", metadataVersion)) {
			return
		}
		for _, f := range bootstrapFeatures {
			if metadataVersion >= f.since && !yield(featureLevel(f.name, f.level)) {
				return
			}
		}
	}
}

func featureLevel(name string, level int16) ([]byte, error) {
	return records.AppendMetadata(nil, &records.FeatureLevelRecord{Name: name, FeatureLevel: level}, 0)
}

// Bootstrap gives the values of the records that a cluster begins with: those of bootstrap.checkpoint, or without one
// what Format would write. They are for an empty log only.
func (q *Quorum) Bootstrap() ([][]byte, error) {
	name := filepath.Join(q.root, bootstrapName)
	p, err := vfs.ReadFile(q.files, name)
	var values [][]byte
	if errors.Is(err, fs.ErrNotExist) {
		for v, err := range bootstrapValues(newestMetadataVersion) {
			if err != nil {
				return nil, err
			}
			values = append(values, v)
		}
		return values, nil
	}
	if err != nil {
		return nil, fmt.Errorf("quorum: %w", err)
	}
	err = walkSnapshot(name, p, func(e Entry) error {
		if !e.Control {
			values = append(values, append([]byte{}, e.Value...))
		}
		return nil
	})
	return values, err
}

// RandomUUID is a new id in Kafka's form: of version 4, none of the reserved ones, and without a dash in front of its
// text, which command lines would take for a flag.
func RandomUUID() [16]byte {
	for {
		var id [16]byte
		rand.Read(id[:])
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if uuidString(id)[0] != '-' {
			return id
		}
	}
}

func uuidString(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }
