# The two commands: `make demo` runs the main job, `make test` passes the tests. Both set up what they need.
#
# Build products go outside the clone, so that a fresh one does not build anew.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/coulee-target
VENV ?= $(HOME)/.cache/coulee-venv
BENCH_VENV ?= $(HOME)/.cache/coulee-bench-venv
BIN := $(CARGO_TARGET_DIR)/debug/coulee

.PHONY: demo test lint build bench bench-nexmark clean-demo

demo: build
	$(BIN) run --data-dir .coulee examples/flights/delays.sql

build:
	@scripts/setup
	cargo build -p coulee --locked

test:
	@scripts/setup --tests
	cargo test --workspace --locked
	cargo build --workspace --locked
	COULEE=$(BIN) $(VENV)/bin/python -m pytest -q tests/python

lint:
	@scripts/setup
	cargo fmt --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

bench:
	@scripts/setup
	cargo build --release --locked -p coulee -p coulee-bench -p coulee-checkpoint --bins --example state
	$(CARGO_TARGET_DIR)/release/coulee-bench $(BENCH)

# Nexmark beside Flink, clink and DuckDB: `make bench-nexmark NEXMARK="--queries q4,q5 --runs 3"`. Flink asks for a JDK 17, Maven and Python 3.11.
bench-nexmark:
	@scripts/setup
	cargo build --release --locked -p coulee
	python3 -m venv $(BENCH_VENV)
	$(BENCH_VENV)/bin/pip install -q -r bench/nexmark/requirements.txt
	COULEE=$(CARGO_TARGET_DIR)/release/coulee $(BENCH_VENV)/bin/python bench/nexmark/compare.py $(NEXMARK)

# What the demo made.
clean-demo:
	rm -rf .coulee out/delays
