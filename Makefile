# make builds bin/millrace; make check is the test command, the same that CI runs.
GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2
FUZZTIME    ?= 2s
VERSION     := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS      = -s -w -X main.version=$(VERSION)
HAVE_CC     := $(shell command -v $${CC:-cc} >/dev/null 2>&1 && echo yes)

.PHONY: all build check format lint cross test race fuzz-smoke fuzz interop interop-java twin bench bench-vs-kafka soak crash clean

all: build

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/millrace ./cmd/millrace

check: format lint cross test race fuzz-smoke interop
	@echo "check: all passed"

format:
	@out=$$(gofmt -s -l $$(git ls-files '*.go' 2>/dev/null || find . -name '*.go')); \
	if [ -n "$$out" ]; then echo "gofmt -s would change:"; echo "$$out"; exit 1; fi

lint:
	$(GO) vet ./...
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

# Each fuzz target for FUZZTIME; `make fuzz FUZZTIME=5m` is the long form.
fuzz-smoke:
	@set -e; for f in $$(grep -rlE '^func Fuzz' --include='*_test.go' . | grep -v '^./interop/' | sort); do \
		for t in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*)\(.*/\1/p' $$f); do \
			echo "fuzz $$(dirname $$f) $$t"; \
			CGO_ENABLED=0 $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) ./$$(dirname $$f) >/tmp/fuzz.$$$$ 2>&1 || { cat /tmp/fuzz.$$$$; rm -f /tmp/fuzz.$$$$; exit 1; }; rm -f /tmp/fuzz.$$$$; \
		done; done

fuzz: fuzz-smoke

interop: build
	cd interop && CGO_ENABLED=0 $(GO) test -timeout 10m ./...
ifeq ($(HAVE_CC),yes)
	cd interop && CGO_ENABLED=1 $(GO) test -timeout 10m -run Librdkafka ./clients
else
	@echo "interop: librdkafka SKIPPED: confluent-kafka-go needs a C compiler and there is none here"
endif

bench:
	$(GO) test -run '^$$' -bench . -benchmem ./batch ./segment ./commitlog ./netio ./wire

clean:
	rm -rf bin
