package records

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// everyMessage is one empty message of each schema.
func everyMessage() []Message {
	all := []Message{NewLeaderChangeMessage(), NewSnapshotHeaderRecord(), NewSnapshotFooterRecord(), NewKRaftVersionRecord(), NewVotersRecord()}
	for _, alloc := range []func(int16) Message{newMetadata, newGroupKey, newGroupValue, newTransactionKey, newTransactionValue, newShareKey, newShareValue, newRemote} {
		for key := range int16(64) {
			if m := alloc(key); m != nil {
				all = append(all, m)
			}
		}
	}
	return all
}

// randomize fills v; a field that its version cannot carry is left out by the caller's retry.
func randomize(rng *rand.Rand, v reflect.Value, flex bool) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).Name == "UnknownTags" {
				if flex && rng.Intn(4) == 0 {
					v.Field(i).Set(reflect.ValueOf([]Tag{{ID: 40, Data: []byte("kept")}, {ID: 1 << 20, Data: []byte{}}}))
				}
				continue
			}
			randomize(rng, v.Field(i), flex)
		}
	case reflect.Bool:
		v.SetBool(rng.Intn(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rng.Int63() - rng.Int63())
	case reflect.Uint8, reflect.Uint16:
		v.SetUint(uint64(rng.Intn(1 << v.Type().Bits())))
	case reflect.Float64:
		v.SetFloat(rng.NormFloat64())
	case reflect.String:
		v.SetString(fmt.Sprintf("s%d", rng.Intn(1000)))
	case reflect.Array:
		for i := range v.Len() {
			randomize(rng, v.Index(i), flex)
		}
	case reflect.Slice:
		n := rng.Intn(4)
		if n > 0 {
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				randomize(rng, v.Index(i), flex)
			}
		}
	case reflect.Pointer:
		if rng.Intn(2) == 0 {
			v.Set(reflect.New(v.Type().Elem()))
			randomize(rng, v.Elem(), flex)
		}
	default:
		panic(v.Kind())
	}
}

// Every record at every version comes back as it went in: same bytes, and a prefix or a longer body is refused.
func TestRoundTripOfEverySchemaAndVersion(t *testing.T) {
	const seed = 20260101
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewSource(seed))
	for _, m := range everyMessage() {
		s := m.Schema()
		for version := s.MinVersion; version <= s.MaxVersion; version++ {
			written := 0
			for round := range 60 {
				in := reflect.New(reflect.TypeOf(m).Elem())
				msg := in.Interface().(Message)
				if err := msg.ReadFrom(minimal(t, m, version), version); err != nil {
					t.Fatal(err)
				}
				if round > 0 {
					randomize(rng, in.Elem(), s.flex(version))
				}
				p, err := msg.AppendTo([]byte("head"), version)
				if err != nil {
					if version == s.MaxVersion && s.Name != "OffsetCommitValue" && s.Name != "LeaderChangeMessage" {
						// The newest version carries every field; only lengths of strings could fail, and these are short.
						if !nullInNonNullable(err) {
							t.Fatalf("%s version %d: %v", s.Name, version, err)
						}
					}
					continue
				}
				written++
				checkBody(t, m, p[4:], version)
			}
			if written == 0 {
				t.Errorf("%s version %d: nothing could be written", s.Name, version)
			}
		}
	}
}

func nullInNonNullable(err error) bool { return errors.Is(err, ErrMalformed) }

// minimal is the body of the default message at that version.
func minimal(t *testing.T, m Message, version int16) []byte {
	p, err := m.AppendTo(nil, version)
	if err != nil {
		t.Fatalf("%s version %d: %v", m.Schema().Name, version, err)
	}
	return p
}

func checkBody(t *testing.T, m Message, p []byte, version int16) {
	t.Helper()
	name := m.Schema().Name
	out := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
	if err := out.ReadFrom(p, version); err != nil {
		t.Fatalf("%s version %d: %v", name, version, err)
	}
	again, err := out.AppendTo(nil, version)
	if err != nil || !bytes.Equal(p, again) {
		t.Fatalf("%s version %d: %x came back as %x, %v", name, version, p, again, err)
	}
	if err := out.ReadFrom(append(p[:len(p):len(p)], 0), version); err == nil {
		t.Fatalf("%s version %d: a byte too many is taken", name, version)
	}
	for n := range p {
		if err := out.ReadFrom(p[:n], version); err == nil {
			t.Fatalf("%s version %d: %d of %d bytes are taken", name, version, n, len(p))
		}
	}
}

func TestUnknownTypeOrVersionIsNamed(t *testing.T) {
	for _, c := range []struct {
		value []byte
		want  string
	}{
		{[]byte{2, 2, 0}, "records: unknown record: metadata frame version 2"},
		{[]byte{1, 29, 0}, "records: unknown record: metadata record type 29 version 0"},
		{[]byte{1, 6, 0}, "records: unknown record: metadata record type 6 version 0"},
		{[]byte{1, 3, 3}, "records: unknown record: PartitionRecord version 3, known are 0 to 2"},
	} {
		_, err := DecodeMetadata(c.value)
		if !errors.Is(err, ErrUnknown) || err.Error() != c.want {
			t.Errorf("%x: %v, want %s", c.value, err, c.want)
		}
	}
	if _, _, err := DecodeGroup([]byte{0, 99}, nil); !errors.Is(err, ErrUnknown) {
		t.Errorf("group record type 99: %v", err)
	}
}

