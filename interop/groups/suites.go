package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
)

// The module that has the tests translated from Kafka's. It has no release; this is a commit.
const (
	kfakeModule  = "github.com/twmb/franz-go/pkg/kfake"
	kfakeVersion = "v0.0.0-20260918054303-01f206a7e32c"
	kfakeSum     = "h1:+VhoCwJ6sXP2wjfeoVlPkj68NQ4rzdcqH6pXlr+FY5E="
	ourKfake     = "github.com/millrace-project/millrace/interop/groups/kfake"
)

// kgo is franz-go's client with all its tests, most of which need no broker.
func kgo(records int) suite {
	return suite{
		name: "kgo",
		kill: "^(TestGroupETL|TestTxnEtl)$",
		// The test takes the client's report that it has lost its place in a classic group for a
		// failure. A kill between JoinGroup and the end of SyncGroup brings that about, in Kafka as
		// here: the log has the generation before, and the next request is answered ILLEGAL_GENERATION.
		gaveUp: "unable to join group session",
		wrong:  "saw double offset",
		prepare: func(dir string) (compiled, error) {
			const pkg = "github.com/twmb/franz-go/pkg/kgo"
			c := compiled{
				binary: filepath.Join(dir, "kgo.test"),
				env:    []string{"KGO_TEST_RF=1", "KGO_TEST_UNSAFE=1", "KGO_TEST_RECORDS=" + strconv.Itoa(records)},
				// What franz-go's own script sets, and Kafka's lower limit with it.
				broker: []string{
					"group.consumer.heartbeat.interval.ms=1000", "group.consumer.min.heartbeat.interval.ms=1000",
					"group.initial.rebalance.delay.ms=0", "offsets.topic.replication.factor=1",
				},
			}
			source, err := inInterop("go", "list", "-f", "{{.Dir}}", pkg)
			if err != nil {
				return c, err
			}
			c.dir = strings.TrimSpace(string(source)) // one of them reads the package's source
			_, err = inInterop("go", "test", "-c", "-o", c.binary, pkg)
			return c, err
		},
	}
}

// kafkaTests has Kafka's integration tests of its clients, as franz-go's project wrote them in Go
// for its broker in memory.
func kafkaTests() suite {
	const fence = "asks for an id once while a transaction ends, which Kafka too answers with CONCURRENT_TRANSACTIONS"
	return suite{
		name: "kafka_tests",
		left: map[string]string{
			"TestGroupMaxSize848":               "its heartbeat has no member id, which Kafka refuses with INVALID_REQUEST",
			"TestCreateTopicsReplicaAssignment": "needs a cluster of three brokers",
			"TestFenceAfterProducerCommit":      fence,
			"TestFenceBeforeProducerCommit":     fence,
			"TestDescribeProducersAfterCommit":  "Kafka too describes producers without a transaction",
		},
		prepare: prepareKafkaTests,
	}
}

// prepareKafkaTests compiles the tests as if they lay in this module, with kfake here in place of
// the one that they import: the compiler is told of the files by an overlay.
func prepareKafkaTests(dir string) (compiled, error) {
	c := compiled{binary: filepath.Join(dir, "kafka_tests.test"), dir: dir, args: []string{"-test.parallel=4"}}
	out, err := inInterop("go", "mod", "download", "-json", kfakeModule+"@"+kfakeVersion)
	if err != nil {
		return c, err
	}
	var module struct{ Dir, Sum string }
	if err := json.Unmarshal(out, &module); err != nil {
		return c, err
	}
	if module.Sum != kfakeSum {
		return c, fmt.Errorf("%s@%s has the sum %s, not %s", kfakeModule, kfakeVersion, module.Sum, kfakeSum)
	}
	names, err := filepath.Glob(filepath.Join(module.Dir, "kafka_tests", "*.go"))
	if err != nil || len(names) == 0 {
		return c, fmt.Errorf("no tests in %s: %w", module.Dir, err)
	}
	overlay := struct{ Replace map[string]string }{map[string]string{}}
	for _, name := range names {
		source, err := os.ReadFile(name)
		if err != nil {
			return c, err
		}
		source = bytes.ReplaceAll(source, []byte(strconv.Quote(kfakeModule)), []byte(strconv.Quote(ourKfake)))
		copied := filepath.Join(dir, filepath.Base(name))
		if err := os.WriteFile(copied, source, 0o644); err != nil {
			return c, err
		}
		overlay.Replace[filepath.Join(interopDir(), "groups", "kafka_tests", filepath.Base(name))] = copied
	}
	list, err := json.Marshal(overlay)
	if err != nil {
		return c, err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, list, 0o644); err != nil {
		return c, err
	}
	_, err = inInterop("go", "test", "-c", "-vet=off", "-overlay", file, "-o", c.binary, "./groups/kafka_tests")
	return c, err
}

// inInterop runs a command in this module's directory and returns its standard output.
func inInterop(name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = interopDir(), append(os.Environ(), "CGO_ENABLED=0")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &stderr)
	}
	return stdout.Bytes(), nil
}

// interopDir returns the place of this module's source.
func interopDir() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(file))
}
