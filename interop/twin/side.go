package twin

import (
	"encoding/base64"
	"fmt"
	"maps"
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
		former    map[string]producer // what a producer was before, by label
		sequences map[sequenceKey]int32
		repeated  sequenceAt
		sessions  map[string]int32
		session   map[int32]string
		members   map[string]*groupMember // by the sequence's own label
		memberIDs map[string]string       // labels of the ids that brokers have made
	}
}

type producer struct {
	id    int64
	epoch int16
}

// NewSide returns a side that has no connection yet; name is for messages.
func NewSide(name, addr string) *Side {
	s := &Side{Name: name, Addr: addr, links: map[int]*link{}}
	s.mu.topicID, s.mu.topicName, s.mu.gen = map[string][16]byte{}, map[[16]byte]string{}, map[string]int{}
	s.mu.producers, s.mu.producer = map[string]producer{}, map[int64]string{}
	s.mu.former, s.mu.sequences = map[string]producer{}, map[sequenceKey]int32{}
	s.mu.sessions, s.mu.session = map[string]int32{}, map[int32]string{}
	s.mu.members, s.mu.memberIDs = map[string]*groupMember{}, map[string]string{}
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

// Close closes the connections.
func (s *Side) Close() {
	for _, l := range s.links {
		l.close()
	}
}

// Ask sends a request that is not compared: for settling and cleaning up.
func (s *Side) Ask(req kmsg.Request) (kmsg.Response, error) {
	const own = 99
	l := s.link(own)
	l.correlation++
	id := "twin"
	call := Call{Frame: frame(req, l.correlation, &id), Key: req.Key(), Vers: req.GetVersion()}
	answers, err := l.send([]Call{call}, nil)
	if err != nil {
		return nil, err
	}
	if a := answers[0]; a.Err == nil && a.Response != nil {
		s.learn(a.Response, "")
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

// InitProducer asks for a producer id and keeps it under the label.
func (s *Side) InitProducer(label string) error {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.SetVersion(4)
	req.ProducerID, req.ProducerEpoch = -1, -1
	return poll("producer id of "+s.Name, func() (bool, error) {
		resp, err := s.Ask(req)
		if err != nil {
			return false, err
		}
		r := resp.(*kmsg.InitProducerIDResponse)
		if r.ErrorCode != 0 { // Kafka is fetching its first block
			return false, nil
		}
		s.learnProducer(label, r.ProducerID, r.ProducerEpoch)
		return true, nil
	})
}

// Write sends the frames of all requests at once on one connection of the side and returns the
// answers in order.
func (s *Side) Write(conn int, reqs ...kmsg.Request) ([]Answer, error) {
	l := s.link(conn)
	client := "twin"
	var calls []Call
	for _, req := range reqs {
		l.correlation++
		calls = append(calls, Call{Frame: frame(req, l.correlation, &client), Key: req.Key(), Vers: req.GetVersion()})
	}
	return l.send(calls, nil)
}

func (s *Side) learnProducer(label string, id int64, epoch int16) {
	if id < 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := producer{id, epoch}
	if was, ok := s.mu.producers[label]; ok && was != p {
		s.mu.former[label] = was
	}
	s.mu.producers[label] = p
	if s.mu.producer[id] == "" {
		s.mu.producer[id] = "<producer " + label + ">"
	}
}

// TakeProducers takes over the producer ids of another side: of the same broker before a restart.
func (s *Side) TakeProducers(from *Side) {
	from.mu.Lock()
	defer from.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	for label, p := range from.mu.producers {
		s.mu.producers[label] = p
		s.mu.producer[p.id] = from.mu.producer[p.id]
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

// knownIDs returns the text forms of topic and member ids with their labels, for error messages.
func (s *Side) knownIDs() map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := maps.Clone(s.mu.memberIDs)
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
		if r.ErrorCode == 0 && label != "" {
			s.learnProducer(label, r.ProducerID, r.ProducerEpoch)
		}
	case *kmsg.EndTxnResponse:
		if r.ErrorCode == 0 && label != "" {
			s.learnProducer(label, r.ProducerID, r.ProducerEpoch)
		}
	case *kmsg.FetchResponse:
		s.learnSession(label, r.SessionID)
	}
}
