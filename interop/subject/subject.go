// Package subject runs the broker under test, `millrace serve`, for the interop tests. The binary
// is built from this checkout, or MILLRACE names one. With BROKER=kafka Apache Kafka stands in its
// place, which is how the tests themselves are proved.
package subject

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/millrace-project/millrace/interop/kafka"
	"github.com/millrace-project/millrace/interop/process"
)

// Options of one node; the zero value is a node with the defaults in a directory of its own.
type Options struct {
	Dir        string   // holds the output and data/; required
	Data       string   // log directory; Dir/data when empty
	Port       int      // 0 takes a free one
	Properties []string // key=value, each becomes a --set
	Wrap       []string // command that runs the binary, strace for example
}

var binary = sync.OnceValues(build)

// Binary returns the path of the binary under test.
func Binary() (string, error) { return binary() }

func build() (string, error) {
	if path := os.Getenv("MILLRACE"); path != "" {
		return path, nil
	}
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("subject: the source's place is unknown")
	}
	root := filepath.Dir(filepath.Dir(filepath.Dir(file)))
	dir, err := os.MkdirTemp("", "millrace-interop-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "millrace")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/millrace")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build millrace: %w\n%s", err, out)
	}
	return path, nil
}

// IsKafka reports whether Start runs Apache Kafka.
func IsKafka() bool { return os.Getenv("BROKER") == "kafka" }

// Running returns the address of a running broker that BROKER names, which may be anything that
// speaks the protocol.
func Running() (addr string, ok bool) {
	addr = os.Getenv("BROKER")
	return addr, addr != "" && addr != "kafka"
}

// Cleanup removes the binary that Binary built; TestMain calls it.
func Cleanup() {
	if os.Getenv("MILLRACE") != "" || IsKafka() {
		return
	}
	if path, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(path))
	}
}

// Start runs the broker until it answers.
func Start(o Options) (*process.Broker, error) {
	if IsKafka() {
		return kafka.Start(kafka.Options{Dir: o.Dir, Data: o.Data, Port: o.Port, Properties: o.Properties})
	}
	path, err := Binary()
	if err != nil {
		return nil, err
	}
	if o.Data == "" {
		o.Data = filepath.Join(o.Dir, "data")
	}
	if o.Port == 0 {
		if o.Port, err = process.FreePorts(1); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(o.Dir, 0o755); err != nil {
		return nil, err
	}
	addr := fmt.Sprintf("127.0.0.1:%d", o.Port)
	args := append(append([]string(nil), o.Wrap...), path, "serve", "--data-dir", o.Data, "--listen", addr)
	for _, kv := range o.Properties {
		args = append(args, "--set", kv)
	}
	return process.Start("millrace", addr, o.Data, filepath.Join(o.Dir, "broker.log"), exec.Command(args[0], args[1:]...), 30*time.Second, process.Answers)
}
