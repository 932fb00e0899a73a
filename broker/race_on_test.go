//go:build race

package broker

// raceEnabled: sync.Pool throws things away at random in this build.
const raceEnabled = true
