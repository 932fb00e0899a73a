# make builds bin/millrace; make check is the test command, the same that CI runs.
GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 2000x
FUZZ        ?= --inputs 200
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS      = -s -w -X main.version=$(VERSION)
HAVE_CC     := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo yes)

.PHONY: all build check format lint cross test race fuzz-smoke fuzz mutants interop interop-groups interop-java twin bench bench-compare bench-vs-kafka durability-vs-kafka footprint soak crash clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/millrace ./cmd/millrace

check: format lint cross test race fuzz-smoke interop
	@echo "check: all passed"

format:
	@out=$$(gofmt -s -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')) || exit 1; \
	if [ -n "$$out" ]; then echo "gofmt -s would change:"; echo "$$out"; exit 1; fi

lint:
	$(GO) vet ./...
	$(GO) vet -tags synctests ./fuzz
	$(GO) run $(STATICCHECK) ./...
	cd interop && $(GO) vet ./...

cross:
	CGO_ENABLED=0 GOOS=linux  GOARCH=amd64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=linux  GOARCH=arm64 $(GO) build ./...
	CGO_ENABLED=0 GOOS=darwin GOARCH=arm64 $(GO) build ./...

test:
	CGO_ENABLED=0 $(GO) test -timeout 10m ./...
	CGO_ENABLED=0 $(GO) test -timeout 10m -tags invariants ./netio ./broker ./commitlog

race:
ifeq ($(HAVE_CC),yes)
	CGO_ENABLED=1 $(GO) test -race -short -timeout 15m ./...
else
	@echo "race: SKIPPED: the race detector needs a C compiler and there is none here"
endif

# Each native fuzz target for FUZZTIME inputs, then millrace fuzz with the flags in FUZZ; `make fuzz FUZZTIME=5m
# FUZZ="--duration 2h"` is the long form. At a time limit Go's fuzzer
# now and then ends with "context deadline exceeded" and no failing input: that is no finding.
fuzz-smoke:
	@set -e; out=$$(mktemp); trap 'rm -f "$$out"' EXIT; \
	for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | grep -v '^./interop/' | sort); do \
		for t in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$f); do \
			echo "fuzz $$(dirname $$f) $$t"; \
			CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x ./$$(dirname $$f) >"$$out" 2>&1 \
				|| { grep -q 'context deadline exceeded' "$$out" && ! grep -q 'Failing input' "$$out"; } \
				|| { cat "$$out"; exit 1; }; \
		done; done; \
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/millrace ./cmd/millrace; \
	bin/millrace fuzz --seed 1 $(FUZZ)

fuzz: fuzz-smoke

# Planted bugs, one at a time in a copy of the tree; a test has to notice each.
mutants:
	$(GO) run ./fuzz/mutants $(MUTANTS)

# kill -9 under load, then every file checked offline.
crash:
	$(GO) test ./fuzz -run TestKill -v -timeout 60m -kill.rounds=120 -kill.group.rounds=60 -compaction.rounds=120

# What takes minutes, and the last an hour: kills, hostile clients, mangled directories, a full disk, random histories of
# the engine and of groups, transactions checked from the outside.
soak: crash
	$(GO) test ./fuzz -run 'TestStorm|TestMangle|TestDiskFull|TestCleaner' -v -timeout 60m -hostile.duration=2m -mangle.rounds=600 -diskfull.rounds=100
	$(GO) test ./segment ./quorum -run 'Twin|Crash' -count 30 -timeout 60m
	$(GO) test ./commitlog -run 'Twin|Crash|TestFaults$$' -count 30 -timeout 60m -seed.first=0
	$(GO) test ./groups -run TestRandom -timeout 60m -sim.seeds 300
	$(GO) test ./commitlog -run TestCleanModel -timeout 60m -clean.seeds 1000
	$(GO) test ./commitlog -run 'TestPowerCuts|TestOneAnswer' -v -timeout 60m -crash.cuts=10000 -meta.seeds=200
	$(GO) test -tags synctests ./fuzz -run TestSim -v -timeout 3h -sim.broker.seeds=2500 -sim.txn.seeds=100
	$(GO) test ./fuzz -run 'TestTransactions$$|TestPlantedFaultsAreFound' -v -timeout 3h -txn.duration=1h -txn.kill=5s

# -count=1: that bin/millrace is another than last time is not seen by the cache of test results.
interop: build
	cd interop && CGO_ENABLED=0 $(GO) test -count=1 -timeout 10m ./...
ifeq ($(HAVE_CC),yes)
	cd interop && CGO_ENABLED=1 $(GO) test -count=1 -timeout 10m -run Librdkafka ./clients
else
	@echo "interop: librdkafka SKIPPED: confluent-kafka-go needs a C compiler and there is none here"
endif

# franz-go's own tests of its client, and those that its project translated from Kafka's; GROUPS takes
# flags of interop/groups, -rounds 10 for example.
interop-groups: build
	cd interop && MILLRACE=$(CURDIR)/bin/millrace CGO_ENABLED=0 $(GO) run ./groups $(GROUPS)

# Needs a JDK and Maven, which fetches Apache Kafka 4.2 once.
interop-java: twin
	cd interop && $(GO) test -tags java -count=1 -timeout 60m -v ./java ./bytes

# The same seeded requests to Apache Kafka and to Millrace, answers compared field by field.
twin: build
	cd interop && $(GO) test -tags java -count=1 -timeout 60m -v -run KafkaAndMillrace ./twin -sequences 1000

# Every workload beside a warm Apache Kafka, which takes hours: those of produce and fetch beside the least that a broker
# must do as well, then what that does not serve. BENCH and BENCH_MORE name fewer, and take flags of millrace bench run:
# make bench-vs-kafka BENCH='produce --rounds 3' BENCH_MORE=''. Tables and pages with pictures go to bin/.
BENCH      ?= 'produce*' 'many-*' 'consume*' 'end-to-end*' fan-out tail backfill 'connections*'
BENCH_MORE ?= start recover 'groups*' commits 'transactions*' exactly-once 'compaction*' 'beside-cleaner*'
BOTH        = --against kafka,limit
BESIDE      = bin/millrace bench run --spawn kafka --spawn millrace:millrace.durability=os
bench-vs-kafka: build
	$(if $(BENCH),$(BESIDE) --spawn limit $(BOTH) --markdown bin/vs-kafka.md --html bin/vs-kafka.html $(BENCH))
	$(if $(BENCH_MORE),$(BESIDE) --against kafka --markdown bin/vs-kafka-more.md --html bin/vs-kafka-more.html $(BENCH_MORE))

# What waiting for the disk costs, beside Kafka with flush.messages=1, on a journaled ext4 in a loop mount where root
# can make one; VERSUS takes flags.
durability-vs-kafka: build
	cd interop && MILLRACE=$(CURDIR)/bin/millrace CGO_ENABLED=0 $(GO) run ./versus $(VERSUS)

footprint: build
	bin/millrace bench footprint

BENCH_PACKAGES ?= ./batch ./segment ./commitlog ./netio ./wire
bench:
	$(GO) test -run '^$$' -bench . -benchmem $(BENCH_PACKAGES)

# The same at a revision and now, in turns, and how they differ: make bench-compare REF=main~10 ONLY=Append COUNT=10
bench-compare:
	@test -n "$(REF)" || { echo "bench-compare: REF= names the revision to compare with"; exit 2; }
	GO=$(GO) BENCH_PACKAGES='$(BENCH_PACKAGES)' bench/compare.sh '$(REF)' '$(or $(ONLY),.)' '$(or $(COUNT),6)'

clean:
	rm -rf bin
