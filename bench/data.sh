#!/usr/bin/env bash
# ImageNet's loader beside torchvision's, on generated JPEGs of ImageNet's size (made once, in target/bench/imagenet).
# CNX_BENCH_IMAGES says how many; CNX_BENCH_SECONDS how long each figure is measured, CNX_BENCH_ROUNDS how often.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/peers.sh
cargo build --release --quiet -p cnx-worker --example data
target/peers/python bench/data.py make target/bench/imagenet "${CNX_BENCH_IMAGES:-1024}"
exec target/release/examples/data
