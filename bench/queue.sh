#!/usr/bin/env bash
# The queue: submit, throughput, latency, and the same at ever more rows. CNX_BENCH_ROWS=1000,100000 leaves out the million
# (minutes); CNX_BENCH_WORKERS and CNX_BENCH_NOOPS say how many of these.
set -euo pipefail
cd "$(dirname "$0")/.."
# Two descriptors a simulated worker: ours and the coordinator's.
ulimit -n "$(ulimit -Hn)"
cargo build --release --quiet -p cnx-cli -p cnx-daemon -p cnx-e2e --bins --example queue
exec target/release/examples/queue
