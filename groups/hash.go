package groups

import "unicode/utf16"

// partitionFor is Kafka's place of a group among n partitions; ok is false for none.
func partitionFor(group string, n int32) (partition int32, ok bool) {
	if n <= 0 {
		return 0, false
	}
	h := javaHash(group)
	if h == -1<<31 {
		return 0, true // which has no absolute value; Kafka takes 0
	}
	if h < 0 {
		h = -h
	}
	return h % n, true
}

// javaHash is Java's String.hashCode: over UTF-16 code units, modulo 2³².
func javaHash(s string) int32 {
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
