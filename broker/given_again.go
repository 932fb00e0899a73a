package broker

import "github.com/twmb/franz-go/pkg/kmsg"

// Groups and transactional ids that a request names over and over are asked for once, and told again as far as that goes.
// Where an answer is no larger than a refusal, those that go too far are left out.

// maxAgainBytes bounds what a small request can have told again. What passes it is told whole.
const maxAgainBytes = 16 << 20

var tooManyGroupsAgain = "Too many groups of the request are given more than once."

// fold says which of n keys are given for the first time, and for each key the place of its first among these.
func fold[K comparable](n int, key func(i int) K) (firsts, of []int) {
	seen := map[K]int{} // as large as there are firsts: n may be millions of the same
	of = make([]int, n)
	for i := range n {
		k := key(i)
		at, again := seen[k]
		if !again {
			at = len(firsts)
			seen[k] = at
			firsts = append(firsts, i)
		}
		of[i] = at
	}
	return firsts, of
}

// distinct keeps of keys the first of each and, in their places, as many as again of those given again. It works in place.
func distinct(keys []string, again int) []string {
	seen := map[string]bool{}
	kept := keys[:0]
	for _, key := range keys {
		if seen[key] {
			if again--; again < 0 {
				continue
			}
		}
		seen[key] = true
		kept = append(kept, key)
	}
	return kept
}

// chosen gives the elements of s at these places.
func chosen[T any](s []T, places []int) []T {
	out := make([]T, len(places))
	for i, at := range places {
		out[i] = s[at]
	}
	return out
}

// unfold gives the answers to all that was asked, of those to the firsts, which it shares: those given again until their
// size is too much, then what refused makes of them.
func unfold[T any](of []int, answers []T, size func(T) int, refused func(T) T) []T {
	out := make([]T, len(of))
	sizes := make([]int, len(answers)) // 0: not asked for yet
	told, again := 0, 0
	for i, at := range of {
		switch {
		case at == told:
			told++
			out[i] = answers[at]
		case again >= maxAgainBytes:
			out[i] = refused(answers[at])
		default:
			if sizes[at] == 0 {
				sizes[at] = size(answers[at])
			}
			again += sizes[at]
			out[i] = answers[at]
		}
	}
	return out
}

// sizeOf is how many bytes an answer has at the request's version.
func (c *call) sizeOf(resp kmsg.Response) int {
	resp.SetVersion(c.h.APIVersion)
	return len(resp.AppendTo(nil))
}
