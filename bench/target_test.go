package bench

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParseTarget(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Target
	}{
		{"a=example.org:9092", Target{Name: "a", Addr: "example.org:9092"}},
		{"kafka-4.2=[2001:db8::1]:1,pid=12,dir=/data/x", Target{Name: "kafka-4.2", Addr: "[2001:db8::1]:1", PID: 12, Dir: "/data/x"}},
	} {
		// 2001:db8::/32 and example.org are nobody's here, so that no pid is found.
		if got, err := ParseTarget(c.in); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v %v, want %+v", c.in, got, err, c.want)
		}
	}
	for _, in := range []string{
		"", "localhost:9092", "=localhost:9092", "a b=localhost:9092", "a/b=localhost:9092", "a=localhost", "a=:9092", "a=localhost:0",
		"a=localhost:x", "a=localhost:65536", "a=localhost:1,pid=0", "a=localhost:1,pid=x", "a=localhost:1,dir=", "a=localhost:1,what=2",
	} {
		if got, err := ParseTarget(in); err == nil || !strings.Contains(err.Error(), "want NAME=HOST:PORT") {
			t.Errorf("%q: %+v %v", in, got, err)
		}
	}
}

func TestParseSpawn(t *testing.T) {
	for in, want := range map[string]Spawn{
		"millrace":                  {Name: "millrace", Kind: "millrace"},
		"limit-plain":               {Name: "limit-plain", Kind: "limit-plain"},
		"old=./bin/millrace":        {Name: "old", Kind: "./bin/millrace"},
		"/tmp/millrace-2":           {Name: "millrace-2", Kind: "/tmp/millrace-2"},
		"k=kafka:topic.a=1:b.c=2=3": {Name: "k", Kind: "kafka", Settings: []string{"b.c=2=3"}, Configs: map[string]string{"a": "1"}},
	} {
		got, err := ParseSpawn(in)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v %v, want %+v", in, got, err, want)
		}
		if again, err := ParseSpawn(got.String()); err != nil || !reflect.DeepEqual(again, got) {
			t.Errorf("%s: its String %s is read as %+v (%v)", in, got, again, err)
		}
	}
	for in, want := range map[string]string{
		"":                "no name",
		"redpanda":        "nothing here starts",
		"nats":            "nothing here starts",
		"x=":              "nothing here starts",
		"a b=kafka":       "a name of letters",
		"kafka:topic":     "KEY=VALUE",
		"kafka:=1":        "KEY=VALUE",
		"limit:a=1":       "no settings",
		"limit:topic.a=1": "no settings",
	} {
		if got, err := ParseSpawn(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %+v %v, want %q", in, got, err, want)
		}
	}
	// Peers that do not speak Kafka's protocol are none that can be measured.
	if kinds := Kinds(); !slices.Contains(kinds, "kafka") || slices.Contains(kinds, "nats") {
		t.Errorf("kinds %v", kinds)
	}
}
