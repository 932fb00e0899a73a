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

// Restart measures processes, and files with holes.
type Restart struct {
	Binary, Dir                         string
	Set                                 []string
	Topics, Partitions, Segments, Kills int
	FillBytes, LogBytes                 int64
	BatchBytes, InFlight                int
	Load                                time.Duration
}

// Run says that this system cannot tell.
func (Restart) Run(context.Context, io.Writer) error {
	return errors.New("bench: restarts can be measured on Linux only")
}
