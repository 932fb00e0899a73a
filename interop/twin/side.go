package twin

import (
	"encoding/base64"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Side is one of the two brokers as one sequence sees it: its connections, and the names that the
// sequence gave to what the broker chose itself (topic ids, producer ids, fetch sessions). A
// request is built for each side from the same draw, with that side's ids; in comparing, ids
// become their names again.
type Side struct {
	Name string
	Addr string

	links map[int]*link

	mu struct {
		sync.Mutex
		topicID   map[string][16]byte // newest id of a name
		topicName map[[16]byte]string // label of an id: name#generation
		gen       map[string]int
		producers map[string]producer // by the sequence's own label
		producer  map[int64]string
		sessions  map[string]int32
		session   map[int32]string
	}
}

type producer struct {
	id    int64
	epoch int16
}

func newSide(name, addr string) *Side {
	s := &Side{Name: name, Addr: addr, links: map[int]*link{}}
	s.mu.topicID, s.mu.topicName, s.mu.gen = map[string][16]byte{}, map[[16]byte]string{}, map[string]int{}
	s.mu.producers, s.mu.producer = map[string]producer{}, map[int64]string{}
	s.mu.sessions, s.mu.session = map[string]int32{}, map[int32]string{}
	return s
}

func (s *Side) link(n int) *link {
	l := s.links[n]
	if l == nil {
		l = &link{addr: s.Addr, correlation: int32(n) * 100_000}
		s.links[n] = l
	}
	return l
}

func (s *Side) close() {
	for _, l := range s.links {
		l.close()
	}
}

// ask sends a request that is not compared: for settling and cleaning up.
func (s *Side) ask(req kmsg.Request) (kmsg.Response, error) {
	const own = 99
	l := s.link(own)
	l.correlation++
	id := "twin"
	call := Call{Frame: frame(req, l.correlation, &id), Key: req.Key(), Vers: req.GetVersion()}
	answers, err := l.send([]Call{call}, nil)
	if err != nil {
		return nil, err
	}
	if a := answers[0]; a.Response == nil || a.Err != nil {
		return nil, fmt.Errorf("%s: %s v%d: %s", s.Name, kmsg.NameForKey(req.Key()), req.GetVersion(), a.String())
	}
	return answers[0].Response, nil
}

// TopicID returns the id that the broker gave the topic, or a fixed unknown one.
func (s *Side) TopicID(name string) [16]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, ok := s.mu.topicID[name]; ok {
		return id
	}
	return [16]byte{0: 0x7a, 6: 0x40, 8: 0x80, 15: byte(len(name))}
}

func (s *Side) learnTopic(name string, id [16]byte) {
	if id == ([16]byte{}) || name == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.topicName[id] != "" {
		return
	}
	s.mu.gen[name]++
	s.mu.topicID[name] = id
	s.mu.topicName[id] = fmt.Sprintf("<id of %s #%d>", name, s.mu.gen[name])
}

// Producer returns the id and epoch that InitProducerId gave under the label.
func (s *Side) Producer(label string) (int64, int16) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.mu.producers[label]
	if !ok {
		return -1, -1
	}
	return p.id, p.epoch
}

func (s *Side) learnProducer(label string, id int64, epoch int16) {
	if id < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.producers[label] = producer{id, epoch}
	if s.mu.producer[id] == "" {
		s.mu.producer[id] = "<producer " + label + ">"
	}
}

// Session returns the fetch session that the broker opened under the label.
func (s *Side) Session(label string) int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.sessions[label]
}

func (s *Side) learnSession(label string, id int32) {
	if id == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.session[id] != "" {
		return
	}
	s.mu.sessions[label] = id
	s.mu.session[id] = "<session " + label + ">"
}

func (s *Side) openSessions() []int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []int32
	for id := range s.mu.session {
		ids = append(ids, id)
	}
	return ids
}

func (s *Side) topicLabel(id [16]byte) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if id == ([16]byte{}) {
		return "<no id>"
	}
	if label := s.mu.topicName[id]; label != "" {
		return label
	}
	return topicIDText(id)
}

func (s *Side) producerLabel(id int64) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if label := s.mu.producer[id]; label != "" {
		return label
	}
	return fmt.Sprint(id)
}

func (s *Side) sessionLabel(id int32) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if label := s.mu.session[id]; label != "" {
		return label
	}
	return fmt.Sprint(id)
}

// knownIDs returns the text forms of the topic ids with their labels, for error messages.
func (s *Side) knownIDs() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := map[string]string{}
	for id, label := range s.mu.topicName {
		m[topicIDText(id)] = label
	}
	return m
}

func topicIDText(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// learn takes the ids that an answer tells.
func (s *Side) learn(resp kmsg.Response, label string) {
	switch r := resp.(type) {
	case *kmsg.CreateTopicsResponse:
		for _, t := range r.Topics {
			s.learnTopic(t.Topic, t.TopicID)
		}
	case *kmsg.MetadataResponse:
		for _, t := range r.Topics {
			if t.Topic != nil && t.ErrorCode == 0 {
				s.learnTopic(*t.Topic, t.TopicID)
			}
		}
	case *kmsg.InitProducerIDResponse:
		if r.ErrorCode == 0 {
			s.learnProducer(label, r.ProducerID, r.ProducerEpoch)
		}
	case *kmsg.FetchResponse:
		s.learnSession(label, r.SessionID)
	}
}
