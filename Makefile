# The two commands: `make demo` runs the main job, `make test` passes the tests. Both set up what they need.
#
# Build products go outside the clone, so that a fresh one does not build anew.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/coulee-target
VENV ?= $(HOME)/.cache/coulee-venv
BIN := $(CARGO_TARGET_DIR)/debug/coulee

.PHONY: demo test lint build bench clean-demo

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

# What the demo made.
clean-demo:
	rm -rf .coulee out/delays
