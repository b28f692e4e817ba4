#!/usr/bin/env bash
# Runs a program with the libraries of this machine's PyTorch, which must be 2.11.0 with CUDA 13: for what scripts/gpu-build.sh made
# elsewhere. CNX_PYTHON: whose PyTorch (default: python3).
#
#     scripts/gpu-run.sh target/gpu/gpu_check
set -euo pipefail
fail() { printf 'gpu-run: %s\n' "$*" >&2; exit 1; }
python=${CNX_PYTHON:-python3}
torch=$("$python" -c 'import importlib.util as u; print(u.find_spec("torch").submodule_search_locations[0])') || fail "$python has no PyTorch"
version=$(sed -n "s/^__version__ = '\(.*\)'/\1/p" "$torch/version.py")
[[ $version == 2.11.0+cu13* ]] || fail "$torch is version $version, expected 2.11.0+cu13…"
libraries=$torch/lib
for folder in "$(dirname "$torch")"/nvidia/*/lib; do libraries+=:$folder; done
export LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export CUBLAS_WORKSPACE_CONFIG=${CUBLAS_WORKSPACE_CONFIG:-:4096:8}
exec "$@"
