# Two commands do everything: `make demo` and `make test`. The others are the
# parts of them, and what a change to the contracts needs.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
export CGO_ENABLED := 0

BIN      := bin
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X github.com/reevehq/reeve/controlplane.Version=$(VERSION) \
	-X github.com/reevehq/reeve/agent.Version=$(VERSION) \
	-X github.com/reevehq/reeve/controlplane/internal/cli.Version=$(VERSION)
TOOLS    := $(abspath $(BIN)/tools)
# How long each fuzz target runs in "make fuzz".
FUZZTIME ?= 10m
TARGETS  := linux/amd64 linux/arm64 windows/amd64 windows/arm64 darwin/amd64 darwin/arm64

.PHONY: demo test build setup race faults offline fuzz planted bench lint baseline generate check-generated cross tools clean

## demo: build, run the whole job on embedded defaults, show what happened
demo: build
	@go build -o $(BIN)/reeve-demo ./test/demo/cmd/reeve-demo
	@$(BIN)/reeve-demo -bin $(BIN) -dir demo

## build: the three binaries into bin/
build:
	@mkdir -p $(BIN)
	@go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./controlplane/cmd/reeve ./controlplane/cmd/reeve-controlplane ./agent/cmd/reeve-agent

## setup: install the servers and tools that tests need (Debian, root)
setup:
	@test/setup.sh

## test: install what tests need and run everything
test: setup
	go test -timeout 25m ./...

## race: the same under the race detector (needs a C compiler)
race: setup
	CGO_ENABLED=1 go test -race -timeout 30m ./...

## faults: kill 10,000 processes (KILLS=N for more or fewer), cut 1,000 connections; figures go to bin/faults.md
KILLS ?= 10000
faults: setup
	@mkdir -p $(BIN)
	go test -timeout 24h -count 1 -run '^TestCrash$$' -v ./test/faults -kills $(KILLS) -figures $(abspath $(BIN))/faults.md
	go test -timeout 24h -count 1 -run '^TestEveryPartOfAConversationIsCut$$' -v ./test/faults -cuts 1000

## offline: an agent offline for thirty days of a moved clock, with a million records (RECORDS=N)
RECORDS ?= 1000000
offline: setup
	go test -timeout 3h -count 1 -run '^TestThirtyDaysOffline$$' -v ./test/faults -offline $(RECORDS)

## planted: take protections away one at a time and show that tests fail; table in test/planted/RESULTS.md
planted: setup
	nice -n 10 go run ./test/planted/cmd/planted -at-once 2 -results test/planted/RESULTS.md

## bench: each figure beside its peer in the same run; BENCHCOUNT=6 for benchstat
BENCHCOUNT ?= 1
bench: setup
	go test -timeout 2h -run '^$$' -bench . -benchmem -count $(BENCHCOUNT) ./controlplane/... ./agent/... ./plugins/...
	go test -run '^$$' -bench 'Ship$$' -benchtime 20000x -count $(BENCHCOUNT) ./controlplane/internal/intake
	go test -count 1 -v -timeout 60m ./test/load -agents 10000 -settle 130s -people 1000 -changes 10000 -entries 100000 -directory.people 100000
	go test -count 1 -v -timeout 60m -run ComesBack ./test/roundtrip

## fuzz: every fuzz target in turn, FUZZTIME each (10m; make fuzz FUZZTIME=1h)
fuzz:
	@.ci/fuzz $(FUZZTIME) 1

## fuzz-short: every fuzz target for a moment; their seeds run with the tests
fuzz-short:
	@.ci/fuzz 300x 2

## cross: the agent for every platform it supports
cross:
	@for target in $(TARGETS); do \
		echo "agent for $$target"; \
		GOOS=$${target%/*} GOARCH=$${target#*/} go build -trimpath -o /dev/null ./agent/cmd/reeve-agent; \
	done

## lint: vet, golangci-lint, buf lint
lint: tools
	@test -z "$$(gofmt -l agent controlplane pki plugins proto test | tee /dev/stderr)" || { echo 'run gofmt -w on these files'; exit 1; }
	$(TOOLS)/golangci-lint run ./...
	cd proto && $(TOOLS)/buf lint && $(TOOLS)/buf breaking --against baseline.binpb

## baseline: what the contracts of the next release may not break; run at a release
baseline: tools
	cd proto && $(TOOLS)/buf build --exclude-source-info -o baseline.binpb

## generate: Go, gRPC, REST and OpenAPI from the contracts
generate: tools
	cd proto && PATH="$(TOOLS):$$PATH" $(TOOLS)/buf generate
	cd proto && PATH="$(TOOLS):$$PATH" $(TOOLS)/buf generate --template buf.gen.rest.yaml --path reeve/operator

## check-generated: fail when generated code is not what the contracts give
check-generated: generate
	@git diff --exit-code --stat -- proto || { echo 'generated code differs: run make generate and commit it'; exit 1; }

## tools: buf, its plugins and golangci-lint, each from its own module
tools:
	@mkdir -p $(TOOLS)
	@cd .ci/tools/buf && GOBIN=$(TOOLS) go install tool
	@cd .ci/tools/lint && GOBIN=$(TOOLS) go install tool

clean:
	rm -rf $(BIN) demo
