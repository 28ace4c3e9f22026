# The same targets are what .ci/run calls.

GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
HELM := helm.sh/helm/v3/cmd/helm@v3.22.0
HELM_DOCS := github.com/norwoodj/helm-docs/cmd/helm-docs@v1.14.2
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
SYFT := github.com/anchore/syft/cmd/syft@v1.38.2
COSIGN := github.com/sigstore/cosign/v3/cmd/cosign@v3.1.3
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
BENCHSTAT := golang.org/x/perf/cmd/benchstat@v0.0.0-20260908200009-22c9c6c9d4da
IMAGE ?= gateway:$(VERSION)
DOCKER ?= docker
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME ?= 30s
BENCH ?= .
COUNT ?= 6
BASE ?=
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help deps run test race story e2e hostile e2e-k8s proxies lint chart chart-readme workflows vulnerabilities fuzz bench bench-floor build image scan dist cosign tidy-check

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "%-16s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## install redis-server, which the tests start, if it is missing
	@.ci/deps redis

run: ## start a gateway in development mode (ARGS="--listen 127.0.0.1:8081")
	go run ./cmd/gateway serve --dev $(ARGS)

test: deps ## run all tests
	go test -timeout 15m ./...

race: deps ## run all tests in random order under the race detector
	@.ci/deps compiler
	CGO_ENABLED=1 go test -race -shuffle=on -timeout 30m ./...

story: deps ## two gateways and a Redis, one gateway killed: what becomes of the messages
	go run ./examples/story

e2e: deps ## roll three gateways under load, kill them, restart Redis: what becomes of the messages (5 minutes)
	go run ./examples/e2e

hostile: deps ## 50 good clients beside attackers of every kind; then with a defence less, which must fail (2 minutes)
	go run ./examples/hostile $(ARGS)
	go run ./examples/hostile -control

proxies: deps ## nginx and HAProxy in front of two gateways, reloaded and restarted (2 minutes)
	@.ci/deps nginx haproxy
	go run ./examples/proxies

e2e-k8s: ## install the chart on a real Kubernetes (kind) and put it through updates, lost machines, no Redis (15 minutes)
	@.ci/deps prometheus
	go run ./examples/k8s $(ARGS)

chart: bin/tools/helm bin/tools/helm-docs ## lint and render the chart, test its alerts
	@.ci/deps prometheus
	PATH="$(CURDIR)/bin/tools:$$PATH" go test -tags chart -count 1 ./charts/...

chart-readme: bin/tools/helm-docs ## write charts/gateway/README.md anew from values.yaml
	bin/tools/helm-docs -c charts

# Tools are Go programs of fixed versions, whose source the checksum database vouches for.
bin/tools/helm: TOOL = $(HELM)
bin/tools/helm-docs: TOOL = $(HELM_DOCS)
bin/tools/syft: TOOL = $(SYFT)
bin/tools/cosign: TOOL = $(COSIGN)
bin/tools/%: Makefile
	GOBIN=$(CURDIR)/bin/tools CGO_ENABLED=0 go install -ldflags '-s -w' $(TOOL)
	@touch $@

cosign: bin/tools/cosign ## build the tool that signs releases

dist: bin/tools/helm bin/tools/syft ## build what a release consists of, besides the image, into dist/
	@VERSION=$(VERSION) HELM=bin/tools/helm SYFT=bin/tools/syft .ci/dist

scan: ## look up known vulnerabilities in the image IMAGE, which holds one Go program and nothing else (needs docker)
	@mkdir -p bin
	id=$$($(DOCKER) create $(IMAGE)) && $(DOCKER) cp "$$id:/gateway" bin/scanned && $(DOCKER) rm "$$id" >/dev/null
	go run $(GOVULNCHECK) -mode binary bin/scanned

image: ## build the image IMAGE (gateway:VERSION), and show that it runs read-only and as nobody (needs docker)
	@VERSION=$(VERSION) IMAGE=$(IMAGE) .ci/image

workflows: ## check the workflows of GitHub Actions
	go run $(ACTIONLINT)

vulnerabilities: ## look up known vulnerabilities in what is used
	go run $(GOVULNCHECK) ./...

lint: ## gofmt, go vet and golangci-lint (the first time it is compiled: minutes)
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "not gofmt'ed:"; echo "$$unformatted"; exit 1; }
	go vet -tags chart ./...
	go run $(GOLANGCI_LINT) run ./...

fuzz: ## run each fuzz target for FUZZTIME (30s)
	@set -e; for package in $$(go list ./...); do \
		listed=$$(go test -list '^Fuzz' $$package); \
		for target in $$(echo "$$listed" | grep '^Fuzz' || true); do \
			echo "$$package $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -timeout 30m $$package; \
		done; \
	done

bench: deps ## run the benchmarks that BENCH matches COUNT times; BASE=file compares with a run before
	@mkdir -p bin
	go test -run '^$$' -bench '$(BENCH)' -benchmem -count $(COUNT) -timeout 60m ./... >bin/bench.txt || { cat bin/bench.txt; exit 1; }
	go run $(BENCHSTAT) $(BASE) bin/bench.txt

bench-floor: deps ## what a gateway costs on this machine, beside the least that any server must (5 minutes)
	go run ./examples/figures $(ARGS)

build: ## build bin/gateway and bin/gateway-bench
	CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)' -o bin/ ./cmd/gateway ./cmd/gateway-bench

tidy-check: ## fail if go.mod or go.sum is not tidy
	go mod tidy -diff
