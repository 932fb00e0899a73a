package java

import (
	"bufio"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"github.com/millrace-project/millrace/interop/kafka"
)

//go:embed Tools.java
var toolsSource []byte

// Tools runs Kafka's command-line tools in one JVM, which is quicker than one for each.
type Tools struct {
	mu struct {
		sync.Mutex
		in  io.WriteCloser
		out *bufio.Reader
	}
	cmd *exec.Cmd
}

// StartTools compiles the program into dir and runs it.
func StartTools(dir string) (*Tools, error) {
	cp, err := kafka.Classpath()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "Tools.java")
	if err := os.WriteFile(file, toolsSource, 0o644); err != nil {
		return nil, err
	}
	if out, err := exec.Command("javac", "-cp", cp, "-d", dir, file).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("javac: %w\n%s", err, out)
	}
	t := &Tools{cmd: exec.Command("java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", cp+string(os.PathListSeparator)+dir, "Tools")}
	in, err1 := t.cmd.StdinPipe()
	out, err2 := t.cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	t.mu.in, t.mu.out = in, bufio.NewReader(out)
	return t, t.cmd.Start()
}

// Run returns what the tool printed on both of its outputs, and its exit code.
func (t *Tools) Run(class string, args ...string) (printed string, code int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, err := io.WriteString(t.mu.in, strings.Join(append([]string{class}, args...), "\t")+"\n"); err != nil {
		return "", 0, err
	}
	line, err := t.mu.out.ReadString('\n')
	if err != nil {
		return "", 0, fmt.Errorf("the JVM has gone: %w", err)
	}
	var n int
	if _, err := fmt.Sscanf(line, "%d %d", &code, &n); err != nil {
		return "", 0, fmt.Errorf("the JVM answered %q", line)
	}
	p := make([]byte, n)
	_, err = io.ReadFull(t.mu.out, p)
	return string(p), code, err
}

// Close ends the JVM.
func (t *Tools) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.mu.in.Close(), t.cmd.Wait())
}
