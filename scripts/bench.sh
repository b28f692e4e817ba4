#!/usr/bin/env bash
# Runs the benchmarks named on the command line, or all. Each writes target/bench/NAME.json: a list of objects with
# metric, value, unit and, where there is one, peer, peer_value and ratio (above 1: cnx is better).
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p target/bench
names=("$@")
if [ ${#names[@]} -eq 0 ]; then
    mapfile -t names < <(find bench -maxdepth 1 -name '*.sh' -printf '%f\n' 2>/dev/null | sed 's/\.sh$//' | sort)
fi
[ ${#names[@]} -gt 0 ] || { echo "bench: no benchmark is there yet" >&2; exit 0; }
for name in "${names[@]}"; do
    [ -x "bench/$name.sh" ] || { echo "bench: no benchmark called $name; there are: $(ls bench/*.sh | xargs -n1 basename | sed 's/\.sh$//' | tr '\n' ' ')" >&2; exit 2; }
    echo "== $name" >&2
    "bench/$name.sh"
done
