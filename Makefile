# Every target runs from a clean checkout; `tests/setup.sh` installs what a target lacks.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# Where tests/setup.sh puts the tools of cargo.
export PATH := $(CURDIR)/.tools/bin:$(PATH)

SOAK_SECONDS ?= 600
# Which tests soak: nextest filters by name.
SOAK_FILTER ?= soak::
# How often extensions and policies are exchanged meanwhile.
SOAK_RELOADS ?= 10000
# How long each fuzzer runs.
FUZZ_SECONDS ?= 60
# Passed on to the benchmark, for example: make bench BENCH_ARGS="lookup --quick"
BENCH_ARGS ?=

# Parts of the names of the cases that `make test-k8s` runs; all of them when empty.
K8S_FILTER ?=

.PHONY: help build demo demo-k8s test test-charts test-k8s k8s-up k8s-shell k8s-down test-guests test-postgres soak fuzz bench lint coverage clean

help: ## List the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; do \
		printf '  make %-14s %s\n' "$$target" "$$text"; done

build: ## Build the release binary
	cargo build --release --locked

demo: ## Run a sidecar with its own small policy store, to try things out
	@[[ -e $${CARGO_TARGET_DIR:-target}/demo/beamline-sidecar ]] || \
		echo "The first build takes about six minutes on two cores: most of it is the compiler for extensions." >&2
	tests/setup.sh demo & cargo build --profile demo --locked --bin beamline-sidecar; wait $$!
	cargo run --profile demo --locked --quiet -- demo --extensions wasm-extensions/target/components

test: ## Run every test that needs no outside service
	tests/run.sh

test-charts: ## Check the Helm charts with Helm 3 and 4, and that every way into a pod gives the same pod
	tests/setup.sh charts
	cargo build --quiet --locked --bin beamline-sidecar
	tests/kubernetes/charts.py

test-k8s: ## Run the charts and the sidecar on a node of Kubernetes that is made for it; K8S_FILTER="admission job"
	tests/setup.sh
	tests/setup.sh kubernetes
	cargo build --release --locked --bins
	tests/kubernetes/test.sh $(K8S_FILTER)

k8s-up: ## Start a node of Kubernetes on this machine (as root), to try things out
	tests/setup.sh kubernetes
	tests/kubernetes/node.sh up

k8s-shell: ## A shell beside that node, with kubectl, helm3 and helm4
	tests/kubernetes/node.sh shell

k8s-down: ## Take that node down, and everything on it
	tests/kubernetes/node.sh down

demo-k8s: ## Show everything at work on a node of Kubernetes, which is taken down again
	tests/setup.sh demo
	tests/setup.sh kubernetes
	cargo build --release --locked --bins
	tests/kubernetes/demo.sh

test-postgres: ## Run the store's tests against a PostgreSQL server of their own
	tests/setup.sh
	tests/postgres.sh

test-guests: ## Build the extensions in every language, and run their own tests
	tests/setup.sh guests
	tests/setup.sh scripting
	cd wasm-extensions && cargo test --workspace --locked
	wasm-extensions/js/build.sh
	wasm-extensions/python/build.sh
	for guard in pii-guard pii-guard-js pii-guard-python; do \
		cargo run --quiet --locked -- ext test wasm-extensions/target/components/$$guard.wasm wasm-extensions/tests/pii-guard.yaml; done
	cargo nextest run --locked --run-ignored only -E 'test(/the_page_for_.*_can_be_followed/)'

soak: ## Run the long tests, for SOAK_SECONDS (600) and SOAK_RELOADS (10000)
	tests/setup.sh
	cargo build --release --locked --bins
	BEAMLINE_SOAK_SECONDS=$(SOAK_SECONDS) BEAMLINE_RELOADS=$(SOAK_RELOADS) \
		BEAMLINE_TEST_PROGRAM=$${CARGO_TARGET_DIR:-$(CURDIR)/target}/release/beamline-sidecar \
		cargo nextest run --workspace --locked --no-capture $(SOAK_FILTER)
	BEAMLINE_SOAK_SECONDS=$(SOAK_SECONDS) tests/postgres.sh --no-capture soak::store

fuzz: ## Run each fuzzer for FUZZ_SECONDS (60)
	tests/setup.sh fuzz
	tests/fuzz.sh $(FUZZ_SECONDS)

bench: build ## Measure against nginx; BENCH_ARGS="lookup --quick", or "--write" for docs/performance.md
	tests/setup.sh bench
	benches/run.py $(BENCH_ARGS)

lint: ## Check formatting, clippy, dependencies, shell and Python syntax
	tests/setup.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cd wasm-extensions && cargo fmt --all --check && cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo deny --workspace --locked check --hide-inclusion-graph bans licenses sources
	cargo shear --locked
	git ls-files -z '*.sh' .ci/run | xargs -0 -r -n 1 bash -n
	git ls-files -z '*.py' | PYTHONPYCACHEPREFIX=target/pycache xargs -0 -r python3 -m py_compile

coverage: ## Report line coverage of the tests
	tests/setup.sh coverage
	tests/coverage.sh

clean: ## Remove build output and the tools under .bench/ and .tools/
	cargo clean
	rm -rf .bench .tools
