package twin

import (
	"encoding/binary"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// comparer compares the answers of two sides to one request.
type comparer struct {
	a, b  *Side
	api   string
	loose func(topic string) bool // whose record sets the broker itself builds
	rules map[string]*Difference
	topic string // of the fetch answer being walked

	counted bool // of assigned partitions only the number is determined
}

func newComparer(a, b *Side, api string, st *Step, loose func(string) bool) *comparer {
	c := &comparer{a: a, b: b, api: api, loose: loose, counted: st.Counted, rules: map[string]*Difference{}}
	for i := range Differences {
		if d := &Differences[i]; d.API == "*" || d.API == api {
			c.rules[d.Field] = d
		}
	}
	return c
}

// String shows an answer for a report.
func (a *Answer) String() string {
	switch {
	case a.Closed:
		return "the connection was closed"
	case a.Silent:
		return "no answer"
	case a.Err != nil:
		return fmt.Sprintf("%v (body %.200x)", a.Err, a.Body)
	case a.Response == nil:
		return "nothing is sent back"
	}
	return show(reflect.ValueOf(a.Response).Elem())
}

// diff returns the place of the first difference and both values there, or "".
func (c *comparer) diff(x, y *Answer) string {
	if x.Closed != y.Closed || x.Silent != y.Silent || (x.Err == nil) != (y.Err == nil) {
		return fmt.Sprintf("%s: %s; %s: %s", c.a.Name, x, c.b.Name, y)
	}
	if x.Response == nil || x.Err != nil {
		return ""
	}
	if d := c.value("", "", reflect.ValueOf(x.Response).Elem(), reflect.ValueOf(y.Response).Elem()); d != "" {
		return d
	}
	// Both encode alike when each does as kmsg does: unknown tags, padding or tagged defaults show here.
	if x.canonical != y.canonical {
		return fmt.Sprintf("encoding: canonical at %s: %v, at %s: %v", c.a.Name, x.canonical, c.b.Name, y.canonical)
	}
	return ""
}

func (c *comparer) value(path, norm string, x, y reflect.Value) string {
	rule := c.rules[norm]
	if rule != nil {
		switch rule.How {
		case Ignored:
			return ""
		case Labelled, Recent:
			return c.equal(path, label(c.a, rule.How, x), label(c.b, rule.How, y))
		case Assigned:
			if c.counted {
				return c.equal(path, countText(countPartitions(x)), countText(countPartitions(y)))
			}
		case Encoded:
			return c.equal(path, c.assignmentText(x.Bytes()), c.assignmentText(y.Bytes()))
		case Records:
			if d := diffRecords(c.a, c.b, x.Bytes(), y.Bytes(), c.loose(c.topic)); d != "" {
				return path + ": " + d
			}
			return ""
		}
	}
	switch x.Kind() {
	case reflect.Pointer:
		if x.IsNil() || y.IsNil() {
			if x.IsNil() != y.IsNil() {
				return c.equal(path, show(x), show(y))
			}
			return ""
		}
		return c.value(path, norm, x.Elem(), y.Elem())
	case reflect.Struct:
		return c.structs(path, norm, x, y)
	case reflect.Slice:
		if x.Type().Elem().Kind() == reflect.Uint8 {
			return c.equal(path, show(x), show(y))
		}
		return c.slices(path, norm, x, y, rule)
	case reflect.String:
		return c.equal(path, c.text(c.a, x.String()), c.text(c.b, y.String()))
	}
	return c.equal(path, show(x), show(y))
}

func (c *comparer) structs(path, norm string, x, y reflect.Value) string {
	t := x.Type()
	if t == reflect.TypeFor[kmsg.DescribeConfigsResponseResourceConfig]() && ownConfigs[x.FieldByName("Name").String()] {
		return c.equal(path+".Name", show(x.FieldByName("Name")), show(y.FieldByName("Name")))
	}
	if t == reflect.TypeFor[kmsg.DescribeConfigsResponseResourceConfig]() && fixedConfigs[x.FieldByName("Name").String()] {
		return c.value(path+".Value", norm+".Value", x.FieldByName("Value"), y.FieldByName("Value"))
	}
	if t == reflect.TypeFor[kmsg.FetchResponseTopic]() {
		ft := x.Interface().(kmsg.FetchResponseTopic)
		c.topic = ft.Topic
		if c.topic == "" {
			c.topic = topicOfLabel(c.a.topicLabel(ft.TopicID))
		}
	}
	if r := c.rules[norm+".AbortedTransactions"]; r != nil && r.How == Reached {
		dropUnreached(x)
		dropUnreached(y)
	}
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Name == "UnknownTags" || f.Name == "Version" || !f.IsExported() {
			continue
		}
		if r := c.rules[norm+"."+f.Name]; r != nil && r.How == Clocked && label(c.a, Recent, x.FieldByName("Timestamp")) == "<now>" && label(c.b, Recent, y.FieldByName("Timestamp")) == "<now>" {
			continue
		}
		p, n := f.Name, f.Name
		if path != "" {
			p, n = path+"."+f.Name, norm+"."+f.Name
		}
		if d := c.value(p, n, x.Field(i), y.Field(i)); d != "" {
			return d
		}
	}
	return ""
}

