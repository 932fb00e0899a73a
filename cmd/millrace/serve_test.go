package main

import (
	"runtime"
	"testing"
)

// More threads run Go while logs are loaded, and as many as before afterwards: the default, or what the environment says.
func TestLoading(t *testing.T) {
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	runtime.SetDefaultGOMAXPROCS()
	for env, want := range map[string]int{"": runtime.GOMAXPROCS(0), "3": 3, "40": 40} {
		t.Setenv("GOMAXPROCS", env)
		runtime.GOMAXPROCS(want) // as the runtime does at the start
		done := loading()
		if got := runtime.GOMAXPROCS(0); got != max(want, loadingProcessors) {
			t.Errorf("GOMAXPROCS=%q: %d while loading, want %d", env, got, max(want, loadingProcessors))
		}
		done()
		if got := runtime.GOMAXPROCS(0); got != want {
			t.Errorf("GOMAXPROCS=%q: %d afterwards, want %d", env, got, want)
		}
	}
}
