package broker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/millrace-project/millrace/config"
	"github.com/millrace-project/millrace/wire"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// change makes an incremental change from name, op, value, …; "\x00" is a null value.
func change(kind config.ResourceType, name string, settings ...string) *kmsg.IncrementalAlterConfigsRequestResource {
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(kind), name
	for i := 0; i < len(settings); i += 3 {
		s := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		s.Name, s.Op = settings[i], kmsg.IncrementalAlterConfigOp(settings[i+1][0]-'0')
		if settings[i+2] != "\x00" {
			s.Value = &settings[i+2]
		}
		r.Configs = append(r.Configs, s)
	}
	return &r
}

func alterationOf(t *testing.T) alteration {
	t.Helper()
	cfg := serverOf(t)
	img := imageOf(t, configRecord(4, "1", "log.cleanup.policy", "compact"))
	return alteration{cfg: cfg, img: img, layers: layersOf(cfg, img)}
}

// The codes and texts are those of Kafka 4.2.
func TestIncrementalChangesOfABroker(t *testing.T) {
	const forwarded = "(forwarded)"
	a := alterationOf(t)
	for _, c := range []struct {
		r    *kmsg.IncrementalAlterConfigsRequestResource
		code wire.Code
		text string
	}{
		{change(4, "1", "num.partitions", "0", "5"), 42, "Cannot update these configs dynamically: Set(num.partitions)"},
		{change(4, "", "ssl.client.auth", "0", "none"), 42, "Cannot update these configs at default cluster level, broker id must be specified: Set(ssl.client.auth)"},
		{change(4, "1", "log.retention.bytes", "0", "x"), 42, "Invalid value x for configuration log.retention.bytes: Not a number of type LONG"},
		{change(4, "1", "no.such", "0", "0"), 0, forwarded},
		{change(4, "1", "no.such", "2", "0"), -1, ""},
		{change(4, "1", "log.retention.bytes", "2", "0"), 40, "Config value append is not allowed for config key: log.retention.bytes"},
		{change(4, "1", "log.retention.bytes", "3", "0"), 40, "Config value subtract is not allowed for config key: log.retention.bytes"},
		{change(4, "1", "log.cleanup.policy", "2", "delete"), 0, forwarded},
		{change(4, "1", "log.cleanup.policy", "2", "nonsense"), 42, "Invalid value nonsense for configuration log.cleanup.policy: String must be one of: compact, delete"},
		{change(4, "1", "log.cleanup.policy", "9", "compact"), 42, "Unknown operations type 9"},
		{change(4, "2", "log.cleanup.policy", "0", "compact"), 42, "Unexpected broker id, expected 1, but received 2"},
		{change(4, "x", "log.cleanup.policy", "0", "compact"), 42, "Node id must be an integer, but it is: x"},
		{change(4, "1", "log.cleanup.policy", "0", "\x00"), 42, "Null value not supported for : log.cleanup.policy"},
		{change(4, "1", "log.cleanup.policy", "1", "\x00"), 0, forwarded},
		{change(4, "1", "a", "0", "1", "a", "0", "1"), 42, "Error due to duplicate config keys"},
		{change(2, "t", "retention.ms", "0", "\x00"), 42, "Null value not supported for : retention.ms"},
		{change(2, "t", "retention.ms", "0", "5"), 0, forwarded},
		{change(16, "t", "interval.ms", "0", "5"), 0, forwarded},
		{change(32, "t", "x", "0", "5"), 0, forwarded},
		{change(0, "x", "a", "0", "1"), 42, "Unknown resource type 0"},
		{change(8, "1", "no.logger", "0", "TRACE"), 40, "Logger no.logger does not exist!"},
		{change(8, "1", "root", "0", "LOUD"), 40, "Cannot set the log level of root to LOUD as it is not a supported log level. Valid log levels are DEBUG, ERROR, FATAL, INFO, TRACE, WARN"},
		{change(8, "1", "root", "1", "\x00"), 42, "Removing the log level of the root logger is not allowed"},
		{change(8, "1", "root", "2", "x"), 42, "APPEND operation is not allowed for the BROKER_LOGGER resource"},
		{change(8, "2", "root", "0", "INFO"), 42, "Unexpected node id. Expected 1, but received 2"},
		{change(8, "", "root", "0", "INFO"), 42, "Node id must be an integer, but it is: "},
		{change(8, "1", "root", "0", "WARN"), 42, "The log level of this broker is chosen when it starts and cannot be changed while it runs."},
		{change(8, "1"), 0, ""},
	} {
		got := a.incremental(c.r, false)
		if got == nil {
			got = &refusal{0, forwarded}
		}
		if got.code != c.code || got.text != c.text {
			t.Errorf("%v %q %v:\n got %d %s\nwant %d %s", c.r.ResourceType, c.r.ResourceName, c.r.Configs, got.code, got.text, c.code, c.text)
		}
	}
	if got := a.incremental(change(2, "t"), true); got == nil || got.text != "Each resource must appear at most once." {
		t.Errorf("twice: %+v", got)
	}
}