// dropUnreached takes out of a partition of a fetch answer the aborted transactions that begin behind
// its records.
func dropUnreached(v reflect.Value) {
	p := v.Addr().Interface().(*kmsg.FetchResponseTopicPartition)
	end := int64(-1)
	for b, rest := nextBatch(p.RecordBatches); b != nil; b, rest = nextBatch(rest) {
		end = int64(binary.BigEndian.Uint64(b)) + int64(binary.BigEndian.Uint32(b[23:]))
	}
	p.AbortedTransactions = slices.DeleteFunc(p.AbortedTransactions, func(a kmsg.FetchResponseTopicPartitionAbortedTransaction) bool {
		return a.FirstOffset > end
	})
}

// topicOfLabel takes the name out of "<id of NAME #1>".
func topicOfLabel(label string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(label, "<id of "), " #")
	return name
}

func (c *comparer) slices(path, norm string, x, y reflect.Value, rule *Difference) string {
	if x.IsNil() != y.IsNil() {
		return c.equal(path, show(x), show(y))
	}
	xs, ys := elements(x), elements(y)
	if rule != nil && (rule.How == Unordered || rule.How == Served || rule.How == Assigned) {
		keys := strings.Fields(rule.Key)
		xs, ys = c.sorted(c.a, norm, xs, keys), c.sorted(c.b, norm, ys, keys)
		if rule.How == Served {
			xs = slices.DeleteFunc(xs, func(v reflect.Value) bool {
				return !slices.ContainsFunc(ys, func(w reflect.Value) bool {
					return c.key(c.a, norm, v, keys) == c.key(c.b, norm, w, keys)
				})
			})
		}
	}
	for i := range min(len(xs), len(ys)) {
		at := strconv.Itoa(i)
		if rule != nil && rule.Key != "" {
			at = strings.TrimSpace(c.key(c.a, norm, xs[i], strings.Fields(rule.Key)))
		}
		if d := c.value(path+"["+at+"]", norm+"[]", xs[i], ys[i]); d != "" {
			return d
		}
	}
	if len(xs) != len(ys) {
		return fmt.Sprintf("%s: %d and %d elements%s", path, len(xs), len(ys), c.unpaired(norm, xs, ys))
	}
	return ""
}

// unpaired shows the first element that only one side has.
func (c *comparer) unpaired(norm string, xs, ys []reflect.Value) string {
	if len(xs) > len(ys) {
		return fmt.Sprintf("; %s also has %s", c.a.Name, show(xs[len(ys)]))
	}
	return fmt.Sprintf("; %s also has %s", c.b.Name, show(ys[len(xs)]))
}

func (c *comparer) sorted(s *Side, norm string, vs []reflect.Value, keys []string) []reflect.Value {
	slices.SortStableFunc(vs, func(v, w reflect.Value) int {
		return strings.Compare(c.key(s, norm, v, keys), c.key(s, norm, w, keys))
	})
	return vs
}

