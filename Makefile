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
TARGETS  := linux/amd64 linux/arm64 windows/amd64 windows/arm64 darwin/amd64 darwin/arm64

.PHONY: demo test build setup race fuzz bench lint baseline generate check-generated cross tools clean

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
	go test -timeout 15m ./...

## race: the same under the race detector (needs a C compiler)
race: setup
	CGO_ENABLED=1 go test -race -timeout 30m ./...

## bench: the benchmarks, for benchstat
bench:
	go test -run '^$$' -bench . -benchmem -count 6 ./...

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
