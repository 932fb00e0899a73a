package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/records"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// line is a described setting in one line: name=value source[synonyms].
func line(e *entry) string {
	show := func(v *string) string {
		if v == nil {
			return "null"
		}
		return *v
	}
	var from []string
	for _, s := range e.ConfigSynonyms {
		from = append(from, fmt.Sprintf("%s=%s:%d", s.Name, show(s.Value), s.Source))
	}
	return fmt.Sprintf("%s=%s %d[%s]", e.Name, show(e.Value), e.Source, strings.Join(from, " "))
}

func ask(kind config.ResourceType, name string, keys ...string) *kmsg.DescribeConfigsRequestResource {
	r := kmsg.NewDescribeConfigsRequestResource()
	r.ResourceType, r.ResourceName, r.ConfigNames = kmsg.ConfigResourceType(kind), name, keys
	return &r
}

// What is described is what is in force: file, then all brokers, then this broker, then the topic.
func TestDescribedValuesAreInForce(t *testing.T) {
	cfg := serverOf(t, "log.retention.hours", "2", "log.segment.bytes", "2000000", "compression.type", "lz4", "strange.key", "secret", "millrace.durability", "os")
	img := imageOf(t, slices.Concat(topicRecords("t", 1, 1, 1), []records.Message{
		configRecord(4, "", "log.segment.bytes", "3000000"), configRecord(4, "", "min.insync.replicas", "1"),
		configRecord(4, "1", "log.segment.bytes", "4000000"), configRecord(4, "", "num.partitions", "9"),
		configRecord(2, "t", "retention.ms", "5000"), configRecord(2, "t", "min.cleanable.dirty.ratio", "0.50"),
	})...)
	d := describerOf(t, cfg, img)
	for _, c := range []struct {
		kind config.ResourceType
		name string
		want string
	}{
		{2, "t", "retention.ms=5000 1[retention.ms=5000:1]"},
		{2, "t", "min.cleanable.dirty.ratio=0.5 1[min.cleanable.dirty.ratio=0.5:1 log.cleaner.min.cleanable.ratio=0.5:5]"},
		{2, "t", "segment.bytes=4000000 2[log.segment.bytes=4000000:2 log.segment.bytes=3000000:3 log.segment.bytes=2000000:4 log.segment.bytes=1073741824:5]"},
		{2, "t", "segment.ms=604800000 5[]"},
		{2, "t", "compression.type=lz4 4[compression.type=lz4:4 compression.type=producer:5]"},
		{2, "t", "min.insync.replicas=1 3[min.insync.replicas=1:3 min.insync.replicas=1:5]"},
		{4, "1", "log.segment.bytes=4000000 2[log.segment.bytes=4000000:2 log.segment.bytes=3000000:3 log.segment.bytes=2000000:4 log.segment.bytes=1073741824:5]"},
		{4, "1", "num.partitions=1 5[num.partitions=1:5]"},
		{4, "1", "log.retention.ms=null 5[]"},
		{4, "1", "log.retention.hours=2 4[log.retention.hours=2:4 log.retention.hours=168:5]"},
		{4, "1", "node.id=1 4[node.id=1:4]"},
		{4, "1", "log.dirs=/data 4[log.dirs=/data:4]"},
		{4, "1", "ssl.key.password=null 5[]"},
		{4, "1", "strange.key=null 4[strange.key=null:4]"},
		{4, "", "log.segment.bytes=3000000 3[log.segment.bytes=3000000:3]"},
		{16, "m", "interval.ms=300000 5[]"},
		{32, "g", "consumer.session.timeout.ms=45000 5[consumer.session.timeout.ms=45000:5]"},
	} {
		key, _, _ := strings.Cut(c.want, "=")
		out := d.resource(ask(c.kind, c.name, key))
		if len(out.Configs) != 1 || out.ErrorCode != 0 || *out.ErrorMessage != "" {
			t.Errorf("%s of %d %q: %+v", key, c.kind, c.name, out)
			continue
		}
		if got := line(&out.Configs[0]); got != c.want {
			t.Errorf("%d %q:\n got %s\nwant %s", c.kind, c.name, got, c.want)
		}
	}
	for _, c := range []struct {
		kind config.ResourceType
		name string
		n    int
	}{{2, "t", 33}, {4, "1", 321}, {4, "", 2}, {16, "m", 3}, {32, "g", 11}, {8, "1", 1}} {
		if out := d.resource(ask(c.kind, c.name)); len(out.Configs) != c.n {
			t.Errorf("%d %q: %d settings, want %d", c.kind, c.name, len(out.Configs), c.n)
		}
	}
}