func (c *comparer) key(s *Side, norm string, v reflect.Value, keys []string) string {
	var parts []string
	if len(keys) == 0 {
		return fmt.Sprintf("%20s", show(v))
	}
	for _, k := range keys {
		f := v.FieldByName(k)
		if f.Kind() == reflect.String {
			parts = append(parts, c.text(s, f.String()))
			continue
		}
		if r := c.rules[norm+"[]."+k]; r != nil && r.How == Labelled {
			parts = append(parts, label(s, r.How, f))
		} else {
			parts = append(parts, strings.Trim(show(f), `"`))
		}
	}
	return strings.Join(parts, " ")
}

func elements(v reflect.Value) []reflect.Value {
	vs := make([]reflect.Value, v.Len())
	for i := range vs {
		vs[i] = v.Index(i)
	}
	return vs
}

func (c *comparer) equal(path, x, y string) string {
	if x == y {
		return ""
	}
	return fmt.Sprintf("%s: %s has %s, %s has %s", path, c.a.Name, x, c.b.Name, y)
}

func label(s *Side, how How, v reflect.Value) string {
	switch {
	case how == Recent:
		if recent(v.Int()) {
			return "<now>"
		}
		return strconv.FormatInt(v.Int(), 10)
	case v.Type() == reflect.TypeFor[[16]byte]():
		return s.topicLabel(v.Interface().([16]byte))
	case v.Kind() == reflect.Int64:
		return s.producerLabel(v.Int())
	case v.Kind() == reflect.Int32:
		return s.sessionLabel(int32(v.Int()))
	}
	panic("BUG: a field of type " + v.Type().String() + " has no labels")
}

func recent(ms int64) bool {
	d := time.Since(time.UnixMilli(ms))
	return d > -2*time.Hour && d < 2*time.Hour
}

// longAgo is now minus the default of message.timestamp.before.max.ms, the largest long.
var longAgo = regexp.MustCompile(`\[-922337[0-9]{13},`)

// uuid is what is random in a member id that no answer has told yet.
var uuid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

var millis = regexp.MustCompile(`\b1[0-9]{12}\b`)

// text replaces what is the broker's own in a message: topic ids, addresses, the time.
func (c *comparer) text(s *Side, msg string) string {
	const shortest = 13 // of what is replaced
	if len(msg) < shortest {
		return msg
	}
	for id, name := range s.knownIDs() {
		msg = strings.ReplaceAll(msg, id, name)
	}
	msg = strings.ReplaceAll(msg, s.Addr, "<address>")
	msg = uuid.ReplaceAllString(msg, "<uuid>")
	msg = longAgo.ReplaceAllString(msg, "[<long ago>,")
	return millis.ReplaceAllStringFunc(msg, func(d string) string {
		ms, err := strconv.ParseInt(d, 10, 64)
		if err == nil && recent(ms) {
			return "<now>"
		}
		return d
	})
}

// show prints a value in one line; long ones are cut.
func show(v reflect.Value) string {
	var b strings.Builder
	writeValue(&b, v)
	const most = 1500
	if s := b.String(); len(s) > most {
		return s[:most] + "…"
	}
	return b.String()
}

func writeValue(b *strings.Builder, v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			b.WriteString("null")
			return
		}
		writeValue(b, v.Elem())
	case reflect.Struct:
		b.WriteByte('{')
		for i := range v.NumField() {
			f := v.Type().Field(i)
			if !f.IsExported() || f.Name == "UnknownTags" || f.Name == "Version" {
				continue
			}
			if b.Len() > 0 && !strings.HasSuffix(b.String()[max(0, b.Len()-1):], "{") {
				b.WriteByte(' ')
			}
			b.WriteString(f.Name + ":")
			writeValue(b, v.Field(i))
		}
		b.WriteByte('}')
	case reflect.Slice:
		if v.IsNil() {
			b.WriteString("null")
		} else if v.Type().Elem().Kind() == reflect.Uint8 {
			fmt.Fprintf(b, "%d bytes", v.Len())
		} else {
			b.WriteByte('[')
			for i := range v.Len() {
				if i > 0 {
					b.WriteByte(' ')
				}
				writeValue(b, v.Index(i))
			}
			b.WriteByte(']')
		}
	case reflect.Array:
		fmt.Fprintf(b, "%x", v.Interface())
	case reflect.String:
		fmt.Fprintf(b, "%q", v.String())
	default:
		fmt.Fprintf(b, "%v", v.Interface())
	}
}