func TestLegacyChangesOfABroker(t *testing.T) {
	a := alterationOf(t)
	for _, c := range []struct {
		kind       config.ResourceType
		name, sets string
		code       wire.Code
		text       string
	}{
		{4, "1", "num.partitions=5", 42, "Cannot update these configs dynamically: Set(num.partitions)"},
		{2, "t", "retention.ms", 42, "Null value not supported for : retention.ms"},
		{2, "t", "a=1 a=2", 42, "Error due to duplicate config keys"},
		{8, "1", "root=INFO", 42, "Unknown resource type 8"},
		{2, "t", "retention.ms=5", 0, ""},
		{4, "", "log.retention.ms=5", 0, ""},
	} {
		r := kmsg.NewAlterConfigsRequestResource()
		r.ResourceType, r.ResourceName = kmsg.ConfigResourceType(c.kind), c.name
		for _, kv := range strings.Fields(c.sets) {
			s := kmsg.NewAlterConfigsRequestResourceConfig()
			name, value, ok := strings.Cut(kv, "=")
			s.Name = name
			if ok {
				s.Value = &value
			}
			r.Configs = append(r.Configs, s)
		}
		got := a.legacy(&r, false)
		if got == nil {
			got = &refusal{}
		}
		if got.code != c.code || got.text != c.text {
			t.Errorf("%d %q %s: got %d %s", c.kind, c.name, c.sets, got.code, got.text)
		}
	}
}

func TestEditList(t *testing.T) {
	for _, c := range []struct {
		old, change string
		appending   bool
		want        string
	}{
		{"", "a", true, "a"}, {"a,b", "b,c", true, "a,b,c"}, {"a,b,a", "a", false, "b,a"}, {"a", "a", false, ""}, {"a", "x", false, "a"},
		{"", "a,a", true, "a,a"}, {"a,b,a", "a,x,a,a", false, "b"},
	} {
		if got := strings.Join(editList(c.old, c.change, c.appending), ","); got != c.want {
			t.Errorf("%+v: got %q", c, got)
		}
	}
}

func TestRepeatedResources(t *testing.T) {
	rs := []resourceKey{{2, "a"}, {4, "a"}, {2, "a"}, {2, "b"}}
	got := repeated(rs, func(k *resourceKey) resourceKey { return *k })
	for i, want := range []bool{true, false, true, false} {
		if got[i] != want {
			t.Errorf("resource %d: %v", i, got[i])
		}
	}
}

// What is asked of many things at once takes time that grows with their number.
func TestManySettingsAndResources(t *testing.T) {
	n := startNode(t, t.TempDir())
	const many = 100_000
	soon := func(what string, fn func()) {
		t.Helper()
		began := time.Now()
		if fn(); time.Since(began) > 10*time.Second {
			t.Errorf("%s took %v", what, time.Since(began))
		}
	}
	names, nulls := kmsg.NewPtrMetadataRequest(), kmsg.NewAlterConfigsRequestResource()
	incremental, legacy := kmsg.NewPtrIncrementalAlterConfigsRequest(), kmsg.NewPtrAlterConfigsRequest()
	var all []string
	for i := range many {
		name := fmt.Sprintf("%06d", i)
		all = append(all, name)
		names.Topics = append(names.Topics, kmsg.NewMetadataRequestTopic())
		nulls.Configs = append(nulls.Configs, kmsg.AlterConfigsRequestResourceConfig{Name: name})
		incremental.Resources = append(incremental.Resources, kmsg.IncrementalAlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeClientMetrics, ResourceName: name})
		legacy.Resources = append(legacy.Resources, kmsg.AlterConfigsRequestResource{ResourceType: kmsg.ConfigResourceTypeClientMetrics, ResourceName: name})
	}
	names.Topics[many-1].TopicID[0] = 1
	soon("topics without names", func() { metadataRefusal(names, 12) })
	soon("null settings", func() { alteration{}.legacy(&nulls, false) })
	soon("changes of a list", func() {
		half := strings.Join(all[:many/2], ",")
		editList(half, strings.Join(all[many/2:], ","), true)
		editList(half, strings.Join(all[many/2:], ","), false)
	})
	soon("resources", func() {
		if r := askNode[*kmsg.IncrementalAlterConfigsResponse](n, incremental, 1); len(r.Resources) != many {
			t.Errorf("%d of %d resources are answered", len(r.Resources), many)
		}
	})
	soon("resources of the older request", func() {
		if r := askNode[*kmsg.AlterConfigsResponse](n, legacy, 2); len(r.Resources) != many {
			t.Errorf("%d of %d resources are answered", len(r.Resources), many)
		}
	})
}
