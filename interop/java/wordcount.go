package java

import (
	_ "embed"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/millrace-project/millrace/interop/kafka"
)

//go:embed WordCount.java
var wordCountSource []byte

// WordCount runs the Kafka Streams application of WordCount.java, one process at a time.
type WordCount struct {
	Addr, ID      string
	Input, Output string
	Store         string // "memory" or "rocksdb"
	dir           string
	cmd           *exec.Cmd
}

// NewWordCount compiles the application into dir, where it also has its state and its log.
func NewWordCount(dir string) (*WordCount, error) {
	cp, err := kafka.Classpath()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "WordCount.java")
	if err := os.WriteFile(file, wordCountSource, 0o644); err != nil {
		return nil, err
	}
	if out, err := exec.Command("javac", "-cp", cp, "-d", dir, file).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("javac: %w\n%s", err, out)
	}
	return &WordCount{dir: dir}, nil
}

// Log is the file with what the application prints.
func (w *WordCount) Log() string { return filepath.Join(w.dir, "wordcount.log") }

// Start runs the application.
func (w *WordCount) Start() error {
	cp, err := kafka.Classpath()
	if err != nil {
		return err
	}
	log, err := os.OpenFile(w.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	w.cmd = exec.Command("java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", cp+string(os.PathListSeparator)+w.dir,
		"WordCount", w.Addr, w.ID, filepath.Join(w.dir, "state"), w.Input, w.Output, w.Store)
	w.cmd.Stdout, w.cmd.Stderr = log, log
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return w.cmd.Start()
}

// End sends the signal and waits until the process has gone. The error says that it had gone by itself.
func (w *WordCount) End(sig os.Signal) error {
	if err := w.cmd.Process.Signal(sig); err != nil {
		return fmt.Errorf("the application has gone by itself: %w", err)
	}
	_ = w.cmd.Wait() // it says what signal it was
	return nil
}