// A field that the version cannot carry is not dropped in silence.
func TestWriteRefusesToLoseAField(t *testing.T) {
	m := NewPartitionChangeRecord()
	m.EligibleLeaderReplicas = []int32{1}
	if _, err := m.AppendTo(nil, 1); err == nil {
		t.Error("version 1 took eligible leader replicas")
	}
	if _, err := m.AppendTo(nil, 2); err != nil {
		t.Error(err)
	}
	txn := NewTransactionLogValue()
	txn.NextProducerEpoch = 4
	if _, err := txn.AppendTo(nil, 0); err == nil {
		t.Error("version 0 took the next producer epoch")
	}
}

// franz-go's own codec of the classic records is the twin.
func TestClassicRecordsAgreeWithTheirTwin(t *testing.T) {
	group, protocol, leader := "g", "range", "m1"
	ours := &GroupMetadataValue{ProtocolType: "consumer", Generation: 7, Protocol: &protocol, Leader: &leader, CurrentStateTimestamp: 99,
		Members: []MemberMetadata{{MemberID: "m1", ClientID: "c", ClientHost: "/h", RebalanceTimeout: 5, SessionTimeout: 6, Subscription: []byte("sub"), Assignment: []byte{}}}}
	twin := kmsg.NewGroupMetadataValue()
	twin.ProtocolType, twin.Generation, twin.Protocol, twin.Leader, twin.CurrentStateTimestamp = "consumer", 7, &protocol, &leader, 99
	member := kmsg.NewGroupMetadataValueMember()
	member.MemberID, member.ClientID, member.ClientHost, member.RebalanceTimeoutMillis, member.SessionTimeoutMillis = "m1", "c", "/h", 5, 6
	member.Subscription, member.Assignment = []byte("sub"), []byte{}
	twin.Members = append(twin.Members, member)
	for version := range int16(4) {
		twin.Version = version
		p, err := AppendValue(nil, ours, version)
		if err != nil || !bytes.Equal(p, twin.AppendTo(nil)) {
			t.Errorf("GroupMetadataValue version %d: %x, %v; twin %x", version, p, err, twin.AppendTo(nil))
		}
	}
	key := kmsg.NewOffsetCommitKey()
	key.Version, key.Group, key.Topic, key.Partition = 1, group, "t", 3
	p, err := AppendKey(nil, &OffsetCommitKey{Group: group, Topic: "t", Partition: 3})
	if err != nil || !bytes.Equal(p, key.AppendTo(nil)) {
		t.Errorf("OffsetCommitKey: %x, %v; twin %x", p, err, key.AppendTo(nil))
	}
	val := kmsg.NewOffsetCommitValue()
	val.Version, val.Offset, val.LeaderEpoch, val.Metadata, val.CommitTimestamp = 3, 8, 2, "m", 11
	p, err = AppendValue(nil, &OffsetCommitValue{Offset: 8, LeaderEpoch: 2, Metadata: "m", CommitTimestamp: 11, ExpireTimestamp: -1}, 3)
	if err != nil || !bytes.Equal(p, val.AppendTo(nil)) {
		t.Errorf("OffsetCommitValue: %x, %v; twin %x", p, err, val.AppendTo(nil))
	}
}

func FuzzMetadata(f *testing.F) {
	for key := range int16(40) {
		if m := newMetadata(key); m != nil {
			p, err := AppendMetadata(nil, m, m.Schema().MaxVersion)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(p)
		}
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		m, version, err := DecodeMetadataVersion(value)
		if err != nil {
			return
		}
		checkStable(t, m, version)
	})
}

func FuzzCoordinator(f *testing.F) {
	f.Add(byte(0), []byte{0, 2, 0, 1, 'g'}, []byte{0, 3, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(byte(1), []byte{0, 0, 0, 1, 't'}, []byte{0, 1})
	f.Add(byte(2), []byte{0, 0, 0, 1, 'g'}, []byte{0, 0})
	f.Fuzz(func(t *testing.T, which byte, key, value []byte) {
		decode := []func(k, v []byte) (Message, Message, error){DecodeGroup, DecodeTransaction, DecodeShare}[which%3]
		k, v, err := decode(key, value)
		if err != nil {
			return
		}
		checkStable(t, k, 0)
		if v != nil {
			checkStable(t, v, int16(value[0])<<8|int16(value[1]))
		}
	})
}

func FuzzRemote(f *testing.F) {
	for key := range int16(4) {
		p, err := AppendMetadata(nil, newRemote(key), 0)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		if m, err := DecodeRemote(value); err == nil {
			checkStable(t, m, 0)
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add(byte(0), []byte{0, 0, 0, 0, 0, 1, 1, 1, 0})
	f.Fuzz(func(t *testing.T, which byte, body []byte) {
		m := everyMessage()[which%5]
		for version := m.Schema().MinVersion; version <= m.Schema().MaxVersion; version++ {
			if m.ReadFrom(body, version) == nil {
				checkStable(t, m, version)
			}
		}
	})
}

// checkStable: what was decoded encodes, and decodes again to the same message.
func checkStable(t *testing.T, m Message, version int16) {
	t.Helper()
	p, err := m.AppendTo(nil, version)
	if err != nil {
		t.Fatalf("%s version %d: %v", m.Schema().Name, version, err)
	}
	out := reflect.New(reflect.TypeOf(m).Elem()).Interface().(Message)
	if err := out.ReadFrom(p, version); err != nil {
		t.Fatalf("%s version %d: %v", m.Schema().Name, version, err)
	}
	again, err := out.AppendTo(nil, version)
	if err != nil || !bytes.Equal(p, again) {
		t.Fatalf("%s version %d: %x, then %x", m.Schema().Name, version, p, again)
	}
}
