package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTable: each mutant's text is in its file, once, and planting it changes something.
func TestTable(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		code, err := os.ReadFile(filepath.Join("..", "..", m.file))
		if err != nil {
			t.Error(err)
			continue
		}
		if n := strings.Count(string(code), m.old); n != 1 {
			t.Errorf("%s: its text is %d times in %s", m.name, n, m.file)
		}
		if names[m.name] || m.old == m.new || m.run == "" {
			t.Errorf("%s: named twice, changes nothing or has no test", m.name)
		}
		names[m.name] = true
	}
}
