package coordinator

import "sync"

// Gather calls done once n results were put, from any goroutines, each in its place.
func Gather[T any](n int, done func(all []T)) (put func(i int, v T)) {
	if n == 0 {
		done(nil)
		return func(int, T) { panic("BUG: a result of nothing") }
	}
	var mu sync.Mutex
	all, left := make([]T, n), n
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
