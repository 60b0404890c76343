# Fairlead. `make help` lists what there is.

# Not go run: it would turn every exit status into 1.
SUITES_BIN = go build -o .tools/bin/suites ./tools/suites && .tools/bin/suites

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
export CGO_ENABLED ?= 0
export ENVOY_BIN ?= $(CURDIR)/.tools/bin/envoy

.PHONY: help build demo test test-spire lint bench fuzz soak tools clean

help:
	@echo 'make build            the binary ./fairlead'
	@echo 'make demo             three services and a gateway, encrypted, in front of you (ARGS=--keep leaves it running)'
	@echo 'make test             every suite; as root also those that need root (SUITES="lint unit" for some)'
	@echo 'make test-spire       SPIRE with Fairlead as its upstream authority; builds SPIRE the first time, for minutes'
	@echo 'make lint             gofmt, go vet, staticcheck'
	@echo 'make bench            the benchmarks beside their baselines; writes docs/benchmarks.md'
	@echo 'make fuzz             every fuzz target for a minute (FUZZTIME=10m for longer)'
	@echo 'make soak             the long tests: many more specs, graphs and kills (SOAK=20 times as many)'
	@echo 'make tools            the pinned tools, into .tools'
	@echo 'make clean            removes what make made, .tools too'

build:
	go build -trimpath -buildvcs=false -ldflags '-X main.version=$(VERSION)' -o fairlead ./cmd/fairlead

demo: build
	@tools/install.sh envoy
	@./fairlead demo $(ARGS)

# Exits 3 (which make shows as "Error 3") if nothing failed but a suite did not run.
test: build
	@tools/packages.sh
	@tools/install.sh envoy aws moto javascript staticcheck
	@$(SUITES_BIN) $(SUITES)

# Not in make test: SPIRE is large, and built here.
test-spire:
	@tools/packages.sh
	@tools/install.sh spire
	go test -tags spire -count 1 -timeout 10m ./e2e/spire

lint:
	@tools/install.sh staticcheck
	@$(SUITES_BIN) lint

bench: build
	@tools/install.sh envoy
	@go run ./bench $(ARGS)

FUZZTIME ?= 1m
fuzz:
	@$(SUITES_BIN) -fuzztime $(FUZZTIME) fuzz

SOAK ?= 20
soak: build
	@tools/packages.sh
	@tools/install.sh envoy aws moto javascript
	@go build -o .tools/bin/suites ./tools/suites && FAIRLEAD_SOAK=$(SOAK) .tools/bin/suites -timeout 24h unit e2e

tools:
	@tools/install.sh envoy aws moto javascript staticcheck

clean:
	rm -rf fairlead bench/out .tools
