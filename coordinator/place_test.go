package coordinator

import "testing"

func TestPlaceIsKafkas(t *testing.T) {
	for _, c := range []struct {
		key  string
		hash int32
		of50 int32
	}{
		{"", 0, 0},
		{"abc", 96354, 4},
		{"polygenelubricants", -1 << 31, 0}, // no absolute value
		{"GROUP-😀", 1290741649, 49},         // beyond the basic plane: two code units
		{"console-consumer-12345", 158455506, 6},
	} {
		if h := JavaHash(c.key); h != c.hash {
			t.Errorf("%q hashes to %d, want %d", c.key, h, c.hash)
		}
		if p, ok := place(c.key, 50); !ok || p != c.of50 {
			t.Errorf("%q has its place in %d, want %d", c.key, p, c.of50)
		}
	}
	if _, ok := place("abc", 0); ok {
		t.Error("a place among no partitions")
	}
}
