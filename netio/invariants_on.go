//go:build invariants

package netio

// invariants says that this build looks for misuse: released frames are overwritten, and
// exchanges are not used again, so that answering one twice is seen.
const invariants = true

func poison(p []byte) {
	for i := range p {
		p[i] = 0xDB
	}
}
