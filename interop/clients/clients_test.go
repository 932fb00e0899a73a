package clients

import (
	"bytes"
	"os"
	"os/exec"
	"testing"

	"github.com/millrace-project/millrace/interop/process"
	"github.com/millrace-project/millrace/interop/subject"
)

func TestMain(m *testing.M) {
	code := m.Run()
	subject.Cleanup()
	os.Exit(code)
}

// start runs the broker under test, or takes the one that BROKER names.
func start(t *testing.T) string {
	t.Helper()
	if addr, ok := subject.Running(); ok {
		return addr
	}
	b, err := subject.Start(subject.Options{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stop(t, b) })
	return b.Addr
}

func stop(t *testing.T, b *process.Broker) {
	t.Helper()
	if !b.Running() {
		p, _ := os.ReadFile(b.Log)
		t.Errorf("the broker has gone:\n%s", p)
	}
	if err := b.Stop(); err != nil {
		t.Error(err)
	}
}

func goClients() []Client { return []Client{FranzGo{}, Sarama{}, KafkaGo{}} }

func TestGoClients(t *testing.T) {
	all := goClients()
	Exchange(t, start(t), all, all, 1)
}

func TestKcat(t *testing.T) {
	if _, err := exec.LookPath("kcat"); err != nil {
		t.Skip("kcat is not installed")
	}
	addr := start(t)
	Exchange(t, addr, []Client{Kcat{}}, []Client{Kcat{}, FranzGo{}}, 1000)
	Exchange(t, addr, []Client{FranzGo{}}, []Client{Kcat{}}, 2000)
	out, err := exec.Command("kcat", "-L", "-b", addr).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("franz-go-acks1-zstd")) {
		t.Errorf("kcat -L: %v\n%s", err, out)
	}
}
