package main

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"
)

// jsonRecord is a record as `consume --json` prints it and `produce --json` reads it. Bytes
// that are not UTF-8 travel as base64 in the …Base64 twin of their field; a missing key or
// value is null.
type jsonRecord struct {
	Topic       string       `json:"topic,omitempty"`
	Partition   *int32       `json:"partition,omitempty"`
	Offset      *int64       `json:"offset,omitempty"`
	Timestamp   *int64       `json:"timestamp,omitempty"` // milliseconds since 1970
	LeaderEpoch *int32       `json:"leaderEpoch,omitempty"`
	Key         *string      `json:"key,omitempty"`
	KeyBase64   string       `json:"keyBase64,omitempty"`
	Value       *string      `json:"value,omitempty"`
	ValueBase64 string       `json:"valueBase64,omitempty"`
	Headers     []jsonHeader `json:"headers,omitempty"`
}

type jsonHeader struct {
	Key         string  `json:"key"`
	Value       *string `json:"value,omitempty"`
	ValueBase64 string  `json:"valueBase64,omitempty"`
}

// text gives bytes their JSON form: null, a string, or base64 where they are not UTF-8.
func text(p []byte) (s *string, b64 string) {
	switch {
	case p == nil:
		return nil, ""
	case utf8.Valid(p):
		v := string(p)
		return &v, ""
	}
	return nil, base64.StdEncoding.EncodeToString(p)
}

func bytesOf(field string, s *string, b64 string) ([]byte, error) {
	switch {
	case s != nil && b64 != "":
		return nil, fmt.Errorf("%s and %sBase64 are both given", field, field)
	case s != nil:
		return []byte(*s), nil
	case b64 != "":
		p, err := base64.StdEncoding.DecodeString(b64)
		if err != nil {
			return nil, fmt.Errorf("%sBase64: %w", field, err)
		}
		return p, nil
	}
	return nil, nil
}

func appendJSONRecord(dst []byte, r *kgo.Record) ([]byte, error) {
	ms := r.Timestamp.UnixMilli()
	j := jsonRecord{Topic: r.Topic, Partition: &r.Partition, Offset: &r.Offset, Timestamp: &ms, LeaderEpoch: &r.LeaderEpoch}
	j.Key, j.KeyBase64 = text(r.Key)
	j.Value, j.ValueBase64 = text(r.Value)
	for _, h := range r.Headers {
		jh := jsonHeader{Key: h.Key}
		jh.Value, jh.ValueBase64 = text(h.Value)
		j.Headers = append(j.Headers, jh)
	}
	line, err := json.Marshal(&j)
	if err != nil {
		return dst, err
	}
	return append(append(dst, line...), '\n'), nil
}
