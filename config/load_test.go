package config

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

func load(t *testing.T, text string) *Server {
	t.Helper()
	s, err := tryLoad(t, text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryLoad(t *testing.T, text string) (*Server, error) {
	t.Helper()
	pairs, err := ParseProperties(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return Load(pairs)
}

func TestStandaloneNeedsNothingElse(t *testing.T) {
	s, err := Load(Standalone("./data", "127.0.0.1:9092"))
	if err != nil {
		t.Fatal(err)
	}
	if s.NodeID != 1 || !slices.Equal(s.LogDirs, []string{"./data"}) || s.MetadataLogDir != "./data" || !s.AutoCreateTopics || s.Durability != DurabilitySync {
		t.Errorf("got %+v", s)
	}
	if want := []Listener{{"PLAINTEXT", "PLAINTEXT", "127.0.0.1", 9092}}; !slices.Equal(s.Listeners, want) || !slices.Equal(s.Advertised, want) {
		t.Errorf("listeners %v, advertised %v", s.Listeners, s.Advertised)
	}
	if want := (Listener{"CONTROLLER", "PLAINTEXT", "127.0.0.1", 9093}); s.Controller() != want {
		t.Errorf("controller %v", s.Controller())
	}
	if len(s.Unknown) != 0 || len(s.Ignored) != 0 {
		t.Errorf("unknown %v, ignored %v", s.Unknown, s.Ignored)
	}
}

func TestKafkasOwnFile(t *testing.T) {
	s := load(t, `process.roles=broker,controller
node.id=7
controller.quorum.bootstrap.servers=127.0.0.1:19093
listeners=PLAINTEXT://[::1]:19092,CONTROLLER://127.0.0.1:19093,inside://:0
advertised.listeners=INSIDE://broker.example:443,PLAINTEXT://::1:19092
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,INSIDE:PLAINTEXT
inter.broker.listener.name=INSIDE
log.dirs=/a , /b
offsets.topic.replication.factor=1
no.such.setting=1
listener.name.inside.no.such=1
listener.name.inside.max.connections=5
num.io.threads=2
log.retention.hours=1
`)
	if s.NodeID != 7 || s.InterBrokerListener != "INSIDE" || !slices.Equal(s.LogDirs, []string{"/a", "/b"}) {
		t.Errorf("got %+v", s)
	}
	if want := []Listener{{"PLAINTEXT", "PLAINTEXT", "::1", 19092}, {"INSIDE", "PLAINTEXT", "", 0}}; !slices.Equal(s.Listeners, want) {
		t.Errorf("listeners %v", s.Listeners)
	}
	if want := []Listener{{"PLAINTEXT", "PLAINTEXT", "::1", 19092}, {"INSIDE", "PLAINTEXT", "broker.example", 443}}; !slices.Equal(s.Advertised, want) {
		t.Errorf("advertised %v", s.Advertised)
	}
	if want := []string{"no.such.setting", "listener.name.inside.no.such"}; !slices.Equal(s.Unknown, want) {
		t.Errorf("unknown %v", s.Unknown)
	}
	if !slices.Contains(s.Ignored, "num.io.threads") || !slices.Contains(s.Ignored, "listener.name.inside.max.connections") || slices.Contains(s.Ignored, "log.retention.hours") {
		t.Errorf("ignored %v", s.Ignored)
	}
	if id, _ := s.Static("broker.id"); id != "7" {
		t.Errorf("broker.id %q", id)
	}
}

func TestLaterSettingsWin(t *testing.T) {
	flag, err := ParseFlag("num.partitions = 9")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Load(append([]Pair{{"num.partitions", "3", 1}, {"millrace.durability", "os", 2}, {"millrace.nonsense", "1", 3}}, flag))
	if err != nil {
		t.Fatal(err)
	}
	if s.MetricsListen != "" || s.MetricsLagPartitions != 10_000 {
		t.Errorf("metrics by default: %q, %d", s.MetricsListen, s.MetricsLagPartitions)
	}
	if s.ReserveBytes != 64<<20 || s.ScrubIntervalMs != 604_800_000 || s.ScrubBytesPerSecond != 10<<20 {
		t.Errorf("reserve %d, scrub each %d ms at %d a second", s.ReserveBytes, s.ScrubIntervalMs, s.ScrubBytesPerSecond)
	}
	if s.NumPartitions != 9 || s.Durability != DurabilityOS || !slices.Equal(s.Unknown, []string{"millrace.nonsense"}) {
		t.Errorf("got %+v", s)
	}
	if _, ok := s.Static("millrace.durability"); ok {
		t.Error("our own settings must not be shown to Kafka's tools")
	}
	if _, err := ParseFlag("novalue"); err == nil {
		t.Error("a flag without = was read")
	}
}

func TestRefusals(t *testing.T) {
	for text, want := range map[string]string{
		"a=1\nnum.partitions=0":                                   "line 2: Invalid value 0 for configuration num.partitions: Value must be at least 1",
		"authorizer.class.name=org.apache.kafka.X":                "cannot enforce",
		"controller.quorum.voters=1@a:1,2@b:1,3@c:1":              "controller.quorum.voters names node 2, this is node 1",
		"listeners=SSL://:9093":                                   "asks for SSL",
		"listeners=SASL_PLAINTEXT://:9093":                        "asks for SASL_PLAINTEXT",
		"create.topic.policy.class.name=x.Y":                      "cannot enforce",
		"listeners=PLAINTEXT://0.0.0.0:9092":                      "advertised.listeners cannot use the nonroutable meta-address 0.0.0.0",
		"listeners=PLAINTEXT//x":                                  "Unable to parse PLAINTEXT//x to a broker endpoint",
		"listeners=X://:1":                                        "No security protocol defined for listener X",
		"listeners=PLAINTEXT://:1,PLAINTEXT://:2":                 "Each listener must have a different name",
		"listeners=CONTROLLER://:1":                               "There must be at least one broker advertised listener",
		"advertised.listeners=OTHER://h:1":                        "No security protocol defined for listener OTHER",
		"listener.security.protocol.map=A-B":                      "is not NAME:PROTOCOL",
		"process.roles=broker":                                    "process.roles=broker:",
		"broker.id=1\nnode.id=2":                                  "You must set `node.id`",
		"log.retention.ms=0":                                      "log.retention.ms must be unlimited (-1)",
		"queued.max.request.bytes=5":                              "queued.max.request.bytes must be larger",
		"millrace.durability=maybe":                               "Invalid value maybe for configuration millrace.durability",
		"millrace.metrics.listen=9100":                            "want HOST:PORT",
		"millrace.metrics.listen=h:http":                          "the port must be a number from 0 to 65535",
		"millrace.metrics.lag.partitions.max=0":                   "want a number from 1 to 1000000",
		"millrace.reserve.bytes=-1":                               "want a number from 0 to 1099511627776",
		"millrace.scrub.interval.ms=week":                         "Invalid value week for configuration millrace.scrub.interval.ms",
		"millrace.scrub.bytes.per.second=0":                       "want a number from 65536 to 1099511627776",
		"max.connections.per.ip.overrides=h":                      "max.connections.per.ip.overrides",
		"max.connections.per.ip=0":                                "can be set to zero only if",
		"inter.broker.listener.name=NOPE":                         "inter.broker.listener.name must be",
		"connection.failed.authentication.delay.ms=600000":        "should always be less than",
		"remote.log.storage.system.enable=true":                   "tiered storage",
		"group.consumer.assignors=uniform,org.example.Best":       "group.consumer.assignors names org.example.Best: this build has uniform and range",
		"offsets.topic.compression.codec=5":                       "offsets.topic.compression.codec: Unknown compression type id: 5",
		"offsets.topic.compression.codec=-1":                      "Unknown compression type id: -1",
		"offsets.topic.compression.codec=257":                     "Unknown compression type id: 257",
		"group.consumer.max.heartbeat.interval.ms=4999":           "group.consumer.max.heartbeat.interval.ms must be greater than or equal to group.consumer.min.heartbeat.interval.ms",
		"group.consumer.session.timeout.ms=1000":                  "group.consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
		"group.consumer.heartbeat.interval.ms=15001":              "group.consumer.heartbeat.interval.ms must be less than or equal to group.consumer.max.heartbeat.interval.ms",
		"group.share.max.session.timeout.ms=44999":                "group.share.max.session.timeout.ms must be greater than or equal to group.share.min.session.timeout.ms",
		"group.share.record.lock.duration.ms=60001":               "group.share.max.record.lock.duration.ms must be greater than or equal to group.share.record.lock.duration.ms",
		"group.streams.num.standby.replicas=3":                    "group.streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas",
		"log.cleaner.threads=0\nlog.cleaner.dedupe.buffer.size=1": "at least 1MB",

		"group.consumer.max.heartbeat.interval.ms=45000\ngroup.consumer.heartbeat.interval.ms=45000": "group.consumer.heartbeat.interval.ms must be less than group.consumer.session.timeout.ms",
	} {
		_, err := tryLoad(t, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
	}
}

func TestTimeUnits(t *testing.T) {
	retention, roll := Topic().Lookup("retention.ms"), Topic().Lookup("segment.ms")
	for text, want := range map[string][2]int64{
		"":                        {604800000, 604800000},
		"log.retention.hours=2":   {7200000, 604800000},
		"log.retention.minutes=3": {180000, 604800000},
		"log.retention.hours=2\nlog.retention.minutes=3\nlog.retention.ms=5": {5, 604800000},
		"log.retention.hours=-1":          {-1, 604800000},
		"log.retention.ms=-1":             {-1, 604800000},
		"log.roll.hours=1":                {604800000, 3600000},
		"log.roll.hours=1\nlog.roll.ms=9": {604800000, 9},
	} {
		l := load(t, text).Layers(nil, nil)
		if got := [2]int64{l.TopicDefault(retention).Int, l.TopicDefault(roll).Int}; got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}

func TestLayersAndSynonyms(t *testing.T) {
	s := load(t, "log.retention.bytes=1\nlog.retention.hours=5\nnum.partitions=4")
	l := s.Layers(
		map[string]string{"log.retention.bytes": "2", "log.retention.ms": "77", "num.partitions": "9", "log.segment.bytes": "x", "listeners": "PLAINTEXT://:1", "own": "kept"},
		map[string]string{"log.retention.bytes": "3", "ssl.keystore.type": "PEM"})
	if got := l.TopicDefault(Topic().Lookup("retention.bytes")).Int; got != 3 {
		t.Errorf("retention.bytes %d", got)
	}
	if got := l.TopicDefault(Topic().Lookup("retention.ms")).Int; got != 77 {
		t.Errorf("retention.ms %d", got)
	}
	want := []Synonym{{"log.retention.bytes", "3", SourceDynamicBroker}, {"log.retention.bytes", "2", SourceDynamicDefaultBroker},
		{"log.retention.bytes", "1", SourceStaticBroker}, {"log.retention.bytes", "-1", SourceDefault}}
	if got := l.Synonyms("log.retention.bytes"); !slices.Equal(got, want) {
		t.Errorf("synonyms %v", got)
	}
	want = []Synonym{{"log.retention.ms", "77", SourceDynamicDefaultBroker}, {"log.retention.hours", "5", SourceStaticBroker}, {"log.retention.hours", "168", SourceDefault}}
	if got := l.Synonyms("log.retention.ms"); !slices.Equal(got, want) {
		t.Errorf("synonyms %v", got)
	}
	if got := s.Layers(nil, nil).Synonyms("log.retention.ms"); len(got) != 0 {
		t.Errorf("synonyms that only coarser units set: %v", got)
	}
	if got := slices.Sorted(maps.Keys(l.Cluster)); !slices.Equal(got, []string{"log.retention.bytes", "log.retention.ms", "own"}) {
		t.Errorf("applied to all: %v", got)
	}
	if len(l.Broker) != 1 {
		t.Errorf("applied to this one: %v", l.Broker)
	}
	if got := l.Value(Broker().Lookup("num.partitions")).Int; got != 4 {
		t.Errorf("num.partitions %d", got)
	}
}

func TestValidateTopic(t *testing.T) {
	l := load(t, "log.cleaner.max.compaction.lag.ms=500").Layers(nil, nil)
	for _, c := range []struct {
		settings map[string]string
		want     string
	}{
		{map[string]string{"retention.ms": "5", "cleanup.policy": ""}, ""},
		{map[string]string{"nope": "1"}, "Unknown topic config name: nope"},
		{map[string]string{"segment.bytes": "5"}, "Invalid value 5 for configuration segment.bytes: Value must be at least 1048576"},
		{map[string]string{"min.compaction.lag.ms": "501"}, "conflict topic config setting min.compaction.lag.ms (501) > max.compaction.lag.ms (500)"},
		{map[string]string{"remote.storage.enable": "true"}, "Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage."},
	} {
		err := ValidateTopic(c.settings, nil, l)
		if got := errText(err); got != c.want {
			t.Errorf("%v: got %q, want %q", c.settings, got, c.want)
		}
	}
	err := ValidateTopic(map[string]string{"remote.storage.enable": "false"}, map[string]string{"remote.storage.enable": "true"}, l)
	if !strings.HasPrefix(errText(err), "It is invalid to disable remote storage") {
		t.Errorf("got %v", err)
	}
}

func TestValidateGroupAndClientMetrics(t *testing.T) {
	l := load(t, "").Layers(nil, nil)
	for _, c := range []struct{ name, value, want string }{
		{"consumer.session.timeout.ms", "50000", ""},
		{"consumer.session.timeout.ms", "1", "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"},
		{"streams.num.standby.replicas", "3", "streams.num.standby.replicas must be less than or equal to group.streams.max.standby.replicas"},
		{"nope", "3", "Unknown group config name: nope"},
	} {
		if got := errText(ValidateGroup(map[string]string{c.name: c.value}, l)); got != c.want {
			t.Errorf("%s=%s: got %q", c.name, c.value, got)
		}
	}
	for _, c := range []struct{ sub, name, value, want string }{
		{"s", "interval.ms", "100", ""},
		{"s", "interval.ms", "99", "Invalid value 99 for interval.ms, interval must be between 100 and 3600000 (1 hour)"},
		{"", "interval.ms", "100", "Subscription name can't be empty"},
		{"s", "x", "1", "Unknown client metrics configuration: x"},
		{"s", "match", "client_id=a.*,client_source_port=1", ""},
		{"s", "match", "client_id=a=b", "Illegal client matching pattern: client_id=a=b"},
		{"s", "match", "who=a", "Illegal client matching pattern: who=a"},
	} {
		if got := errText(ValidateClientMetrics(c.sub, map[string]string{c.name: c.value})); got != c.want {
			t.Errorf("%s %s=%s: got %q", c.sub, c.name, c.value, got)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// Whatever a file says, it is refused or becomes a configuration whose every value can be asked for.
func FuzzLoad(f *testing.F) {
	for _, s := range []string{
		"", "listeners=PLAINTEXT://:9092", "listeners=A://[::1]:1,CONTROLLER://:2\nlistener.security.protocol.map=A:PLAINTEXT,CONTROLLER:PLAINTEXT",
		"log.dirs=,", "controller.listener.names=PLAINTEXT", "log.retention.hours=2147483647", "log.roll.hours=9\nlog.roll.ms=0",
		"max.connections.per.ip.overrides=a:1,b:2", "node.id=3\nbroker.id=3", "millrace.durability=os", "advertised.listeners=PLAINTEXT://h:0",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		pairs, err := ParseProperties(strings.NewReader(text))
		if err != nil {
			return
		}
		s, err := Load(pairs)
		if err != nil {
			return
		}
		if len(s.Listeners) == 0 || len(s.Advertised) != len(s.Listeners) || len(s.LogDirs) == 0 || s.Controller().Name == "" {
			t.Fatalf("%q loads as %+v", text, s)
		}
		l := s.Layers(s.static, s.static)
		for k := range Topic().Describable() {
			l.TopicDefault(k)
			l.TopicDefaultFrom(k)
		}
		for k := range Group().All() {
			l.GroupDefault(k)
		}
		for k := range Broker().All() {
			l.Synonyms(k.Name)
		}
		if err := ValidateTopic(nil, nil, l); err != nil {
			t.Logf("%q: %v", text, err)
		}
		if err := s.ValidateDynamic(map[string]string{"log.retention.bytes": "5"}, l, false); err != nil {
			t.Logf("%q: %v", text, err)
		}
	})
}

// An answer to a fetch has to stay below 2 GiB, whatever the setting says.
func TestFetchMaxBytesIsBounded(t *testing.T) {
	if s := load(t, "fetch.max.bytes=2147483647"); s.FetchMaxBytes != maxFetchBytes {
		t.Errorf("fetch.max.bytes is %d", s.FetchMaxBytes)
	}
}
