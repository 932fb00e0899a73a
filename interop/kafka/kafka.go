// Package kafka runs Apache Kafka 4.2.0 and its tools as the oracle of the interop tests. Maven
// fetches the jars once into the user's cache directory (or KAFKA_LIBS names a directory that has
// them). One node is broker and controller in one process, as `millrace serve` is.
package kafka

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/millrace-project/millrace/interop/process"
)

// Version is the release that the pom names.
const Version = "4.2.0"

//go:embed pom.xml
var pom []byte

const logging = `<Configuration status="WARN"><Appenders><Console name="c"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>` +
	`<Loggers><Root level="INFO"><AppenderRef ref="c"/></Root></Loggers></Configuration>`

// Options of one node; the zero value is a node with Kafka's defaults in a directory of its own.
type Options struct {
	Dir        string   // holds the configuration, the output and data/; required
	Data       string   // log directory; Dir/data when empty
	Port       int      // client listener; the controller listens on the next one; 0 takes free ones
	Properties []string // further key=value lines, the later ones win
	Heap       string   // -Xms and -Xmx; 512m when empty
}

var libs = sync.OnceValues(findLibs)

// Libs returns the directory with Kafka's jars and fetches them when it is missing.
func Libs() (string, error) { return libs() }

func findLibs() (string, error) {
	if dir := os.Getenv("KAFKA_LIBS"); dir != "" {
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "millrace-interop", "kafka-"+Version)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	work, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := os.WriteFile(filepath.Join(work, "pom.xml"), pom, 0o644); err != nil {
		return "", err
	}
	jars := filepath.Join(work, "jars")
	fmt.Fprintf(os.Stderr, "kafka: fetching Apache Kafka %s by Maven into %s\n", Version, dir)
	cmd := exec.Command("mvn", "-q", "-B", "-f", filepath.Join(work, "pom.xml"), "dependency:copy-dependencies",
		"-DincludeScope=runtime", "-DoutputDirectory="+jars)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("mvn: %w\n%s", err, out)
	}
	// Another test process may have been faster: its copy is as good.
	if err := os.Rename(jars, dir); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	return dir, nil
}

// Classpath returns Java's class path of all of Kafka.
func Classpath() (string, error) {
	dir, err := Libs()
	return filepath.Join(dir, "*"), err
}

// Start formats the log directory if it is new and runs a node on it until it has started.
func Start(o Options) (*process.Broker, error) {
	cp, err := Classpath()
	if err != nil {
		return nil, err
	}
	if o.Data == "" {
		o.Data = filepath.Join(o.Dir, "data")
	}
	if o.Heap == "" {
		o.Heap = "512m"
	}
	if o.Port == 0 {
		if o.Port, err = process.FreePorts(2); err != nil {
			return nil, err
		}
	}
	if err := configure(&o); err != nil {
		return nil, err
	}
	props := filepath.Join(o.Dir, "kraft.properties")
	if _, err := os.Stat(filepath.Join(o.Data, "meta.properties")); errors.Is(err, fs.ErrNotExist) {
		if _, err := Tool(context.Background(), "kafka.tools.StorageTool", "format", "-t", ClusterID, "-c", props, "--standalone"); err != nil {
			return nil, err
		}
	}
	logFile := filepath.Join(o.Dir, "broker.log")
	var from int64 // the file goes on from earlier starts: only what this one says counts
	if st, err := os.Stat(logFile); err == nil {
		from = st.Size()
	}
	cmd := exec.Command("java", "-Xmx"+o.Heap, "-Xms"+o.Heap, "-server", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
		"-Dlog4j2.configurationFile="+filepath.Join(o.Dir, "log4j2.xml"), "-cp", cp, "kafka.Kafka", props)
	started := func(b *process.Broker) bool {
		p, err := os.ReadFile(b.Log)
		return err == nil && int64(len(p)) > from && bytes.Contains(p[from:], []byte("Kafka Server started"))
	}
	return process.Start("kafka", fmt.Sprintf("127.0.0.1:%d", o.Port), o.Data, logFile, cmd, 90*time.Second, started)
}

// ClusterID is the id that Start formats new directories with.
const ClusterID = "4L6g3nShT-eMCtK--X86sw"

// Singles returns the settings that let Kafka's own topics live on one node. A broker that is to
// show the same settings needs them too.
func Singles() []string {
	return []string{
		"offsets.topic.replication.factor=1",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		"group.initial.rebalance.delay.ms=0",
	}
}

func configure(o *Options) error {
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return err
	}
	lines := append([]string{
		"process.roles=broker,controller",
		"node.id=1",
		fmt.Sprintf("controller.quorum.bootstrap.servers=127.0.0.1:%d", o.Port+1),
		fmt.Sprintf("listeners=PLAINTEXT://127.0.0.1:%d,CONTROLLER://127.0.0.1:%d", o.Port, o.Port+1),
		fmt.Sprintf("advertised.listeners=PLAINTEXT://127.0.0.1:%d", o.Port),
		"controller.listener.names=CONTROLLER",
		"listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT",
		"log.dirs=" + o.Data,
	}, append(Singles(), o.Properties...)...)
	if err := os.WriteFile(filepath.Join(o.Dir, "kraft.properties"), []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.Dir, "log4j2.xml"), []byte(logging), 0o644)
}

// Tool runs one of Kafka's command-line classes and returns what it printed on standard output.
// The error has standard error's text.
func Tool(ctx context.Context, class string, args ...string) (string, error) {
	return ToolInput(ctx, nil, class, args...)
}

// ToolInput is Tool with standard input.
func ToolInput(ctx context.Context, stdin []byte, class string, args ...string) (string, error) {
	cp, err := Classpath()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "java", append([]string{"-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", cp, class}, args...)...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%s %s: %w\n%s%s", class, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String(), nil
}
