package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"

	"github.com/millrace-project/millrace/records"
)

// recordTargets are the records of internal topics and of the metadata log.
func recordTargets() []*Target {
	const same = "; what is read encodes and reads to the same again"
	return []*Target{
		recordTarget("records-metadata", "records of the metadata log"+same, framedSeed(metadataRecords), func(p []byte) ([]read, error) {
			m, version, err := records.DecodeMetadataVersion(p)
			return []read{{m, version}}, err
		}),
		recordTarget("records-remote", "records of remote log metadata"+same, framedSeed(remoteRecords), func(p []byte) ([]read, error) {
			m, err := records.DecodeRemote(p)
			return []read{{m, 0}}, err
		}),
		recordTarget("records-group", "keys and values of __consumer_offsets"+same, keyedSeed(groupRecords), keyValue(records.DecodeGroup)),
		recordTarget("records-transaction", "keys and values of __transaction_state"+same, keyedSeed(transactionRecords), keyValue(records.DecodeTransaction)),
		recordTarget("records-share", "keys and values of __share_group_state"+same, keyedSeed(shareRecords), keyValue(records.DecodeShare)),
		recordTarget("records-control", "bodies of control records"+same, controlSeed, func(p []byte) ([]read, error) {
			m := controls()[int(p[0])%len(controls())]
			version := int16(p[1]) % (m.Schema().MaxVersion + 1)
			return []read{{m, version}}, m.ReadFrom(p[2:], version)
		}),
	}
}

func controls() []records.Message {
	return []records.Message{records.NewLeaderChangeMessage(), records.NewSnapshotHeaderRecord(), records.NewSnapshotFooterRecord(), records.NewKRaftVersionRecord(), records.NewVotersRecord()}
}

// read is a message that was decoded, at a version.
type read struct {
	m       records.Message
	version int16
}

func recordTarget(name, about string, seed func(rng *rand.Rand) []byte, decode func(p []byte) ([]read, error)) *Target {
	return &Target{
		Name: name, About: about, Seed: seed,
		Check: func(p []byte) (string, error) {
			if len(p) < 2 {
				return "short", nil
			}
			all, err := decode(p)
			if err != nil {
				if !errors.Is(err, records.ErrMalformed) && !errors.Is(err, records.ErrUnknown) {
					return "", fmt.Errorf("an error of another kind: %w", err)
				}
				return err.Error(), nil
			}
			outcome := ""
			for _, r := range all {
				if r.m == nil {
					continue
				}
				outcome += fmt.Sprintf("%s version=%c ", r.m.Schema().Name, 'a'+r.version)
				if err := stable(r); err != nil {
					return "", err
				}
			}
			return outcome, nil
		},
	}
}

// stable: what was decoded encodes, and decodes again to what encodes to the same bytes.
func stable(r read) error {
	name := r.m.Schema().Name
	p, err := r.m.AppendTo(nil, r.version)
	if err != nil {
		return fmt.Errorf("%s version %d was read and cannot be written: %w", name, r.version, err)
	}
	again := reflect.New(reflect.TypeOf(r.m).Elem()).Interface().(records.Message)
	if err := again.ReadFrom(p, r.version); err != nil {
		return fmt.Errorf("%s version %d was written and cannot be read: %w", name, r.version, err)
	}
	q, err := again.AppendTo(nil, r.version)
	if err != nil || !bytes.Equal(p, q) {
		return fmt.Errorf("%s version %d: %x, then %x, %v", name, r.version, p, q, err)
	}
	return nil
}

// keyValue decodes an input that is the length of the key in two bytes, the key and the value.
func keyValue(decode func(k, v []byte) (records.Message, records.Message, error)) func(p []byte) ([]read, error) {
	return func(p []byte) ([]read, error) {
		n := min(int(binary.BigEndian.Uint16(p)), len(p)-2)
		key, value := p[2:2+n], p[2+n:]
		if len(value) == 0 {
			value = nil // a tombstone
		}
		k, v, err := decode(key, value)
		if err != nil {
			return nil, err
		}
		all := []read{{k, 0}}
		if v != nil && len(value) >= 2 {
			all = append(all, read{v, int16(binary.BigEndian.Uint16(value))})
		}
		return all, nil
	}
}

// framedSeed writes one of some records, in a version that can carry what it was given.
func framedSeed(all func() []records.Message) func(rng *rand.Rand) []byte {
	return func(rng *rand.Rand) []byte {
		list := all()
		return filled(rng, list[rng.IntN(len(list))], records.AppendMetadata)
	}
}

// keyedSeed writes the key and the value of one of some records, or the key alone.
func keyedSeed(all func() [][2]records.Message) func(rng *rand.Rand) []byte {
	return func(rng *rand.Rand) []byte {
		list := all()
		pair := list[rng.IntN(len(list))]
		key := filled(rng, pair[0], func(dst []byte, m records.Message, _ int16) ([]byte, error) { return records.AppendKey(dst, m) })
		p := append(binary.BigEndian.AppendUint16(nil, uint16(len(key))), key...)
		if rng.IntN(8) == 0 {
			return p
		}
		return append(p, filled(rng, pair[1], records.AppendValue)...)
	}
}

func controlSeed(rng *rand.Rand) []byte {
	which := rng.IntN(len(controls()))
	return filled(rng, controls()[which], func(dst []byte, m records.Message, version int16) ([]byte, error) {
		return m.AppendTo(append(dst, byte(which), byte(version)), version)
	})
}

// filled writes m with fields at random, in a version at random. What that version cannot carry is
// left as it is in an empty message.
func filled(rng *rand.Rand, m records.Message, write func(dst []byte, m records.Message, version int16) ([]byte, error)) []byte {
	s := m.Schema()
	version := s.MinVersion + int16(rng.IntN(int(s.MaxVersion-s.MinVersion)+1))
	full := reflect.New(reflect.TypeOf(m).Elem())
	full.Elem().Set(reflect.ValueOf(m).Elem())
	for range 8 {
		fill(rng, full.Elem(), 0)
		if p, err := write(nil, full.Interface().(records.Message), version); err == nil {
			return p
		}
	}
	p, err := write(nil, m, version)
	if err != nil {
		p, err = write(nil, m, s.MaxVersion)
	}
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return p
}

// fill gives v and what is below it values at random, of sizes that stay small.
func fill(rng *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if f.IsExported() && f.Name != "UnknownTags" && f.Name != "Version" {
				fill(rng, v.Field(i), depth+1)
			}
		}
	case reflect.Pointer:
		if rng.IntN(3) > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(rng, v.Elem(), depth+1)
		}
	case reflect.Slice:
		n := rng.IntN(4)
		if depth > 5 {
			n = 0
		}
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rng, v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i), depth+1)
		}
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rng.Int64N(5) - 1)
	case reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rng.Uint64N(100))
	case reflect.Float64:
		v.SetFloat(rng.Float64())
	case reflect.String:
		v.SetString(string(letters(rng, 6)))
	}
}
