//go:build race

package netio

// raceEnabled: sync.Pool throws things away at random in this build.
const raceEnabled = true
