# Thin names over cargo and scripts/. `make demo` is where to start.
.PHONY: help setup build demo test simulate chaos peers check bench bench-queue bench-train bench-data bench-gpu gpu-build install clean bench-infer

help:            ## say what there is
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup:           ## put libtorch 2.11.0 under .libtorch (once)
	@scripts/setup.sh

build: setup     ## build cnx, cnxd and cnx-worker into target/release
	@cargo build --release --workspace

demo: build      ## a coordinator, a worker, three small CondenseNets, the table
	@scripts/demo.sh

test: build      ## every test
	@cargo test --release --workspace

SEEDS ?= 2000
FIRST ?= 0
simulate:        ## the coordinator and its workers through SEEDS=2000 seeds of bad luck, from FIRST=0 (needs no libtorch)
	@CNX_SIM_SEEDS=$(SEEDS) CNX_SIM_FIRST=$(FIRST) cargo test --release -p cnx-daemon --test simulation hold -- --nocapture

KILLS ?= 200
SEED ?= 1
chaos: build     ## real processes and a real training through KILLS=200 kills, stops and broken networks, from SEED=1
	@cargo build --quiet --release --workspace --example chaos
	@CNX_CHAOS_KILLS=$(KILLS) CNX_CHAOS_SEED=$(SEED) target/release/examples/chaos

peers:           ## Python's PyTorch, ONNX Runtime and OpenVINO, for what compares with them (needs PyPI)
	@scripts/peers.sh

check: setup     ## formatting and lints
	@cargo fmt --all --check
	@cargo clippy --release --workspace --all-targets -- --deny warnings

bench: build     ## every benchmark; figures also in target/bench/*.json
	@scripts/bench.sh

bench-queue:     ## how fast the queue is, beside Pueue and raw SQLite (needs no libtorch)
	@scripts/bench.sh queue

bench-train: build ## how fast a CPU trains, beside PyTorch (needs PyPI)
	@scripts/bench.sh train

bench-data: setup ## how fast ImageNet is read, beside torchvision (needs PyPI)
	@scripts/bench.sh data

gpu-build:       ## build for machines with a GPU into target/gpu, on any machine (4 GB from PyPI, once)
	@scripts/gpu-build.sh

bench-gpu:       ## check a GPU's arithmetic and measure it, beside PyTorch (docs/GPU.md)
	@scripts/bench.sh gpu

bench-infer:     ## how fast condensed networks run on a CPU, beside ONNX Runtime and OpenVINO (needs PyPI)
	@scripts/bench.sh infer

install: build   ## cnx, cnxd and cnx-worker into ~/.local/bin
	@mkdir -p $(HOME)/.local/bin
	@install target/release/cnx target/release/cnxd target/release/cnx-worker $(HOME)/.local/bin/

clean:           ## remove what was built and what the demo made; libtorch stays
	@cargo clean
	@rm -rf demo-out
