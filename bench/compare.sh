#!/bin/sh
# compare.sh REF [REGEXP [COUNT]]: the micro-benchmarks of a revision and of the working tree, COUNT
# times in turns, and what benchstat says of the two. `make bench-compare REF=main~10` calls it.
#
# Both sides are compiled first and then take turns, so that a machine that becomes slower or faster
# meanwhile does so for both. BENCH_PACKAGES names the packages.
set -eu

ref=${1:?usage: compare.sh REF [REGEXP [COUNT]]}
regexp=${2:-.}
count=${3:-6}
packages=${BENCH_PACKAGES:?names no packages}
go=${GO:-go}
BENCHSTAT=golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da

root=$(git rev-parse --show-toplevel)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
mkdir "$work/ref"
git -C "$root" archive "$ref" | tar -x -C "$work/ref"

# build TREE SIDE compiles the tests of each package that the tree has.
build() {
	for p in $packages; do
		[ -d "$1/$p" ] || continue
		(cd "$1" && "$go" test -c -o "$work/$2-$(basename "$p").test" "$p")
	done
}
build "$work/ref" old
build "$root" new

# measure TREE SIDE runs them once, where their testdata is.
measure() {
	for p in $packages; do
		[ -x "$work/$2-$(basename "$p").test" ] || continue
		(cd "$1/$p" && "$work/$2-$(basename "$p").test" -test.run '^$' -test.bench "$regexp" -test.benchmem) >>"$work/$2.txt"
	done
}
i=1
while [ "$i" -le "$count" ]; do
	echo "round $i of $count" >&2
	measure "$work/ref" old
	measure "$root" new
	i=$((i + 1))
done
cd "$work" && "$go" run "$BENCHSTAT" old=old.txt new=new.txt
