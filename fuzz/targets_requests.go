package fuzz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace/wire"
)

// requestTargets are one for each API that is served: the frame without its size, header first, is
// decoded as the broker does.
func requestTargets() (all []*Target) {
	for _, api := range wire.Served() {
		all = append(all, &Target{
			Name:  "request-" + api.Name,
			About: fmt.Sprintf("%s requests, versions %d to %d, header and body, as the broker decodes them; what is read encodes and reads to the same again", api.Name, api.Min, api.Max),
			Seed:  func(rng *rand.Rand) []byte { return seedRequest(rng, api) },
			Fix: func(p []byte) { // so that mutation spends itself on this API
				if len(p) >= 2 {
					binary.BigEndian.PutUint16(p, uint16(api.Key))
				}
			},
			Check: func(p []byte) (string, error) { return checkRequest(api, p) },
		})
	}
	return all
}

var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID("client"))

func seedRequest(rng *rand.Rand, api wire.API) []byte {
	req := kmsg.RequestForKey(api.Key)
	version := api.Min + int16(rng.IntN(int(api.Max-api.Min)+1))
	req.SetVersion(min(version, req.MaxVersion()))
	if rng.IntN(8) > 0 {
		fill(rng, reflect.ValueOf(req).Elem(), 0)
	}
	if produce, ok := req.(*kmsg.ProduceRequest); ok {
		for i := range produce.Topics {
			for j := range produce.Topics[i].Partitions {
				produce.Topics[i].Partitions[j].Records = seedBatches(rng)
			}
		}
	}
	return formatter.AppendRequest(nil, req, int32(rng.Uint32()))[4:]
}

func checkRequest(api wire.API, frame []byte) (outcome string, err error) {
	var h wire.RequestHeader
	body, err := h.Parse(frame)
	switch {
	case err != nil:
		return "header: " + err.Error(), nil
	case len(body) > len(frame):
		return "", fmt.Errorf("a body of %d bytes in a frame of %d", len(body), len(frame))
	case h.APIKey != api.Key:
		return "another API", nil
	case !api.Has(h.APIVersion):
		return "a version that is not served", nil
	}
	version := string(rune('a' + h.APIVersion))
	switch api.Key {
	case wire.KeyProduce:
		err = checkProduce(h.APIVersion, body)
	case wire.KeyFetch:
		err = checkFetch(h.APIVersion, body)
	default:
		err = checkKmsg(h.APIKey, h.APIVersion, body)
	}
	if bad := (*refusal)(nil); errors.As(err, &bad) {
		return version + ": " + bad.Error(), nil
	}
	return version, err
}

// refusal is an error that a decoder may give.
type refusal struct{ error }

// readKmsg decodes a body by kmsg.
func readKmsg(key, version int16, body []byte) (kmsg.Request, error) {
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	if err := req.ReadFrom(body); err != nil {
		return nil, &refusal{err}
	}
	return req, nil
}

func checkKmsg(key, version int16, body []byte) error {
	req, err := readKmsg(key, version, body)
	if err != nil {
		return err
	}
	p := req.AppendTo(nil)
	again, err := readKmsg(key, version, p)
	if err != nil {
		return fmt.Errorf("version %d: what was read, %+v, is written as %x, which cannot be read: %v", version, req, p, err)
	}
	if q := again.AppendTo(nil); !bytes.Equal(p, q) {
		return fmt.Errorf("version %d: %x, then %x", version, p, q)
	}
	return nil
}

// sameAsKmsg holds what our own decoder made of a body, as a kmsg request, against what kmsg does.
func sameAsKmsg(version int16, body []byte, ours kmsg.Request) error {
	theirs, err := readKmsg(ours.Key(), version, body)
	if err != nil {
		return err // Kafka's rules are ours to keep; kmsg is stricter in places
	}
	dropTags(reflect.ValueOf(theirs).Elem())
	if fetch, ok := theirs.(*kmsg.FetchRequest); ok {
		dropEarly(fetch, version)
	}
	ours.SetVersion(version)
	if p, q := ours.AppendTo(nil), theirs.AppendTo(nil); !bytes.Equal(p, q) {
		return fmt.Errorf("version %d: ours reads %x, kmsg %x", version, p, q)
	}
	return nil
}

// dropTags removes the tags that nobody knows, which our decoder skips.
func dropTags(v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			switch f := v.Type().Field(i); {
			case f.Name == "UnknownTags":
				v.Field(i).SetZero()
			case f.IsExported():
				dropTags(v.Field(i))
			}
		}
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Struct {
			for i := range v.Len() {
				dropTags(v.Index(i))
			}
		}
	}
}

