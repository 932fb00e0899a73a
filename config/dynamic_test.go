package config

import (
	"errors"
	"fmt"
	"testing"
)

// The messages are those of Kafka 4.2 itself.
func TestValidateDynamic(t *testing.T) {
	s := load(t, "")
	now := s.Layers(nil, nil)
	for _, c := range []struct {
		perBroker bool
		settings  []string
		want      string
	}{
		{true, []string{"num.partitions", "5"}, "Cannot update these configs dynamically: Set(num.partitions)"},
		{true, []string{"num.partitions", "5", "node.id", "9"}, "Cannot update these configs dynamically: Set(node.id, num.partitions)"},
		{true, []string{"num.partitions", "5", "node.id", "9", "log.dirs", "x", "broker.rack", "x", "process.roles", "x", "fetch.max.bytes", "7"}, "Cannot update these configs dynamically: HashSet(num.partitions, process.roles, log.dirs, fetch.max.bytes, node.id, broker.rack)"},
		{true, []string{"ssl.keystore.type", "PEM"}, "These security configs can be dynamically updated only per-listener using the listener prefix: HashSet(ssl.keystore.type)"},
		{false, []string{"listeners", "PLAINTEXT://:1"}, "Cannot update these configs at default cluster level, broker id must be specified: Set(listeners)"},
		{false, []string{"ssl.client.auth", "none"}, "Cannot update these configs at default cluster level, broker id must be specified: Set(ssl.client.auth)"},
		{false, []string{"listener.name.plaintext.ssl.client.auth", "none", "sasl.jaas.config", "x"}, "Cannot update these configs at default cluster level, broker id must be specified: Set(sasl.jaas.config, listener.name.plaintext.ssl.client.auth)"},
		{true, []string{"log.retention.bytes", "x"}, "Invalid value x for configuration log.retention.bytes: Not a number of type LONG"},
		{true, []string{"log.segment.bytes", "5"}, "Invalid value 5 for configuration log.segment.bytes: Value must be at least 1048576"},
		{true, []string{"log.roll.ms", "0"}, "requirement failed: log.roll.ms must be greater than or equal to 1"},
		{false, []string{"log.retention.ms", "0"}, "requirement failed: log.retention.ms must be unlimited (-1) or, greater than or equal to 1"},
		{true, []string{"no.such", "0"}, ""},
		{true, []string{"log.cleanup.policy", "compact"}, ""},
		{true, []string{"num.io.threads", "100"}, "Invalid value org.apache.kafka.common.config.ConfigException: Dynamic thread count update validation failed for num.io.threads=100, value should not be greater than double the current value 8 for configuration Invalid dynamic configuration"},
		{true, []string{"log.cleaner.threads", "100"}, "Invalid value org.apache.kafka.common.config.ConfigException: Log cleaner threads cannot be increased to more than double the current value 1 for configuration Invalid dynamic configuration"},
		{true, []string{"leader.replication.throttled.rate", "-5"}, "Invalid value -5 for configuration leader.replication.throttled.rate: Value must be at least 0"},
		{false, []string{"log.local.retention.ms", "99999999999"}, "Invalid value org.apache.kafka.common.config.ConfigException: Invalid value 99999999999 for configuration log.local.retention.ms: Value must not be more than log.retention.ms property value: 604800000 for configuration Invalid dynamic configuration"},
		{false, []string{"unclean.leader.election.enable", "maybe"}, "Invalid value maybe for configuration unclean.leader.election.enable: Expected value to be either true or false"},
		{true, []string{"max.connections", "5"}, "Cannot update these configs dynamically: Set(max.connections)"},
		{false, []string{"listener.name.plaintext.max.connections", "5"}, "Cannot update these configs dynamically: Set(listener.name.plaintext.max.connections)"},
	} {
		settings := map[string]string{}
		for i := 0; i < len(c.settings); i += 2 {
			settings[c.settings[i]] = c.settings[i+1]
		}
		err := s.ValidateDynamic(settings, now, c.perBroker)
		if got := errText(err); got != c.want {
			t.Errorf("%v:\n got %s\nwant %s", c.settings, got, c.want)
		}
		if e := (*Error)(nil); err != nil && (!errors.As(err, &e) || !e.BadRequest) {
			t.Errorf("%v: %T is no bad request", c.settings, err)
		}
	}
}

// Each name is looked at a few times, not once for every setting of the catalogue.
func TestValidateDynamicOfManyNames(t *testing.T) {
	s := load(t, "")
	now := s.Layers(nil, nil)
	const many = 1000
	settings := map[string]string{}
	for i := range many {
		settings[fmt.Sprintf("listener.name.l%d.no.such", i)] = "x" // to find out that it has a prefix allocates
	}
	n := testing.AllocsPerRun(3, func() {
		if err := s.ValidateDynamic(settings, now, true); err != nil {
			t.Fatal(err)
		}
	}) / many
	if n > 30 {
		t.Errorf("%.1f allocations a name", n)
	}
}
