#!/usr/bin/env bash
# What a GPU gives: first whether it computes right (gpu_check), then figures (bench/gpu.py), beside PyTorch's where that is there.
#
#     bench/gpu.sh [PART…]      check, train, switches, many, imagenet; all of them by default
#
# The programs are those of scripts/gpu-build.sh; python3 is one with PyTorch 2.11.0.
set -euo pipefail
cd "$(dirname "$0")/.."
if ! nvidia-smi -L >/dev/null 2>&1; then
    echo "gpu: NOTHING MEASURED: nvidia-smi finds no GPU here" >&2
    exit 0
fi
nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.limit --format=csv >&2
[ -x target/gpu/train ] || scripts/gpu-build.sh
parts=("$@")
[ $# -gt 0 ] || parts=(check train switches many imagenet)
for part in "${parts[@]}"; do
    echo "== $part" >&2
    started=$SECONDS
    case "$part" in
        check) scripts/gpu-run.sh target/gpu/gpu_check ;;
        train | switches | many | imagenet) scripts/gpu-run.sh "${CNX_PYTHON:-python3}" bench/gpu.py "$part" target/gpu ;;
        *) echo "gpu: no part called $part; there are: check train switches many imagenet" >&2; exit 2 ;;
    esac
    echo "== $part took $((SECONDS - started)) s" >&2
done
