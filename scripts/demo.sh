#!/usr/bin/env bash
# The whole road on this machine, with images it generates: coordinator, worker, sweep, live status, table, CSV.
# Everything lands in demo-out/, which every run starts anew.
set -euo pipefail
cd "$(dirname "$0")/.."

out=$PWD/demo-out
cnx() { target/release/cnx --state "$out/state" "$@"; }
stop() { cnx --quiet down >/dev/null 2>&1 || true; }
trap stop EXIT
[ -d "$out" ] && stop
rm -rf "$out" && mkdir -p "$out"
say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n$ %s\n' "$*"; }

say cnx up
cnx up --listen 127.0.0.1:0
say cnx submit configs/demo/sweep.toml --wait
cnx submit configs/demo/sweep.toml --wait
say cnx results demo
cnx results demo
say "cnx results demo --csv > demo-out/results.csv"
cnx results demo --csv >"$out/results.csv"
cat "$out/results.csv"
say cnx down
cnx down

cat <<END

The images were generated (10 classes; \`cnx data synth --help\` says of what): guessing errs on 90 % of them, a linear
classifier on 80 %. The table is in demo-out/results.csv. With real data:

  export PATH=\$PWD/target/release:\$PATH        # or: make install
  cnx data fetch cifar10                         # 170 MB into ~/.cache/cnx
  cnx up                                         # a coordinator, and a worker for each GPU
  cnx submit configs/condensenet-86.toml         # 300 epochs; cnx status --watch follows them
  cnx submit configs/sweeps/cifar10.toml         # the whole table, three seeds each
  cnx results cifar10 --csv
END
