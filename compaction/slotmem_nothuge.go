//go:build unix && !linux

package compaction

func adviseHuge([]byte) {}
