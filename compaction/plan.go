package compaction

import (
	"math"
	"slices"
	"strconv"
	"strings"
)

// Suffixes on top of a segment file's name. A swap writes its new segments as
// .cleaned, renames them to .swap in descending order of base offset (from then on
// the swap rolls forward), renames the replaced files to .deleted, and the new ones
// to their final names.
const (
	DeletedSuffix = ".deleted"
	CleanedSuffix = ".cleaned"
	SwapSuffix    = ".swap"
)

// Plan says how to end interrupted swaps. The steps are to be done in order:
//
//  1. a sync of the directory, if SyncAt is not 0 or Rename not empty: a killed
//     process leaves names that a power cut may still take back;
//  2. the first SyncAt names of Delete, and a sync of the directory if there are any:
//     without it an unfinished swap could look finished;
//  3. the other names of Delete, and a sync if something was deleted and Rename is
//     not empty: or a replaced segment survives beside the one that replaced it;
//  4. of Rename the logs, a sync, the others: beside a .swap log, indexes with final
//     names would be taken for those that it replaces.
//
// Then a crash at any point leaves names from which PlanRecovery plans the rest.
type Plan struct {
	Delete []string
	SyncAt int
	Rename []Rename
}

// Rename is one file to rename.
type Rename struct{ From, To string }

// Empty reports whether there is nothing to do.
func (p *Plan) Empty() bool { return len(p.Delete) == 0 && len(p.Rename) == 0 }

// PlanRecovery plans, from the names in a partition's directory, what Kafka does
// when it opens it, in the order of its LogLoader:
//
//  1. Files ending in .deleted go, but not snapshots of the metadata log.
//  2. Of the .cleaned files, all go. A .swap file whose base offset is not below
//     the smallest of theirs belongs to a swap that was not yet ready: it goes too.
//  3. The remaining .swap logs are whole: every other segment file (log, indexes,
//     producer snapshot) within [smallest base, greatest next offset) is replaced
//     by them and goes, and every .swap file gets its final name.
//
// nextOffset returns one past the last offset of the log file with that name; it is
// called only for .swap logs of step 3. The plan of an error is not to be used.
func PlanRecovery(names []string, nextOffset func(name string) (int64, error)) (Plan, error) {
	names = slices.Sorted(slices.Values(names))
	var p Plan
	var cleaned, swaps, rest []string
	minCleaned := int64(math.MaxInt64)
	for _, name := range names {
		switch {
		case strings.HasSuffix(name, DeletedSuffix):
			if !isMetadataSnapshot(strings.TrimSuffix(name, DeletedSuffix)) {
				p.Delete = append(p.Delete, name)
			}
		case strings.HasSuffix(name, CleanedSuffix):
			cleaned = append(cleaned, name)
			if base, ok := segmentFile(strings.TrimSuffix(name, CleanedSuffix)); ok {
				minCleaned = min(minCleaned, base)
			}
		case strings.HasSuffix(name, SwapSuffix):
			swaps = append(swaps, name)
		default:
			rest = append(rest, name)
		}
	}
	lo, hi := int64(math.MaxInt64), int64(math.MinInt64)
	for _, name := range swaps {
		final := strings.TrimSuffix(name, SwapSuffix)
		base, ok := segmentFile(final)
		if !ok || base >= minCleaned {
			p.Delete = append(p.Delete, name)
			p.SyncAt = len(p.Delete)
			continue
		}
		p.Rename = append(p.Rename, Rename{From: name, To: final})
		if strings.HasSuffix(final, ".log") {
			next, err := nextOffset(name)
			if err != nil {
				return Plan{}, err
			}
			lo, hi = min(lo, base), max(hi, next)
		}
	}
	p.Delete = append(p.Delete, cleaned...)
	for _, name := range rest {
		if base, ok := segmentFile(name); ok && base >= lo && base < hi {
			p.Delete = append(p.Delete, name)
		}
	}
	return p, nil
}

// segmentFile returns the offset in the name of a file that belongs to a segment:
// 20 digits and one of the segment's suffixes.
func segmentFile(name string) (off int64, ok bool) {
	digits, ext, _ := strings.Cut(name, ".")
	switch ext {
	case "log", "index", "timeindex", "txnindex", "snapshot":
	default:
		return 0, false
	}
	if len(digits) != 20 {
		return 0, false
	}
	unsigned, err := strconv.ParseUint(digits, 10, 63) // a sign is no digit
	return int64(unsigned), err == nil
}

// isMetadataSnapshot tells a snapshot of the metadata log, which the metadata log
// removes itself: %020d-%010d.checkpoint.
func isMetadataSnapshot(name string) bool {
	return strings.HasSuffix(name, ".checkpoint")
}
