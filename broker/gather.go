package broker

import "sync"

// gather collects n answers that come one by one, from any goroutine, and gives them all in the order of their places, with
// the last.
func gather[T any](n int, done func(all []T)) (put func(i int, v T)) {
	all := make([]T, n)
	if n == 0 {
		done(all)
	}
	var mu sync.Mutex
	left := n
	return func(i int, v T) {
		mu.Lock()
		all[i] = v
		left--
		last := left == 0
		mu.Unlock()
		if last {
			done(all)
		}
	}
}
