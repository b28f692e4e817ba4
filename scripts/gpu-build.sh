#!/usr/bin/env bash
# Builds cnx for a machine with a GPU, on any machine (no driver is needed), and puts the programs into target/gpu, stripped: cnx,
# cnxd, cnx-worker, and the examples gpu_check and train. libtorch and CUDA's libraries are not among them: where they run,
# scripts/gpu-run.sh finds those of that machine's PyTorch. CNX_GPU_MIB: how large all may be together (default: 64).
set -euo pipefail
cd "$(dirname "$0")/.."
home=.libtorch-cuda
out=target/gpu
most=${CNX_GPU_MIB:-64}
fail() { printf 'gpu-build: %s\n' "$*" >&2; exit 1; }

env -u LIBTORCH CNX_CUDA=1 CNX_LIBTORCH_HOME=$home scripts/setup.sh
export LIBTORCH=$PWD/$home/torch
cargo build --release --target-dir target/cuda -p cnx-cli -p cnx-daemon
cargo build --release --target-dir target/cuda -p cnx-worker --bins --example gpu_check --example train

rm -rf "$out" && mkdir -p "$out"
cp target/cuda/release/{cnx,cnxd,cnx-worker} target/cuda/release/examples/{gpu_check,train} "$out"
strip "$out"/*
for program in cnx-worker gpu_check train; do
    readelf -d "$out/$program" | grep -q 'NEEDED.*libtorch_cuda' || fail "$program does not link libtorch_cuda"
done
lacking=$(ldd "$out/cnx-worker" | grep 'not found' || true)
# The driver's library comes with the driver.
lacking=$(grep -v 'libcuda.so' <<<"$lacking" || true)
[ -z "$lacking" ] || fail "cnx-worker lacks libraries: $lacking"
"$out/cnx-worker" --help >/dev/null || fail "cnx-worker does not start"
size=$(du -sm "$out" | cut -f1)
[ "$size" -le "$most" ] || fail "$out has $size MiB, more than $most"
echo "gpu-build: $size MiB in $out: $(ls "$out" | tr '\n' ' ')" >&2
