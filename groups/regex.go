package groups

import (
	"errors"
	"maps"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"

	"github.com/millrace-project/millrace/coordinator"
	"github.com/millrace-project/millrace/metadata"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
)

// Members of a KIP-848 group may subscribe to a regular expression (RE2) instead of names. What it matches is found out
// apart from the heartbeat that brings it: the topics are written down for the group, whose epoch rises, and members get
// theirs by later heartbeats. All of a group's are matched together, so that it rebalances once.

// regexPauseMs is the least time between two searches of a group.
const regexPauseMs = 10_000

// applyConsumerGroupRegularExpression takes what a regular expression of a group matches.
func (m *Machine) applyConsumerGroupRegularExpression(k *records.ConsumerGroupRegularExpressionKey, v *records.ConsumerGroupRegularExpressionValue) {
	g := m.persistedConsumerGroup(k.GroupID, v != nil)
	switch {
	case g == nil:
	case v == nil:
		g.setRegex(k.RegularExpression, nil)
	default:
		g.setRegex(k.RegularExpression, &resolvedRegex{topics: sortedSet(v.Topics), version: v.Version, timestampMs: v.Timestamp})
	}
}

// updateRegexes follows a change of the member's regular expression, and lets those of the group be searched for if they
// are new, topics have come since, or the last time is long ago.
func (c *consumerChange) updateRegexes() (regexChange, error) {
	change, isNew := regexUnchanged, false
	if !equalString(c.old.regex, c.member.regex) {
		change = regexChanged
		old, regex := c.old.pattern(), c.member.pattern()
		if old != "" && c.g.regexes[old] == 1 {
			c.records = append(c.records, regexTombstone(c.g.groupID, old))
		}
		switch {
		case regex == "":
			if old != "" {
				change = regexChangedResolved
			}
		case c.g.regexes[regex] == 0:
			if err := checkRegex(regex); err != nil {
				return regexUnchanged, err
			}
			isNew = true
		case c.g.resolved[regex] != nil:
			change = regexChangedResolved
		}
	}
	if isNew || len(c.g.regexes) > 0 {
		c.maybeResolve(isNew)
	}
	return change, nil
}

// maybeResolve has the group's regular expressions searched for, right after this heartbeat, if that is due.
func (c *consumerChange) maybeResolve(isNew bool) {
	m, group, nowMs := c.m, c.g.groupID, c.m.nowMs()
	key := regexTimer(group)
	lastMs, version := c.g.lastResolved()
	if lastMs > nowMs { // the clock was set back: it may be long ago
		lastMs = math.MinInt64
	}
	if m.timers.Has(key) || lastMs != math.MinInt64 && nowMs <= lastMs+regexPauseMs {
		return
	}
	regexes := c.g.regexesAfter(c.old, c.member)
	m.matches.see(c.image)
	due := isNew || len(regexes) != len(c.g.resolved) || version < m.matches.newest ||
		lastMs == math.MinInt64 || nowMs > lastMs+m.cfg.Consumer.RegexRefreshIntervalMs
	if due && len(regexes) > 0 {
		m.timers.Set(key, 0, func() coordinator.Op[Record] {
			return m.op(group, func() decision { return m.resolveRegexes(group) })
		})
	}
}

func regexTimer(group string) coordinator.TimerKey {
	return coordinator.TimerKey{Group: group, Name: "regex"}
}

// lastResolved gives when the group's regular expressions were searched for, and in which image; before all time if none
// was.
func (g *consumerGroup) lastResolved() (timestampMs, version int64) {
	timestampMs = math.MinInt64
	for _, r := range g.resolved { // as a rule all are of one search
		if r.timestampMs > timestampMs {
			timestampMs, version = r.timestampMs, r.version
		}
	}
	return timestampMs, version
}

// resolveRegexes writes down what the group's regular expressions match. Its epoch rises if that is something else.
func (m *Machine) resolveRegexes(group string) decision {
	g, ok := m.groups[group].(*consumerGroup)
	if !ok {
		return decision{}
	}
	var d decision
	image, nowMs := m.image(), m.nowMs()
	topics, changed := maps.Clone(g.topics), false
	for _, regex := range slices.Sorted(maps.Keys(g.regexes)) {
		found := &resolvedRegex{topics: m.matches.of(image, regex), version: image.Offset() - 1, timestampMs: nowMs}
		var before []string
		if old := g.resolved[regex]; old != nil {
			before = old.topics
		}
		if !slices.Equal(before, found.topics) {
			changed = true
			for _, name := range before {
				addSubscribers(topics, name, 0, -1)
			}
			for _, name := range found.topics {
				addSubscribers(topics, name, 0, 1)
			}
		}
		d.records = append(d.records, regexRecord(group, regex, found))
	}
	if hash := m.metadataHash(image, topics); changed || hash != g.metadataHash {
		d.records = append(d.records, groupEpochRecord(group, g.epoch+1, hash))
	}
	return d
}

// checkRegex refuses what is no regular expression.
func checkRegex(regex string) error {
	if _, err := regexp.Compile(regex); err != nil {
		text := err.Error()
		var bad *syntax.Error
		if errors.As(err, &bad) {
			text = bad.Code.String()
		}
		if bad != nil && bad.Code == syntax.ErrUnexpectedParen {
			text = "regexp/syntax: internal error" // so says the RE2 for Java, which Kafka's message quotes
		}
		return refuse(wire.InvalidRegularExpression, "SubscribedTopicRegex `%s` is not a valid regular expression: %s.", regex, text)
	}
	return nil
}

// maxMatches bounds what topicMatches keeps.
const maxMatches = 1000

// topicMatches keeps what regular expressions match in the image that was last looked at: groups often have the same.
// The zero value is ready.
type topicMatches struct {
	image  *metadata.Image
	newest int64 // version of the last image that had a topic which those before had not
	byName map[string][]string
}

// see makes the matches those of the image. The first one counts as one with new topics.
func (t *topicMatches) see(image *metadata.Image) {
	if t.image == image {
		return
	}
	if t.image == nil || image.HasTopicsBeyond(t.image) {
		t.newest = image.Offset() - 1
		t.byName = map[string][]string{}
	} else if t.image.HasTopicsBeyond(image) {
		t.byName = map[string][]string{}
	}
	t.image = image
}

// of gives the topics of the image that a regular expression matches as a whole, ascending. One that does not compile
// (a log that another release wrote) matches none.
func (t *topicMatches) of(image *metadata.Image, regex string) []string {
	t.see(image)
	if names, ok := t.byName[regex]; ok {
		return names
	}
	names := []string{}
	if re, err := regexp.Compile(regex); err == nil {
		re.Longest() // the longest match from the left is the whole name, if any match is
		for topic := range image.Topics() {
			if at := re.FindStringIndex(topic.Name); at != nil && at[0] == 0 && at[1] == len(topic.Name) {
				names = append(names, topic.Name)
			}
		}
	}
	if len(t.byName) >= maxMatches {
		clear(t.byName)
	}
	t.byName[regex] = names
	return names
}
