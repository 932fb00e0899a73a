// Package fuzz holds the searches that need more than one package, and the one that every user can
// run: millrace fuzz, which mutates inputs from a seed over targets (every decoder of what stands on
// disk, every request, the recovery of whole directories) and needs no Go toolchain. A search is
// made of targets (target.go), seeded inputs (stream.go, mutate.go) that begin with a corpus (corpus.go),
// a process that tries them (worker.go) and one that watches it (supervise.go), so that a hang, a fatal error or a panic in
// another goroutine is a finding with its input like any other.
//
// The tests of this package are the searches that take a real process or a real disk: a broker
// killed again and again under load, with its transactions checked from the outside, hostile clients
// beside honest ones, directories mangled before they are opened, a disk that is full. The
// simulations (sim_*_test.go) are the same without either: a network, a disk and a clock of their own
// make power cuts as cheap as requests. What one package can search alone stands as a fuzz target
// beside its code. Every search prints the seed that it can be repeated from.
package fuzz
