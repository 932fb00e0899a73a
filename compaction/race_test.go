//go:build race

package compaction

const raceEnabled = true // pools forget at random then
