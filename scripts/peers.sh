#!/usr/bin/env bash
# Puts what tests and benchmarks compare with into target/peers: ONNX Runtime, OpenVINO, the ONNX checker, Pillow, torchvision,
# and PyTorch (the wheel whose libtorch is under .libtorch already). target/peers/python runs them.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
peers=$root/target/peers
torch=$root/.libtorch/torch
fail() { printf 'peers: %s\n' "$*" >&2; exit 1; }

packages="numpy onnx onnxruntime openvino pillow typing_extensions sympy networkx jinja2 filelock fsspec setuptools"
# That of torch 2.11.0. Without what it depends on: that is all here, but for a second torch.
torchvision="torchvision==0.26.0"
[ "$(cat "$peers/stamp" 2>/dev/null || true)" = "$packages $torchvision" ] && exit 0

echo "peers: fetching $packages $torchvision into target/peers" >&2
rm -rf "$peers" && mkdir -p "$peers"
python3 -m venv "$peers" || fail "python3 has no venv: install it (Debian: apt install python3-venv)"
# shellcheck disable=SC2086
"$peers/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir $packages ||
    fail "pip could not fetch: $packages (is PyPI reachable? is there disk space? 'df -h .')"
"$peers/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-deps "$torchvision" ||
    fail "pip could not fetch: $torchvision (is PyPI reachable? is there disk space? 'df -h .')"

cat >"$peers/python" <<END
#!/bin/sh
export LD_LIBRARY_PATH="$peers/stubs\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}" PYTHONPATH="$root/.libtorch" PYTHONDONTWRITEBYTECODE=1
exec "$peers/bin/python" "\$@"
END
chmod +x "$peers/python"

mkdir "$peers/stubs"
if ! "$peers/python" -c 'import torch' >/dev/null 2>&1; then
    [ -f "$torch/__init__.py" ] || fail "$torch is not the torch wheel: run make setup without LIBTORCH set"
    "$peers/bin/python" scripts/cuda_stubs.py "$torch" "$peers/stubs" || fail "cannot make stand-ins for CUDA's libraries"
    "$peers/python" -c 'import torch' || fail "PyTorch cannot be imported"
fi
echo "$packages $torchvision" >"$peers/stamp"
echo "peers: done" >&2
