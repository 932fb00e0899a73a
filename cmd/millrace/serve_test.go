package main

import (
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"
)

// More threads run Go while logs are loaded, and as many as before afterwards: the default, or what the environment says.
func TestLoading(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	runtime.SetDefaultGOMAXPROCS()
	for env, want := range map[string]int{"": runtime.GOMAXPROCS(0), "3": 3, "40": 40} {
		t.Setenv("GOMAXPROCS", env)
		runtime.GOMAXPROCS(want) // as the runtime does at the start
		done := loading()
		if got := runtime.GOMAXPROCS(0); got != max(want, loadingProcessors) {
			t.Errorf("GOMAXPROCS=%q: %d while loading, want %d", env, got, max(want, loadingProcessors))
		}
		done()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("GOMAXPROCS=%q: %d afterwards, want %d", env, got, want)
		}
	}
}

// A broker whose terminal is closed, and whose log nobody reads any more, stops as it should.
func TestServeOutlivesItsTerminal(t *testing.T) {
	dir := t.TempDir()
	bin, addrFile := filepath.Join(dir, "millrace"), filepath.Join(dir, "addr")
	if out, err := exec.Command("go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.CommandContext(t.Context(), bin, "serve", "--data-dir", filepath.Join(dir, "data"), "--listen", "127.0.0.1:0", "--addr-file", addrFile)
	log, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(addrFile); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it does not start")
		}
	}
	log.Close()
	closed := syscall.SIGHUP
	if signal.Ignored(closed) { // by nohup, for whom it starts too
		closed = syscall.SIGTERM
	}
	if err := cmd.Process.Signal(closed); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data", ".kafka_cleanshutdown")); err != nil {
		t.Error("it did not stop cleanly:", err)
	}
}
