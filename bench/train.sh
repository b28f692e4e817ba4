#!/usr/bin/env bash
# Training on this machine's CPU: our loop beside plain PyTorch (eager, channels-last, compiled), the same network and recipe, in
# alternating runs; then how it grows with depth, batch and threads. CNX_BENCH_STEPS: steps of each run; CNX_BENCH_ROUNDS: how often
# each is run; CNX_BENCH_GROWTH=0 leaves the growth out.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
scripts/peers.sh
# The whole workspace's features, so that what `make build` compiled is not compiled again.
cargo build --release --quiet --workspace --example train --example peak
exec target/peers/python bench/train.py
