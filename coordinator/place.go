package coordinator

import "unicode/utf16"

// place is Kafka's place of a key (a group, a transactional id) among n partitions of an internal topic: Java's
// String.hashCode, which goes over UTF-16 code units, made positive. ok is false for none.
func place(key string, n int32) (partition int32, ok bool) {
	if n <= 0 {
		return 0, false
	}
	switch h := JavaHash(key); {
	case h == -1<<31: // which has no absolute value; Kafka takes 0
		return 0, true
	case h < 0:
		return -h % n, true
	default:
		return h % n, true
	}
}

// JavaHash is Java's String.hashCode.
func JavaHash(s string) int32 {
	var h int32
	for _, r := range s {
		if r < 0x10000 {
			h = 31*h + r
			continue
		}
		hi, lo := utf16.EncodeRune(r)
		h = 31*(31*h+hi) + lo
	}
	return h
}
