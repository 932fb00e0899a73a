//go:build race || invariants

package broker

// instrumented: sync.Pool throws things away at random in this build, or checks allocate.
const instrumented = true
