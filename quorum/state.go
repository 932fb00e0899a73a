package quorum

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/millrace-project/millrace/vfs"
)

// stateName is the file of the election state, in the log's directory.
const stateName = "quorum-state"

// stateVersion is the newest data_version of quorum-state: 0 is of static voters, 1 of KIP-853.
const stateVersion = 1

// electionState is what quorum-state holds. Field order is the file's.
type electionState struct {
	LeaderID         int32  `json:"leaderId"` // -1 = none known
	LeaderEpoch      int32  `json:"leaderEpoch"`
	VotedID          int32  `json:"votedId"` // -1 = no vote in this epoch
	VotedDirectoryID string `json:"votedDirectoryId"`
	DataVersion      int    `json:"data_version"`

	voters []voterV0 // who is configured to vote: of data_version 0 only
}

// stateV0 is the file of a quorum whose voters are configured (kraft.version 0).
type stateV0 struct {
	ClusterID     string    `json:"clusterId"`
	LeaderID      int32     `json:"leaderId"`
	LeaderEpoch   int32     `json:"leaderEpoch"`
	VotedID       int32     `json:"votedId"`
	AppliedOffset int64     `json:"appliedOffset"`
	CurrentVoters []voterV0 `json:"currentVoters"`
	DataVersion   int       `json:"data_version"`
}

type voterV0 struct {
	VoterID int32 `json:"voterId"`
}

// readState reads quorum-state; ok is false when there is none.
func readState(files vfs.FS, dir string) (s electionState, ok bool, err error) {
	name := filepath.Join(dir, stateName)
	p, err := vfs.ReadFile(files, name)
	if errors.Is(err, fs.ErrNotExist) {
		return electionState{LeaderID: -1, VotedID: -1}, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("quorum: %w", err)
	}
	s, err = parseState(p)
	if err != nil {
		return s, false, fmt.Errorf("quorum: %s: %w", name, err)
	}
	return s, true, nil
}

func parseState(p []byte) (electionState, error) {
	var version struct {
		DataVersion *int `json:"data_version"`
	}
	if err := json.Unmarshal(p, &version); err != nil {
		return electionState{}, err
	}
	if version.DataVersion == nil {
		return electionState{}, errors.New("no data_version")
	}
	s := electionState{LeaderID: -1, LeaderEpoch: -1, VotedID: -1}
	var err error
	switch v := *version.DataVersion; v {
	case 0:
		old := stateV0{LeaderID: -1, LeaderEpoch: -1, VotedID: -1}
		err = json.Unmarshal(p, &old)
		s = electionState{LeaderID: old.LeaderID, LeaderEpoch: old.LeaderEpoch, VotedID: old.VotedID, voters: old.CurrentVoters}
	case stateVersion:
		err = json.Unmarshal(p, &s)
	default:
		err = fmt.Errorf("data_version %d, known are 0 and %d", v, stateVersion)
	}
	if err == nil && s.LeaderEpoch < 0 {
		err = fmt.Errorf("leaderEpoch %d", s.LeaderEpoch)
	}
	return s, err
}

// writeState makes this node's leadership of an epoch durable, in the bytes of Kafka.
func writeState(files vfs.FS, dir string, nodeID, epoch int32, kraftVersion int16) error {
	var state any = electionState{LeaderID: nodeID, LeaderEpoch: epoch, VotedID: -1,
		VotedDirectoryID: base64.RawURLEncoding.EncodeToString(make([]byte, 16)), DataVersion: stateVersion}
	if kraftVersion == 0 {
		state = stateV0{LeaderID: nodeID, LeaderEpoch: epoch, VotedID: -1, CurrentVoters: []voterV0{{nodeID}}}
	}
	p, err := json.Marshal(state)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	if err := vfs.WriteFileAtomic(files, filepath.Join(dir, stateName), p); err != nil {
		return fmt.Errorf("quorum: %w", err)
	}
	return nil
}
