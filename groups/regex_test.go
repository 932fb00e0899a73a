package groups

import (
	"fmt"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/records"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func matching(regex string) func(*kmsg.ConsumerGroupHeartbeatRequest) {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = &regex }
}

// joinMatching joins with a regular expression and nothing else.
func (w *consumerWorld) joinMatching(member, regex string) string {
	w.t.Helper()
	return w.beat(member, 0, asNew(), matching(regex), func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = nil })
}

// searched lets what is due be searched for, and gives what was written of regular expressions.
func (w *consumerWorld) searched() string {
	w.t.Helper()
	w.wrote = nil
	w.advance(0)
	var out []string
	for _, r := range w.wrote {
		if k, ok := r.Key.(*records.ConsumerGroupRegularExpressionKey); ok {
			v := r.Value.(*records.ConsumerGroupRegularExpressionValue)
			out = append(out, fmt.Sprint(k.RegularExpression, v.Topics))
		}
	}
	return strings.Join(out, " ")
}

// A regular expression is answered with nothing; what it matches comes with a later heartbeat.
func TestRegexIsResolvedAfterTheHeartbeat(t *testing.T) {
	w := newConsumerWorld(t, "foo:2", "foobar:1", "xfoo:1", "bar:1")
	w.is(w.joinMatching("a", "foo|bar"), "a@1 {}")
	w.is(w.types(), "5 3 7 6 8")
	w.is(w.searched(), "foo|bar[bar foo]")
	w.is(w.types(), "16 3")
	w.is(w.beat("a", 1), "a@2 {bar[0] foo[0 1]}")
	r := w.group("g").resolved["foo|bar"]
	if r.version != w.img.Offset()-1 || r.timestampMs != w.now {
		t.Errorf("resolved at %d of version %d, want %d of %d", r.timestampMs, r.version, w.now, w.img.Offset()-1)
	}

	// Who has the same expression finds it resolved.
	w.is(w.joinMatching("b", "foo|bar"), "b@3 {}")
	w.is(w.searched(), "")
	w.is(w.beat("a", 2), "a@2 {bar[0] foo[0]}")
	w.restart()
	w.is(w.beat("a", 2, having("bar:0", "foo:0")), "a@3")
	w.is(w.beat("b", 3), "b@3 {foo[1]}")
}

func TestRegexMatchesWholeNames(t *testing.T) {
	w := newConsumerWorld(t, "foo:1", "foobar:1", "a.b:1", "FOO:1", "aab:1", "__x:1")
	for _, c := range []struct{ regex, want string }{
		{"foo", "[foo]"},
		{"foo|foobar", "[foo foobar]"},
		{"fo+.*", "[foo foobar]"},
		{"(?i)foo", "[FOO foo]"},
		{"a*?b", "[aab]"}, // the shortest match is not the whole, another is
		{`a\.b`, "[a.b]"},
		{`\Qa.b`, "[a.b]"},
		{"^foo$", "[foo]"},
		{".*", "[FOO __x a.b aab foo foobar]"},
		{"nothing", "[]"},
		{"(", "[]"},
	} {
		if got := fmt.Sprint(w.m.matches.of(w.img, c.regex)); got != c.want {
			t.Errorf("%s matches %s, want %s", c.regex, got, c.want)
		}
	}
}

