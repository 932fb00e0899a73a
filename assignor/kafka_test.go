package assignor

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// testdata/kafka-targets.txt is what Kafka 4.2's own assignors made of random groups (testdata/Targets.java writes it):
// without racks ours make the same, but for ties that the history of Kafka's hash maps decides.
func TestTargetsAreKafkas(t *testing.T) {
	file := "testdata/kafka-targets.txt"
	if other := os.Getenv("KAFKA_TARGETS"); other != "" {
		file = other
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var c *kafkaCase
	cases, ties, wrong := 0, 0, 0
	check := func() {
		if c == nil {
			return
		}
		cases++
		err := c.check()
		switch {
		case err == nil:
		case c.history():
			ties++
		default:
			wrong++
			t.Errorf("case %d at line %d: %v", cases, c.line, err)
		}
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for n := 1; lines.Scan(); n++ {
		w := strings.Fields(lines.Text())
		if w[0] == "case" {
			check()
			c = newKafkaCase(n, w)
			continue
		}
		c.read(w)
	}
	check()
	t.Logf("%d cases, %d differ by history", cases, ties)
	if cases < 300 || ties*20 > cases {
		t.Errorf("%d cases, %d differ by history, %d otherwise", cases, ties, wrong)
	}
}

type kafkaCase struct {
	line   int
	by     Assignor
	spec   Spec
	topics [][16]byte
	target map[string]string
}

func newKafkaCase(line int, w []string) *kafkaCase {
	by, _ := ByName(w[1])
	c := &kafkaCase{line: line, by: by, target: map[string]string{}, spec: Spec{Topics: map[[16]byte]Topic{}, Homogeneous: w[2] == "same"}}
	if w[3] != "-" {
		c.spec.Newest = w[3]
	}
	return c
}

func (c *kafkaCase) read(w []string) {
	switch w[0] {
	case "topic":
		var id [16]byte
		hex.Decode(id[:], []byte(w[1]))
		c.topics = append(c.topics, id)
		n, _ := strconv.Atoi(w[2])
		c.spec.Topics[id] = Topic{ID: id, Partitions: int32(n)}
	case "member":
		m := Member{ID: w[1], Topics: map[[16]byte]struct{}{}, Current: Assignment{}}
		if w[2] != "-" {
			m.InstanceID = w[2]
		}
		for _, i := range strings.Split(w[3], ",") {
			n, _ := strconv.Atoi(i)
			m.Topics[c.topics[n]] = struct{}{}
		}
		if w[4] != "-" {
			for _, part := range strings.Split(w[4], ";") {
				topic, parts, _ := strings.Cut(part, ":")
				n, _ := strconv.Atoi(topic)
				for _, p := range strings.Split(parts, ",") {
					v, _ := strconv.Atoi(p)
					m.Current[c.topics[n]] = append(m.Current[c.topics[n]], int32(v))
				}
			}
		}
		c.spec.Members = append(c.spec.Members, m)
	case "target":
		c.target[w[1]] = w[2]
	}
}

func (c *kafkaCase) check() error {
	slices.SortFunc(c.spec.Members, func(a, b Member) int { return strings.Compare(a.ID, b.ID) })
	got, err := c.by.Assign(&c.spec)
	if err != nil {
		return err
	}
	if len(got) != len(c.target) {
		return fmt.Errorf("%d members have a target, want %d", len(got), len(c.target))
	}
	for id, want := range c.target {
		if text := assignmentText(c.topics, got[id]); text != want {
			return fmt.Errorf("%s has %s, Kafka gives %s", id, text, want)
		}
	}
	return nil
}

// history says whether two members, topics or partitions share a bucket, so that who was put there first decides.
func (c *kafkaCase) history() bool {
	shared := func(buckets []int) bool {
		slices.Sort(buckets)
		return len(slices.Compact(slices.Clone(buckets))) < len(buckets)
	}
	var members, topics []int
	for _, m := range c.spec.Members {
		members = append(members, bucket(stringHash(m.ID), grown(len(c.spec.Members))))
		for _, parts := range m.Current {
			var in []int
			for _, p := range parts {
				in = append(in, bucket(uint32(p), copied(len(parts))))
			}
			if shared(in) {
				return true
			}
		}
	}
	for _, id := range c.topics {
		topics = append(topics, bucket(idHash(id), 16))
	}
	return shared(members) || shared(topics)
}

func assignmentText(topics [][16]byte, a Assignment) string {
	var out []string
	for i, id := range topics {
		if len(a[id]) > 0 {
			out = append(out, fmt.Sprintf("%d:%s", i, strings.Trim(strings.ReplaceAll(fmt.Sprint(a[id]), " ", ","), "[]")))
		}
	}
	if out == nil {
		return "-"
	}
	return strings.Join(out, ";")
}

// A set whose partitions go beyond its buckets begins anew at the first.
func TestOrderOfASet(t *testing.T) {
	var parts []int32
	for p := range int32(34) {
		parts = append(parts, 3*p)
	}
	if got := inSetOrder(parts); !slices.Equal(got[:7], []int32{0, 66, 3, 69, 6, 72, 9}) || len(got) != 34 {
		t.Errorf("%v", got)
	}
	if got := inSetOrder(parts[:12]); !slices.Equal(got[:4], []int32{0, 33, 3, 6}) {
		t.Errorf("%v", got)
	}
}
