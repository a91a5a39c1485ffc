# Every target that carries a ## comment shows up in `make help`.

GO  ?= go
BIN := $(CURDIR)/bin

.DEFAULT_GOAL := help

.PHONY: help build test race vet staticcheck layers cross contrib contrib-stress bench bench-quick examples mutants model kill crash fuzz verify verify-quick ci power soak mutilate

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## everything in the root module
	$(GO) build ./...

test: ## the tests of the root module
	$(GO) test ./...

race: ## the same under the race detector (needs a C compiler)
	$(GO) test -race ./...

vet: ## go vet and gofmt
	$(GO) vet ./...
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not formatted:"; echo "$$out"; exit 1; }

staticcheck: ## staticcheck, at the version internal/tools pins
	GOWORK=off $(GO) build -C internal/tools -o $(BIN)/ honnef.co/go/tools/cmd/staticcheck
	$(BIN)/staticcheck ./...

layers: ## who may import whom, and the other rules of the tree
	$(GO) test -count=1 -run 'TestLayers|TestOnly|TestLibraries|TestRequirements|TestGoroutines|TestFiles|TestExported|TestNested|TestContrib' .

cross: ## builds for linux, darwin and windows
	@for os in linux darwin windows; do echo "GOOS=$$os"; GOOS=$$os $(GO) build ./... || exit 1; done

contrib: ## the adapters, each alone, against the suites of others
	.ci/run contrib

contrib-stress: ## the same in full under the race detector, ten times at once; a while
	@for mod in contrib/*/go.mod; do \
		GOWORK=off $(GO) test -C $$(dirname $$mod) -race -count=1 -timeout 1h -tags stress ./... || exit 1; \
	done

bench: ## the benchmark, with its ratios against the machine itself
	$(GO) run ./bench

bench-quick: ## the same with less of everything
	$(GO) run ./bench -quick

examples: ## runs every example
	.ci/run examples

mutants: ## breaks the engine line by line: would the tests notice? (RUN=regexp)
	$(GO) run ./internal/mutants -run '$(RUN)'

model: ## random work against a reference queue
	$(GO) test -count=1 -run Model .

kill: ## kill -9 in a loop: is all there that was acknowledged?
	$(GO) test -count=1 -run Kill .

crash: ## random histories of the log with power cuts (SEEDS=10000)
	$(GO) test -count=1 -run 'TestCrash$$' ./commitlog -seeds $(SEEDS)

power: ## the same with a whole broker (SEEDS=10000; SEED=n goes through one again)
	$(GO) test -count=1 -v -timeout 3h -run 'TestPowerCuts$$' . -seeds $(SEEDS) $(if $(SEED),-history $(SEED))

soak: ## joins, resets, slow handlers, reopens under the race detector (FOR=10m)
	$(GO) test -C verify -race -count=1 -v -timeout 24h -run 'TestSoak$$' ./soak -for $(FOR)

FOR      ?= 10m
mutilate: ## every byte of every file cut, zeroed, overwritten, flipped (HOW=turns: one of the four at each)
	GOGC=400 $(GO) test -count=1 -run 'TestMutilate$$' -v -timeout 0 . -mutilate $(HOW)

SEEDS    ?= 10000
HOW      ?= every
FUZZTIME ?= 10s

fuzz: ## every fuzz target for a while (FUZZTIME=10s)
	@grep -rl '^func Fuzz' --include='*_test.go' . | xargs -n1 dirname | sort -u | while read -r dir; do \
		for f in $$(cat $$dir/*_test.go | sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\).*/\1/p'); do \
			echo "== $$dir $$f"; $(GO) test -C $$dir -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) . || exit 1; \
		done || exit 1; \
	done

verify: ## the fault lab in full, two to three hours, as root; rivals too (ARGS="kill ext4" for some)
	$(GO) run ./verify/cmd/lab $(ARGS)

verify-quick: ## a sample of each of its tools, under two minutes
	$(GO) run ./verify/cmd/lab -quick $(ARGS)

ci: ## all that a change has to pass
	.ci/run
