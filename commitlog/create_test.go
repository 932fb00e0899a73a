package commitlog

import (
	"errors"
	"os"
	"syscall"
	"testing"

	"github.com/millrace-project/millrace/vfs"
)

// No empty log is made over records, whoever put them there: their offsets would be given out again.
func TestCreateOverRecords(t *testing.T) {
	mem := vfs.NewMem()
	s := mustOpen(t, testOptions(mem))
	defer s.Close(1)
	name := testDir + "/t-0/00000000000000000005.log"
	if err := mem.MkdirAll(testDir+"/t-0", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := vfs.WriteFileAtomic(mem, name, []byte("records")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create("t-0", TopicID{1}, testConfig()); err == nil {
		t.Error("an empty log was made over records")
	}
	if p, err := vfs.ReadFile(mem, name); err != nil || string(p) != "records" {
		t.Errorf("%q, %v", p, err)
	}
	if err := mem.Remove(name); err != nil {
		t.Fatal(err)
	}
	f, err := mem.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o644) // what a create that was cut short leaves
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	mustCreate(t, s, "t-0")
}

// TestUpkeepBesideACreate: no upkeep comes upon a log that is being made, or whose making has failed; its name is taken.
func TestUpkeepBesideACreate(t *testing.T) {
	making, goOn := make(chan bool), make(chan error)
	s := mustOpen(t, testOptions(vfs.NewFaulty(vfs.NewMem(), func(op vfs.Op) error {
		if op.Kind == vfs.OpMkdir && op.Name == testDir+"/t-0" {
			making <- true
			return <-goOn
		}
		return nil
	})))
	mustCreate(t, s, "u-0")
	create := func() chan error {
		ended := make(chan error)
		go func() {
			_, err := s.Create("t-0", TopicID{1}, testConfig())
			ended <- err
		}()
		<-making
		return ended
	}
	for _, fault := range []error{syscall.ENOSPC, nil} {
		ended := create()
		retainAll(s)
		if !s.janitor.scrub.begin(fixedClock()) {
			t.Fatal("nothing to scrub")
		}
		if _, err := s.Create("t-0", TopicID{2}, testConfig()); !errors.Is(err, ErrExists) {
			t.Errorf("a second of that name: %v", err)
		}
		goOn <- fault
		if err := <-ended; !errors.Is(err, fault) {
			t.Fatal(err)
		}
		if _, done := s.janitor.scrub.slice(fixedClock()); !done {
			t.Error("the scrub goes on")
		}
		retainAll(s)
	}
	if l := s.Log("t-0"); l == nil || l.Err() != nil {
		t.Fatal("it was not made")
	}
	if err := s.Delete("t-0"); err != nil {
		t.Fatal(err)
	}
	ended := create()
	if err := s.Close(1); err != nil {
		t.Fatal(err)
	}
	goOn <- nil
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("made when the store was closed: %v", err)
	}
}
