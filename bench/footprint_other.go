//go:build !linux

package bench

import (
	"context"
	"errors"
	"io"
	"time"
)

// Footprint measures a process from /proc, which only Linux has in this form.
type Footprint struct {
	Binary, Dir                     string
	Starts, Partitions, Connections int
	Idle                            time.Duration
}

// Run says that this system cannot tell.
func (Footprint) Run(context.Context, io.Writer) error {
	return errors.New("bench: the footprint can be measured on Linux only")
}
