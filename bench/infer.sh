#!/usr/bin/env bash
# Inference on this machine's CPU: our engine beside ONNX Runtime and OpenVINO, with the same weights, in turns; then how its time
# grows with the network. CNX_BENCH_SECONDS: how long a turn is; CNX_BENCH_ROUNDS: how many turns each has; CNX_BENCH_NETWORKS: a
# regular expression, only these networks; CNX_BENCH_GROWTH=0 leaves the growth out, CNX_BENCH_GROWTH=only all else.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/peers.sh
cargo build --release --quiet -p cnx-engine --example infer
mkdir -p target/bench/infer
# Where this fails, nothing is measured on AVX2 alone.
mkdir -p target/bench/infer/avx2
cc -shared -fPIC -O1 -o target/bench/infer/avx2_only.so bench/avx2_only.c 2>/dev/null \
    && target/peers/python bench/avx2_only.py target/bench/infer/avx2 || rm -rf target/bench/infer/avx2
exec target/peers/python bench/infer.py