func TestDescribedKinds(t *testing.T) {
	d := describerOf(t, serverOf(t, "strange.key", "secret"), imageOf(t, topicRecords("t", 1, 1, 1)...))
	for _, c := range []struct {
		kind                config.ResourceType
		name, key           string
		typ                 config.Type
		readOnly, sensitive bool
		doc                 bool
	}{
		{2, "t", "retention.ms", config.Long, false, false, true},
		{2, "t", "delete.retention.ms", config.Long, false, false, true},
		{2, "t", "local.retention.ms", config.Long, false, false, false},
		{4, "1", "log.retention.ms", config.Long, false, false, true},
		{4, "1", "num.partitions", config.Int, true, false, true},
		{4, "1", "ssl.key.password", config.Password, false, true, false},
		{4, "1", "strange.key", 0, true, true, false},
		{4, "1", "log.cleaner.io.buffer.load.factor", config.Double, false, false, true},
		{4, "1", "background.threads", config.Int, false, false, false},
	} {
		e := d.resource(ask(c.kind, c.name, c.key)).Configs[0]
		if e.ConfigType != kmsg.ConfigType(c.typ) || e.ReadOnly != c.readOnly || e.IsSensitive != c.sensitive || (e.Documentation != nil) != c.doc {
			t.Errorf("%s: %+v", c.key, e)
		}
		if c.sensitive && e.Value != nil {
			t.Errorf("%s: shows %q", c.key, *e.Value)
		}
	}
	d.docs, d.synonyms = false, false
	if e := d.resource(ask(2, "t", "retention.bytes")).Configs[0]; e.Documentation != nil || e.ConfigSynonyms != nil || e.Source != kmsg.ConfigSource(config.SourceDefault) {
		t.Errorf("what was not asked for: %+v", e)
	}
}

// The codes and texts are those of Kafka 4.2.
func TestDescribeConfigsRefusals(t *testing.T) {
	d := describerOf(t, serverOf(t), imageOf(t))
	for _, c := range []struct {
		kind config.ResourceType
		name string
		code wire.Code
		text string
	}{
		{2, "nope", wire.UnknownTopicOrPartition, ""},
		{2, "a/b", wire.InvalidTopicException, "Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{2, "", wire.InvalidTopicException, "Topic name is invalid: the empty string is not allowed"},
		{4, "2", wire.InvalidRequest, "Unexpected broker id, expected 1 or empty string, but received 2"},
		{4, "x", wire.InvalidRequest, "Broker id must be an integer, but it is: x"},
		{8, "", wire.InvalidRequest, "Broker id must not be empty"},
		{8, "2", wire.InvalidRequest, "Unexpected broker id, expected 1 but received 2"},
		{16, "", wire.InvalidRequest, "Client metrics subscription name must not be empty"},
		{32, "", wire.InvalidRequest, "Group name must not be empty"},
		{0, "g", wire.InvalidRequest, textInvalidRequest},
		{77, "g", wire.InvalidRequest, textInvalidRequest},
	} {
		out := d.resource(ask(c.kind, c.name))
		if wire.Code(out.ErrorCode) != c.code || *out.ErrorMessage != c.text || out.Configs != nil {
			t.Errorf("%d %q: got %d %q", c.kind, c.name, out.ErrorCode, *out.ErrorMessage)
		}
	}
}

// A resource may be given again, as with Kafka, but not so often that a small request takes all memory.
func TestDescribeConfigsOfTheSameOverAndOver(t *testing.T) {
	for _, name := range []func(i int) (config.ResourceType, string){
		func(int) (config.ResourceType, string) { return config.ResourceBroker, "1" },
		func(i int) (config.ResourceType, string) { return config.ResourceBroker, fmt.Sprintf("%0*d", i+1, 1) },
		func(int) (config.ResourceType, string) { return config.ResourceTopic, "t" },
		func(i int) (config.ResourceType, string) { return config.ResourceGroup, fmt.Sprint("g", i) },
		func(i int) (config.ResourceType, string) { return config.ResourceClientMetrics, fmt.Sprint("m", i) },
	} {
		d := describerOf(t, serverOf(t), imageOf(t, topicRecords("t", 1, 1, 1)...))
		settings, once := 0, 0
		for i := range 20_000 {
			kind, name := name(i)
			out := d.resource(ask(kind, name))
			switch wire.Code(out.ErrorCode) {
			case wire.None:
				once = len(out.Configs)
				settings += once
			case wire.InvalidRequest:
				if len(out.Configs) != 0 || i < 100 {
					t.Fatalf("%d: %d settings, %s", i, len(out.Configs), *out.ErrorMessage)
				}
			}
			if i > 500 && kind == config.ResourceBroker {
				break // their names grow
			}
		}
		if settings > maxExtraSettings+2*once {
			t.Errorf("%d settings are described", settings)
		}
	}
}
