# make          builds, tests and lints
# make help     lists the targets

GO ?= go
LINT = $(GO) tool -modfile=tools/go.mod golangci-lint

.PHONY: all build test race lint proto soak fuzz bench cross help

all: build lint race

build: ## the binary, ./dragonload
	$(GO) build -trimpath ./cmd/dragonload

test: ## all tests, a thousand simulated worlds, every fuzz target for 10 s
	$(GO) test ./...
	$(GO) test ./internal/sim -run TestSeeds
	sh internal/fuzz.sh 10s

race: ## all tests with the race detector, and a thousand worlds without; what CI runs
	$(GO) test -race ./...
	$(GO) test ./internal/sim -run TestSeeds

lint: ## go vet and the linters of .golangci.yml, pinned in tools/go.mod
	$(GO) vet ./...
	$(LINT) run

proto: ## generate internal/rpc/gen from proto/ (needs protoc, see CONTRIBUTING.md)
	sh internal/rpc/generate.sh

soak: ## a million seeds through the simulator, to the first that fails: make soak SEEDS=100000 FIRST=1
	$(GO) test ./internal/sim -run TestSeeds -seeds $(or $(SEEDS),1000000) -first-seed $(or $(FIRST),1) -timeout 240h -v

fuzz: ## every fuzz target for 10 s each: make fuzz FUZZTIME=1m
	sh internal/fuzz.sh $(or $(FUZZTIME),10s)

bench: ## the benchmarks; the lab is in bench/README.md
	$(GO) test -run '^$$' -bench . ./...

cross: ## every platform that a release is built for
	for t in linux/amd64 linux/arm64 darwin/arm64 windows/amd64 android/arm64; do \
		echo $$t; CGO_ENABLED=0 GOOS=$${t%/*} GOARCH=$${t#*/} $(GO) build -o /dev/null ./cmd/dragonload || exit 1; done

help:
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'
