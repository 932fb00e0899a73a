package twin

import (
	"encoding/binary"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// sized puts a frame's size before it.
func sized(frame []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(frame))), frame...)
}

// malformed sends bytes that are no request of the protocol. Both must answer, or close, alike.
func (g *generator) malformed() {
	noise := make([]byte, 1+g.r.IntN(40))
	for i := range noise {
		noise[i] = byte(g.r.IntN(256))
	}
	noise[0] = 0x70 // no API has such a key
	c := one(g, append(brokenFrames(noise, 1+g.r.IntN(8)), brokenBodies(g.live().name)...)...)
	g.steps = append(g.steps, Step{Name: fmt.Sprintf("malformed: %s", c.name), Conn: 3, Raw: func(*Side) ([]byte, []Call) { return c.raw() }})
}

// rawCase is bytes as they are, and the answers to expect.
type rawCase struct {
	name string
	raw  func() ([]byte, []Call)
}

func metadataCall(version int16, body []byte) Call {
	return Call{Frame: appendHeader(nil, 3, version, 7, nil, version >= 9, body), Key: 3, Vers: version}
}

func alone(c Call) ([]byte, []Call) { return sized(c.Frame), []Call{c} }

// brokenFrames are wrong in size or header.
func brokenFrames(noise []byte, cut int) []rawCase {
	nothing := func(p ...byte) func() ([]byte, []Call) {
		return func() ([]byte, []Call) { return p, []Call{{Frame: make([]byte, 8), Key: 3, Vers: 1}} }
	}
	return []rawCase{
		{"noise as a frame", func() ([]byte, []Call) {
			return alone(Call{Frame: append(noise, make([]byte, 8)...), Key: 3, Vers: 1})
		}},
		{"negative size", nothing(0xff, 0xff, 0xff, 0xff, 0, 0)},
		{"size of 2 GiB", nothing(0x7f, 0xff, 0xff, 0xff, 0, 0)},
		{"empty frame", nothing(0, 0, 0, 0)},
		{"header cut", func() ([]byte, []Call) {
			c := metadataCall(4, nil)
			return sized(c.Frame[:cut]), []Call{c}
		}},
	}
}

// brokenBodies have a good header.
func brokenBodies(topic string) []rawCase {
	return []rawCase{
		{"body cut", func() ([]byte, []Call) { return alone(metadataCall(5, []byte{0, 0, 0, 2, 0, 1, 'a'})) }},
		{"count of 2 billion", func() ([]byte, []Call) { return alone(metadataCall(5, []byte{0x7f, 0xff, 0xff, 0xff, 0, 1, 'a'})) }},
		{"count of -2", func() ([]byte, []Call) { return alone(metadataCall(5, []byte{0xff, 0xff, 0xff, 0xfe, 0, 0, 0})) }},
		{"bytes left over", func() ([]byte, []Call) { return alone(metadataCall(5, []byte{0, 0, 0, 0, 0, 1, 2, 3})) }},
		{"null where none may be", func() ([]byte, []Call) { return alone(metadataCall(5, []byte{0, 0, 0, 1, 0xff, 0xff, 0})) }},
		{"compact count of 2 billion", func() ([]byte, []Call) {
			return alone(metadataCall(9, []byte{0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0, 0}))
		}},
		{"endless varint", func() ([]byte, []Call) {
			return alone(metadataCall(9, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0}))
		}},
		{"unknown tag", func() ([]byte, []Call) { return alone(metadataCall(9, []byte{1, 0, 0, 0, 1, 200, 1, 2, 9, 9})) }},
		{"tag cut", func() ([]byte, []Call) { return alone(metadataCall(9, []byte{1, 0, 0, 0, 1, 5, 100, 1})) }},
		{"version too high", func() ([]byte, []Call) { return alone(metadataCall(99, []byte{0, 0, 0, 0, 0})) }},
		{"version negative", func() ([]byte, []Call) { return alone(metadataCall(-1, []byte{0, 0, 0, 0, 0})) }},
		{"client id cut", func() ([]byte, []Call) {
			f := []byte{0, 3, 0, 1, 0, 0, 0, 1, 0x40, 0, 'x'}
			return alone(Call{Frame: f, Key: 3, Vers: 1})
		}},
		{"API of the controller", func() ([]byte, []Call) {
			return alone(Call{Frame: appendHeader(nil, 62, 0, 1, nil, true, []byte{0}), Key: 62, Vers: 0})
		}},
		{"produce version 2", func() ([]byte, []Call) {
			return alone(Call{Frame: appendHeader(nil, 0, 2, 1, nil, false, []byte{0, 1, 0, 0, 3, 232, 0, 0, 0, 0}), Key: 0, Vers: 2})
		}},
		{"fetch version 3", func() ([]byte, []Call) {
			return alone(Call{Frame: appendHeader(nil, 1, 3, 1, nil, false, make([]byte, 24)), Key: 1, Vers: 3})
		}},
		{"fetch isolation level 7", func() ([]byte, []Call) {
			return alone(framed(fetchAll(topic, 7), 11))
		}},
		{"two good ones in one write", func() ([]byte, []Call) {
			a, b := metadataCall(5, []byte{0, 0, 0, 0, 0}), metadataCall(8, []byte{0, 0, 0, 0, 0, 0, 0})
			return append(sized(a.Frame), sized(b.Frame)...), []Call{a, b}
		}},
		{"good, bad, good", func() ([]byte, []Call) {
			a, b := metadataCall(5, []byte{0, 0, 0, 0, 0}), metadataCall(5, []byte{0, 0, 0})
			return append(append(sized(a.Frame), sized(b.Frame)...), sized(a.Frame)...), []Call{a, b, a}
		}},
	}
}

func framed(req kmsg.Request, version int16) Call {
	req.SetVersion(version)
	return Call{Frame: frame(req, 9, nil), Key: req.Key(), Vers: version}
}

func fetchAll(topic string, isolation int8) kmsg.Request {
	req := kmsg.NewPtrFetchRequest()
	req.MaxBytes, req.IsolationLevel = 1<<20, isolation
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.PartitionMaxBytes = 1 << 20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}
