package commitlog

import (
	"os"
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
