package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// place is the file system that all brokers' data lies on. Every figure names it, because a
// file system without a journal syncs almost for nothing and flatters whoever syncs.
type place struct {
	dir    string
	name   string
	mount  string // "" when it is a plain directory
	device string
}

// newPlace makes a journaled ext4 on a loop device, or says aloud why it could not and takes a
// plain directory.
func newPlace(o options, work string) (*place, error) {
	if o.dir != "" {
		dir, err := os.MkdirTemp(o.dir, "versus-")
		return &place{dir: dir, name: "the directory " + o.dir + " (" + fileSystem(o.dir) + ")"}, err
	}
	p := &place{mount: filepath.Join(work, "mount")}
	err := p.loop(filepath.Join(work, "image"), o.imageBytes)
	if err == nil {
		return p, nil
	}
	dir := filepath.Join(work, "data")
	name := fmt.Sprintf("%s (%s), NOT a journaled loop mount: syncs may be flattered", dir, fileSystem(work))
	fmt.Printf("NO LOOP MOUNT: %v\n", err)
	return &place{dir: dir, name: name}, os.MkdirAll(dir, 0o755)
}

// loop mounts an image with direct I/O, so that its pages are not cached a second time below it.
func (p *place) loop(image string, size int64) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("only root can make one")
	}
	f, err := os.Create(image)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := os.MkdirAll(p.mount, 0o755); err != nil {
		return err
	}
	if _, err := command("mkfs.ext4", "-q", "-F", image); err != nil {
		return err
	}
	device, err := command("losetup", "--direct-io=on", "--find", "--show", image)
	if err != nil {
		return err
	}
	if _, err := command("mount", "-o", "noatime", device, p.mount); err != nil {
		_, detachErr := command("losetup", "--detach", device)
		return fmt.Errorf("%w (detach: %v)", err, detachErr)
	}
	p.device, p.dir = device, p.mount
	p.name = fmt.Sprintf("journaled ext4 on %s (direct I/O), an image on %s", device, fileSystem(filepath.Dir(image)))
	return nil
}

// release removes the data and the mount.
func (p *place) release() {
	var err error
	if p.device == "" {
		err = os.RemoveAll(p.dir)
	} else if _, err = command("umount", p.mount); err == nil {
		_, err = command("losetup", "--detach", p.device)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "versus: left behind:", err)
	}
}

// settle writes back what is dirty, so that no figure pays for the one before it.
func (p *place) settle() error {
	_, err := command("sync", "-f", p.dir)
	return err
}

// describeSync measures and prints what a small durable append costs here: the ground below
// every figure of durability sync.
func (p *place) describeSync() error {
	f, err := os.CreateTemp(p.dir, "probe-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const n = 200
	buf, took := make([]byte, 4096), make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		if _, err := f.Write(buf); err != nil {
			return err
		}
		if err := syscall.Fsync(int(f.Fd())); err != nil {
			return err
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	fmt.Printf("4 KiB append + fsync there: p50 %v, p99 %v\n", took[n/2].Round(time.Microsecond), took[n*99/100].Round(time.Microsecond))
	return nil
}

// fileSystem names what a directory lies on.
func fileSystem(dir string) string {
	out, err := command("stat", "-f", "-c", "%T", dir)
	if err != nil {
		return "an unknown file system"
	}
	return out
}

func command(name string, args ...string) (string, error) {
	out, err := exec.Command(name, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", name, err, text)
	}
	return text, nil
}
