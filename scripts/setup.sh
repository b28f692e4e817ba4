#!/usr/bin/env bash
# Put libtorch 2.11.0 (with its C++ headers) under .libtorch, from the PyPI `torch` wheel.
#
# Without a GPU only what a CPU needs is fetched: the wheel and the two small CUDA libraries it links
# against (about 550 MB). With one (nvidia-smi answers), all of the wheel's CUDA libraries come along.
# CNX_CUDA=1 or CNX_CUDA=0 decides instead. Your own LIBTORCH is used as it is, after a look at its version.
# CNX_LIBTORCH_HOME: another folder than .libtorch (scripts/gpu-build.sh keeps one with CUDA beside one without).
set -euo pipefail
cd "$(dirname "$0")/.."

version=2.11.0
home=${CNX_LIBTORCH_HOME:-.libtorch}
torch=$home/torch

fail() { printf 'setup: %s\n' "$*" >&2; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || fail "$1 is missing: install $2"; }

need cargo "the Rust toolchain (https://rustup.rs), 1.94 or later"
need cc "gcc (Debian: apt install gcc g++)"
need c++ "g++ (Debian: apt install g++)"

if [ -n "${LIBTORCH:-}" ]; then
    [ -d "$LIBTORCH/lib" ] || fail "LIBTORCH=$LIBTORCH has no lib folder: point it at an unpacked libtorch $version, or unset it"
    found=$(cat "$LIBTORCH/build-version" 2>/dev/null || sed -n "s/^__version__ = '\(.*\)'/\1/p" "$LIBTORCH/version.py" 2>/dev/null || true)
    case "$found" in
        "$version" | "$version"+*) echo "setup: using your own libtorch $found" >&2; exit 0 ;;
        "") fail "LIBTORCH=$LIBTORCH says no version (neither build-version nor version.py): expected libtorch $version" ;;
        *) fail "LIBTORCH=$LIBTORCH is version $found, expected $version: point it at that version, or unset it" ;;
    esac
fi

cuda=${CNX_CUDA:-}
if [ -z "$cuda" ]; then
    if command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1; then cuda=1; else cuda=0; fi
fi
[ "$(uname -s)" = Linux ] || cuda=none   # the macOS wheel has no CUDA at all

stamp="$version cuda=$cuda"
if [ "$(cat "$home/stamp" 2>/dev/null || true)" = "$stamp" ]; then exit 0; fi

need python3 "python3 with pip (Debian: apt install python3-pip python3-venv)"
pip="python3 -m pip"
if ! $pip --version >/dev/null 2>&1; then
    python3 -m venv "$home/venv" >/dev/null 2>&1 || fail "python3 has neither pip nor venv: install one of them (Debian: apt install python3-pip)"
    pip="$home/venv/bin/python -m pip"
fi

echo "setup: fetching libtorch $version into $home ($([ "$cuda" = 1 ] && echo "with CUDA, about 3 GB" || echo "for the CPU, about 550 MB"))" >&2
rm -rf "$home/torch" "$home/nvidia" "$home/stamp"
mkdir -p "$home"
# --no-deps: of the wheel's dependencies, only C++ libraries matter here, and no Python.
# The layout of site-packages stays: the libraries find each other by relative paths.
fetch() {
    $pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-cache-dir --no-compile \
        --upgrade --target "$home" "$@" || fail "pip could not fetch: $* (is PyPI reachable? is there disk space? 'df -h .')"
}
fetch --no-deps "torch==$version"
case "$cuda" in
    0) fetch --no-deps 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' ;;
    1)
        # The wheel names its CUDA libraries exactly: some by themselves, the toolkit's by a meta package.
        metadata=$home/torch-$version.dist-info/METADATA
        wheels=$(sed -n 's/^Requires-Dist: \(nvidia-[a-z0-9-]*==[0-9.]*\).*/\1/p' "$metadata")
        toolkit=$(sed -n 's/^Requires-Dist: \(cuda-toolkit\[[a-z,]*\]==[0-9.]*\).*/\1/p' "$metadata")
        # shellcheck disable=SC2086
        # And headers that CUDA's own include. Together: a second call would replace the folder nvidia/.
        fetch $wheels "$toolkit" 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*'
        ;;
esac
[ -f "$torch/include/torch/csrc/api/include/torch/torch.h" ] || fail "the torch wheel has no C++ headers under $torch/include: expected the wheel of $version"
echo "$stamp" >"$home/stamp"
echo "setup: done" >&2
