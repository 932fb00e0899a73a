//go:build !linux

package bench

// listenerPID is told by /proc, which only Linux has in this form; 0: unknown.
func listenerPID(string) int { return 0 }
