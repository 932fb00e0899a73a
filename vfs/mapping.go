package vfs

import (
	"fmt"
	"runtime"
	"runtime/debug"
)

// Mapping is a read-only mapping of the head of a file. It is valid until
// Close, which must not run while a Read does.
type Mapping struct {
	name  string
	p     []byte
	unmap func([]byte) error
}

// FaultError says that mapped bytes could not be read: the file has shrunk
// under the mapping, or the disk gave an error.
type FaultError struct {
	File string
	Addr uintptr // address of the fault
}

func (e *FaultError) Error() string {
	return fmt.Sprintf("vfs: fault reading mapped file %s at address %#x", e.File, e.Addr)
}

// Len returns how many bytes are mapped.
func (m *Mapping) Len() int64 { return int64(len(m.p)) }

// Bytes returns the mapped bytes, valid until Close. Reading them outside Read
// kills the process where the file has shrunk.
func (m *Mapping) Bytes() []byte { return m.p }

// Read calls fn with the mapped bytes and returns its error, or a *FaultError
// where reading them faulted. fn must not keep p.
func (m *Mapping) Read(fn func(p []byte) error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		fault, ok := v.(interface {
			runtime.Error
			Addr() uintptr
		})
		if !ok {
			panic(v)
		}
		err = &FaultError{File: m.name, Addr: fault.Addr()}
	}()
	return fn(m.p)
}

// Close unmaps.
func (m *Mapping) Close() error {
	p := m.p
	m.p = nil
	if p == nil || m.unmap == nil {
		return nil
	}
	return m.unmap(p)
}
