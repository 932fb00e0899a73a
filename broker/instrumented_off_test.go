//go:build !race && !invariants

package broker

const instrumented = false
