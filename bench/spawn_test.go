package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/millrace-project/millrace"
)

// The test's own binary stands in for a millrace: what Spawn starts is a process as in earnest.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "bench" && os.Args[2] == "limit" {
		if err := serveLimit(os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		if err := serveBroker(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "this one does not serve:", os.Args[2:], err)
			os.Exit(3)
		}
		return
	}
	os.Exit(m.Run())
}

func serveLimit(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	l := Limit{Addr: args[1], Dir: args[3], Plain: slices.Contains(args, "--plain"), Sync: slices.Contains(args, "--sync")}
	s, err := ListenLimit(l)
	if err != nil {
		return err
	}
	fmt.Printf("a line that says nothing\naddress=%s\ndirectory=%s\nversion=of a test\npid=%d\n", s.Addr(), l.Dir, os.Getpid())
	return s.Serve(ctx)
}

func serveBroker(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var dir string
	var opts []millrace.Option
	for ; len(args) >= 2; args = args[2:] {
		switch value := args[1]; args[0] {
		case "--data-dir":
			dir = value
		case "--listen":
			opts = append(opts, millrace.Listen(value))
		case "--set":
			if value == "a=b" {
				return errors.New("no such setting")
			}
			key, to, _ := strings.Cut(value, "=")
			opts = append(opts, millrace.Set(key, to))
		}
	}
	b, err := millrace.Start(dir, opts...)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return b.Close()
}

func TestSpawn(t *testing.T) {
	for _, kind := range []string{kindLimit, kindLimitPlain, kindLimitSync} {
		s, err := Spawn{Name: "it", Kind: kind}.Start(t.Context(), SpawnOptions{Dir: t.TempDir(), Binary: os.Args[0]})
		if err != nil {
			t.Fatal(err)
		}
		if s.PID == os.Getpid() || s.PID == 0 || s.Version != "of a test" || s.Name != "it" {
			t.Errorf("%+v", s.Target)
		}
		if _, err := os.Stat(s.Dir); err != nil {
			t.Error(err)
		}
		resp, err := ask(t.Context(), s.Addr, kmsg.NewPtrMetadataRequest())
		if err != nil || len(resp.(*kmsg.MetadataResponse).Brokers) != 1 {
			t.Errorf("metadata: %+v %v", resp, err)
		}
		if err := s.Running(); err != nil {
			t.Error(err)
		}
		if err := errors.Join(s.Stop(), s.Stop()); err != nil {
			t.Error(err)
		}
		if s.Running() == nil {
			t.Error("it runs after Stop")
		}
		if err := s.Answers(t.Context()); err == nil || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("it answers after Stop: %v", err)
		}
	}
}

// One that ends by itself is told when it is to be stopped, with what it printed.
func TestSpawnThatDies(t *testing.T) {
	s, err := Spawn{Name: "it", Kind: kindLimit}.Start(t.Context(), SpawnOptions{Dir: t.TempDir(), Binary: os.Args[0]})
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.exited
	if err := s.Stop(); err == nil || !strings.Contains(err.Error(), "signal: killed") || !strings.Contains(err.Error(), "address=") {
		t.Errorf("%v", err)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("twice: %v", err)
	}
}

// One that ends at its start says what it printed, at once.
func TestSpawnThatEnds(t *testing.T) {
	_, err := Spawn{Name: "it", Kind: kindMillrace, Settings: []string{"a=b"}}.Start(t.Context(), SpawnOptions{Dir: t.TempDir(), Binary: os.Args[0]})
	if err == nil || !strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "does not serve") || !strings.Contains(err.Error(), "--set a=b") {
		t.Errorf("%v", err)
	}
	dir := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "it"), 0o755), os.WriteFile(filepath.Join(dir, "it", "data"), nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	_, err = Spawn{Name: "it", Kind: kindLimit}.Start(t.Context(), SpawnOptions{Dir: dir, Binary: os.Args[0]})
	if err == nil || !strings.Contains(err.Error(), "exit status 1") || !strings.Contains(err.Error(), "not a directory") {
		t.Errorf("%v", err)
	}
	if _, err := (Spawn{Name: "it", Kind: "./none"}).Start(t.Context(), SpawnOptions{Dir: t.TempDir()}); err == nil {
		t.Error("a binary that is not there was started")
	}
}

// Nothing is left of a target whose start is given up.
func TestSpawnGivenUp(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s, err := Spawn{Name: "it", Kind: kindLimit}.Start(ctx, SpawnOptions{Dir: t.TempDir(), Binary: os.Args[0]})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%+v %v", s, err)
	}
}