// dropEarly removes what kmsg reads of tags in versions before those that have them.
func dropEarly(req *kmsg.FetchRequest, version int16) {
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			p := &req.Topics[i].Partitions[j]
			none := kmsg.NewFetchRequestTopicPartition()
			if version < 17 {
				p.ReplicaDirectoryID = none.ReplicaDirectoryID
			}
			if version < 18 {
				p.HighWatermark = none.HighWatermark
			}
		}
	}
	if version < 15 {
		req.ReplicaState = kmsg.NewFetchRequestReplicaState()
	}
}

func ours(err error) error {
	if f := (*wire.FormatError)(nil); !errors.As(err, &f) {
		return fmt.Errorf("an error of another kind: %w", err)
	}
	return &refusal{err}
}

func checkProduce(version int16, body []byte) error {
	var got wire.ProduceRequest
	if err := got.Decode(version, body); err != nil {
		return ours(err)
	}
	req := kmsg.NewPtrProduceRequest()
	req.TransactionID, req.Acks, req.TimeoutMillis = nullable(got.TransactionalID), got.Acks, got.TimeoutMs
	for _, t := range got.Topics {
		topic := kmsg.NewProduceRequestTopic()
		topic.Topic, topic.TopicID = string(t.Name), t.ID
		for _, p := range got.Partitions[t.First : t.First+t.Count] {
			part := kmsg.NewProduceRequestTopicPartition()
			part.Partition, part.Records = p.Index, p.Records
			topic.Partitions = append(topic.Partitions, part)
		}
		req.Topics = append(req.Topics, topic)
	}
	if err := sameAsKmsg(version, body, req); err != nil {
		return err
	}
	var resp wire.ProduceResponse
	resp.Begin(&got)
	back := kmsg.NewPtrProduceResponse()
	back.Version = version
	if err := back.ReadFrom(resp.AppendTo(nil, version)); err != nil {
		return fmt.Errorf("version %d: the response cannot be read: %w", version, err)
	}
	return nil
}

func nullable(p []byte) *string {
	if p == nil {
		return nil
	}
	s := string(p)
	return &s
}

func checkFetch(version int16, body []byte) error {
	var got wire.FetchRequest
	if err := got.Decode(version, body); err != nil {
		return ours(err)
	}
	req := kmsg.NewPtrFetchRequest()
	req.ClusterID, req.Rack = nullable(got.ClusterID), string(got.RackID)
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.IsolationLevel, req.SessionID, req.SessionEpoch = got.MaxWaitMs, got.MinBytes, got.MaxBytes, got.IsolationLevel, got.SessionID, got.SessionEpoch
	if version < 15 {
		req.ReplicaID = got.ReplicaID
	} else {
		req.ReplicaState.ID, req.ReplicaState.Epoch = got.ReplicaID, got.ReplicaEpoch
	}
	for _, t := range got.Topics {
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic, topic.TopicID = string(t.Name), t.ID
		for _, p := range got.Partitions[t.First : t.First+t.Count] {
			part := kmsg.NewFetchRequestTopicPartition()
			part.Partition, part.CurrentLeaderEpoch, part.FetchOffset, part.LastFetchedEpoch = p.Index, p.CurrentLeaderEpoch, p.FetchOffset, p.LastFetchedEpoch
			part.LogStartOffset, part.PartitionMaxBytes, part.ReplicaDirectoryID, part.HighWatermark = p.LogStartOffset, p.MaxBytes, p.ReplicaDirectoryID, p.HighWatermark
			topic.Partitions = append(topic.Partitions, part)
		}
		req.Topics = append(req.Topics, topic)
	}
	want, err := readKmsg(wire.KeyFetch, version, body)
	if err != nil {
		return err
	}
	if want := want.(*kmsg.FetchRequest); version >= 7 { // ours is one row, theirs by topic: compare the rows
		if err := sameForgotten(got.Forgotten, want.ForgottenTopics); err != nil {
			return err
		}
		req.ForgottenTopics = want.ForgottenTopics
		for i := range req.ForgottenTopics {
			dropTags(reflect.ValueOf(&req.ForgottenTopics[i]).Elem())
		}
	}
	return sameAsKmsg(version, body, req)
}

func sameForgotten(got []wire.ForgottenPartition, want []kmsg.FetchRequestForgottenTopic) error {
	k := 0
	for _, f := range want {
		for _, index := range f.Partitions {
			if k >= len(got) || string(got[k].Name) != f.Topic || got[k].ID != f.TopicID || got[k].Index != index {
				return fmt.Errorf("forgotten partition %d of %d differs: kmsg reads %q %x %d", k, len(got), f.Topic, f.TopicID, index)
			}
			k++
		}
	}
	if k != len(got) {
		return fmt.Errorf("%d forgotten partitions, kmsg reads %d", len(got), k)
	}
	return nil
}
