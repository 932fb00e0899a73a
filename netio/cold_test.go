package netio

import (
	"bytes"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowDisk brings what is asked for into memory after a while: never, if that is 0.
type slowDisk struct {
	takes time.Duration
	mu    struct {
		sync.Mutex
		reading, most int   // requests that are out, and at once
		asked         []int // the bytes of each request
	}
}

// coldView is a View of bytes that lie on a slowDisk.
type coldView struct {
	data []byte
	disk *slowDisk
	mu   struct {
		sync.Mutex
		there int64 // bytes that are in memory
	}
}

func (v *coldView) Len() int64                  { return int64(len(v.data)) }
func (v *coldView) Fd() (uintptr, int64, bool)  { return 0, 0, false }
func (v *coldView) Close() error                { return nil }
func (v *coldView) ReadOn(int64, int64, uint64) {}
func (v *coldView) Resident(at, n int64, _ uint64) (there, cold bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return at+n <= v.mu.there, true
}
func (v *coldView) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(v.data).ReadAt(p, at)
}

func (v *coldView) ReadAhead(at, n int64, _ uint64) {
	d := v.disk
	d.mu.Lock()
	d.mu.reading++
	d.mu.most = max(d.mu.most, d.mu.reading)
	d.mu.asked = append(d.mu.asked, int(n))
	d.mu.Unlock()
	if d.takes == 0 {
		return
	}
	time.AfterFunc(d.takes, func() {
		d.mu.Lock()
		d.mu.reading--
		d.mu.Unlock()
		v.mu.Lock()
		v.mu.there = at + n
		v.mu.Unlock()
	})
}

// serveCold answers API 1 with n bytes of the disk and echoes the rest.
func serveCold(t *testing.T, d *slowDisk, n int) (m *Memory, want []byte) {
	want = bytes.Repeat([]byte("cold"), n/4)
	m, s := startMemory(t, Options{Handler: handlerFunc(func(c *Conn, xs []*Exchange) {
		for _, x := range xs {
			if x.Frame[1] != 1 {
				echo(c, []*Exchange{x})
				continue
			}
			r := NewReply()
			r.AddView(&coldView{data: want, disk: d})
			x.Reply(r)
		}
	})})
	t.Cleanup(func() { s.Close() })
	return m, want
}

// get sends a request of an API and returns the answer and how long that took.
func get(t *testing.T, c *MemoryConn, api int16) ([]byte, time.Duration) {
	t.Helper()
	from := time.Now()
	if _, err := c.Write(frame(api, nil)); err != nil {
		t.Error(err)
	}
	p, err := readFrame(c)
	if err != nil {
		t.Error(err)
	}
	return p, time.Since(from)
}

// Bytes that are not in memory are asked for a part at a time and waited for; who wants
// others does not wait.
func TestColdViewIsAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{takes: 20 * time.Millisecond}
		m, want := serveCold(t, d, 2*coldChunk+coldChunk/2)
		cold, hot := dialMemory(t, m), dialMemory(t, m)
		done := make(chan struct{})
		go func() {
			defer close(done)
			p, took := get(t, cold, 1)
			if !bytes.Equal(p, want) {
				t.Errorf("%d bytes, want %d", len(p), len(want))
			}
			if took < 3*d.takes || took > 3*(d.takes+2*coldPoll) {
				t.Errorf("three parts took %v", took)
			}
		}()
		synctest.Wait() // the cold one sleeps
		if _, took := get(t, hot, 0); took != 0 {
			t.Errorf("an answer without cold bytes took %v", took)
		}
		<-done
		if got := d.mu.asked; len(got) != 3 || got[0] != coldChunk || got[1] != coldChunk || got[2] != coldChunk/2 {
			t.Errorf("the disk was asked for %v", got)
		}
		get(t, hot, 0)
		cold.Close()
		hot.Close()
	})
}

// However many connections want cold bytes, the disk is asked for few of them at once, and
// each has its turn; one that goes away while it waits keeps nobody else.
func TestColdReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{takes: 10 * time.Millisecond}
		m, want := serveCold(t, d, coldChunk)
		for range 4 * maxColdReads() {
			c := dialMemory(t, m)
			if _, err := c.Write(frame(1, nil)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			c.Close()
		}
		var wg sync.WaitGroup
		for range 8 * maxColdReads() {
			c := dialMemory(t, m)
			wg.Go(func() {
				defer c.Close()
				if p, _ := get(t, c, 1); !bytes.Equal(p, want) {
					t.Errorf("%d bytes, want %d", len(p), len(want))
				}
			})
		}
		wg.Wait()
		if d.mu.most > 2*maxColdReads() { // of those that went, the disk goes on reading
			t.Errorf("%d requests to the disk at once", d.mu.most)
		}
	})
}

// A disk that does not say when it is done is waited for by the kernel, after a while.
func TestColdViewOfADiskThatNeverEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, want := serveCold(t, new(slowDisk), SendfileMinBytes)
		c := dialMemory(t, m)
		p, took := get(t, c, 1)
		if !bytes.Equal(p, want) || took < coldPatience || took > 2*coldPatience {
			t.Errorf("%d bytes of %d after %v", len(p), len(want), took)
		}
		c.Close()
	})
}

// A small View is not asked after: that would cost more than it takes to read it.
func TestSmallViewIsNotAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := new(slowDisk)
		m, want := serveCold(t, d, SendfileMinBytesAtEnd-4)
		c := dialMemory(t, m)
		if p, took := get(t, c, 1); !bytes.Equal(p, want) || took != 0 || len(d.mu.asked) > 0 {
			t.Errorf("%d bytes after %v; the disk was asked for %v", len(p), took, d.mu.asked)
		}
		c.Close()
		if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("read of a closed connection: %v", err)
		}
	})
}