// The texts are those of the RE2 that Kafka uses.
func TestInvalidRegexIsRefused(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	for regex, text := range map[string]string{
		"[a-":    "missing closing ]",
		"(":      "missing closing )",
		"a)(b":   "regexp/syntax: internal error",
		"*a":     "missing argument to repetition operator",
		"a**":    "invalid nested repetition operator",
		`\`:      "trailing backslash at end of expression",
		"a{2,1}": "invalid repeat count",
		"[z-a]":  "invalid character class range",
		"(?<":    "invalid or unsupported Perl syntax",
		`\y`:     "invalid escape sequence",
	} {
		w.is(w.joinMatching("a", regex), "INVALID_REGULAR_EXPRESSION: SubscribedTopicRegex `"+regex+"` is not a valid regular expression: "+text+".")
	}
	if len(w.log) > 0 || w.m.groups["g"] != nil {
		t.Error("a refused join left something behind")
	}
	w.is(w.joinMatching("a", "f.*"), "a@1 {}")
	w.searched()
	w.is(w.beat("a", 1), "a@2 {foo[0 1]}")
	w.is(w.beat("a", 2, matching("["))[:26], "INVALID_REGULAR_EXPRESSION")
	w.is(w.beat("a", 2), "a@2")
}

// New topics are searched for at the next heartbeat, but a group not oftener than every ten seconds; without any, when the
// interval has passed. Topics that go leave the assignment at once and the resolved set with the next search.
func TestRegexFollowsTopics(t *testing.T) {
	w := newConsumerWorld(t, "foo1:1")
	w.is(w.joinMatching("a", "foo.*"), "a@1 {}")
	w.is(w.searched(), "foo.*[foo1]")
	w.is(w.beat("a", 1), "a@2 {foo1[0]}")
	w.topic("foo2:1")
	w.is(w.beat("a", 2), "a@2")
	w.is(w.searched(), "")
	w.advance(10_000)
	w.is(w.beat("a", 2), "a@2")
	w.is(w.searched(), "")
	w.advance(1)
	w.is(w.beat("a", 2), "a@2")
	w.is(w.searched(), "foo.*[foo1 foo2]")
	w.is(w.beat("a", 2), "a@3 {foo1[0] foo2[0]}")

	w.advance(20_000)
	w.topic("foo2:2") // more partitions are no new topic, and need no search
	w.is(w.beat("a", 3), "a@4 {foo1[0] foo2[0 1]}")
	w.is(w.searched(), "")
	w.deleteTopic("foo1")
	w.is(w.beat("a", 4), "a@4 {foo2[0 1]}")
	w.is(w.beat("a", 4, having("foo2:0,1")), "a@5")
	w.is(w.searched(), "")

	left := w.cfg.Consumer.RegexRefreshIntervalMs - 20_000
	for ; left > 0; left -= 30_000 {
		w.advance(min(left, 30_000))
		w.beat("a", 5)
		w.is(w.searched(), "")
	}
	w.advance(1)
	w.is(w.beat("a", 5), "a@5")
	w.is(w.searched(), "foo.*[foo2]")
	w.is(w.beat("a", 5), "a@6") // as in Kafka: what matched is something else, though nothing is to be assigned anew
}

// A search follows a load too: topics may have come meanwhile.
func TestRegexIsSearchedAfterALoad(t *testing.T) {
	w := newConsumerWorld(t, "foo1:1")
	w.joinMatching("a", "foo.*")
	w.searched()
	w.is(w.beat("a", 1), "a@2 {foo1[0]}")
	w.topic("foo2:1")
	w.restart()
	w.advance(10_001)
	w.is(w.beat("a", 2), "a@2")
	w.is(w.searched(), "foo.*[foo1 foo2]")
	w.is(w.beat("a", 2), "a@3 {foo1[0] foo2[0]}")
}

// A clock that was set back keeps nothing from being searched for.
func TestRegexAfterTheClockWasSetBack(t *testing.T) {
	w := newConsumerWorld(t, "foo:1", "bar:1")
	w.now = 3_600_000
	w.joinMatching("a", "f.*")
	w.is(w.searched(), "f.*[foo]")
	w.now = 0
	w.joinMatching("b", "b.*")
	w.is(w.searched(), "b.*[bar] f.*[foo]")
	w.advance(1000)
	w.beat("b", w.group("g").members["b"].epoch)
	w.is(w.searched(), "")
}

// What nobody subscribes to any longer is forgotten: by a change, a leave, and the end of a session.
func TestRegexIsForgotten(t *testing.T) {
	w := newConsumerWorld(t, "foo:2", "bar:2")
	w.joinMatching("a", "f.*")
	w.searched()
	w.is(w.beat("a", 1), "a@2 {foo[0 1]}")
	w.is(w.joinMatching("b", "f.*"), "b@3 {}")
	w.is(w.beat("a", 2, matching("b.*")), "a@2 {}") // what it does not want it gives up before anything else is found
	w.is(w.searched(), "")                          // the group was searched for just now
	w.is(w.beat("a", 2, having()), "a@3")
	w.is(w.beat("b", 3), "b@3 {foo[1]}")
	w.advance(10_001)
	w.is(w.beat("a", 3), "a@3")
	w.is(w.searched(), "b.*[bar] f.*[foo]")
	w.is(w.beat("a", 3), "a@4 {bar[0 1]}")
	w.is(w.beat("b", 3), "b@4 {foo[0 1]}")

	w.is(w.beat("b", 4, matching(""), subscribing("bar")), "b@4 {}")
	w.is(w.types(), "5 16- 3 7 7 6 8")
	w.is(fmt.Sprint(len(w.group("g").resolved), w.group("g").regexes), "1 map[b.*:1]")
	w.advance(45_001)
	w.is(fmt.Sprint(len(w.group("g").resolved), w.group("g").regexes, w.group("g").topics), "0 map[] map[]")
}

// A search that comes after its group, or its subscription, has gone writes nothing about it.
func TestRegexSearchComesTooLate(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	w.joinMatching("a", "f.*")
	w.is(w.beat("a", -1), "a@-1")
	w.is(w.searched(), "")
	delete(w.m.groups, "g")
	if d := w.m.resolveRegexes("g"); len(d.records) > 0 {
		t.Errorf("%v", d.records)
	}
}

func TestMatchesAreKeptForTheImage(t *testing.T) {
	w := newConsumerWorld(t, "foo:2")
	var m topicMatches
	m.of(w.img, "f.*")
	first := m.newest
	w.topic("foo:3")
	if m.of(w.img, "f.*"); m.newest != first || len(m.byName) != 1 {
		t.Errorf("more partitions: newest %d, was %d, %d kept", m.newest, first, len(m.byName))
	}
	w.topic("fob:1")
	if got := fmt.Sprint(m.of(w.img, "f.*")); got != "[fob foo]" || m.newest <= first {
		t.Errorf("a new topic: %s, newest %d, was %d", got, m.newest, first)
	}
	first = m.newest
	w.deleteTopic("foo")
	if got := fmt.Sprint(m.of(w.img, "f.*")); got != "[fob]" || m.newest != first {
		t.Errorf("a topic less: %s, newest %d, was %d", got, m.newest, first)
	}
	for i := range 3 * maxMatches {
		m.of(w.img, fmt.Sprint("x", i))
	}
	if len(m.byName) > maxMatches {
		t.Errorf("%d kept", len(m.byName))
	}
}
