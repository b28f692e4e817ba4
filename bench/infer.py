"""Runs our engine, ONNX Runtime and OpenVINO in turns and sets the figures side by side: on screen, and in target/bench/infer.json.

Each engine is a process of its own that holds one network. One runs at a time; the others are stopped, since idle threads
of some spin. A ratio is the median over turns, each with the peers' turns next to it. Before anything is timed, all logits are
compared.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys

import numpy
from plot import growth_plot

FOLDER = "target/bench/infer"
OURS = "target/release/examples/infer"
PEERS = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
# Relative to the largest logit.
MOST_DIFFERENCE = 1e-4
SECONDS = float(os.environ.get("CNX_BENCH_SECONDS", "0.4"))
ROUNDS = int(os.environ.get("CNX_BENCH_ROUNDS", "5"))
GROWTH = os.environ.get("CNX_BENCH_GROWTH")
COMPARED = ["condensenet-74-imagenet-g8", "condensenet-74-imagenet-g4", "condensenet-86", "condensenet-182"]
# Where AVX-512 is hidden from the others: `avx2_only.py`.
HIDDEN = {"LD_PRELOAD": f"{FOLDER}/avx2_only.so", "PYTHONPATH": f"{FOLDER}/avx2"}
figures = []


def add(metric, value, unit, peer=None, peer_value=None, ratio=None):
    beside = f"  {peer}: {peer_value:.3f}  ({ratio:.2f}x)" if peer else ""
    print(f"{metric:<92} {value:>9.3f} {unit:<8}{beside}", flush=True)
    figures.append(dict(metric=metric, value=value, unit=unit, peer=peer, peer_value=peer_value, ratio=ratio))


class Process:
    """A process that answers a line with a line, and stands still in between."""

    def __init__(self, command, environment=None):
        self.command = command
        self.child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )
        self.said = self.answer()
        self.child.send_signal(signal.SIGSTOP)

    def answer(self):
        line = self.child.stdout.readline()
        if not line:
            sys.exit(f"infer: {' '.join(self.command)} ended with status {self.child.wait()}")
        return line.strip()

    def ask(self, line):
        self.child.send_signal(signal.SIGCONT)
        print(line, file=self.child.stdin, flush=True)
        answer = self.answer()
        self.child.send_signal(signal.SIGSTOP)
        return answer

    def turn(self):
        """Milliseconds of a run: the median of a turn."""
        return statistics.median(float(time) for time in self.ask(SECONDS).split())

    def end(self):
        self.child.send_signal(signal.SIGCONT)
        self.child.stdin.close()
        self.child.wait()


def ours(network, threads, batch, instructions="auto"):
    files = [f"{FOLDER}/{network}.safetensors", f"{FOLDER}/{network}.images"]
    return Process([OURS, "serve", *files, str(threads), str(batch), instructions])


def peer(engine, network, threads, batch, avx2_only):
    files = [f"{FOLDER}/{network}.onnx", f"{FOLDER}/{network}.images"]
    command = [sys.executable, "bench/infer_peer.py", engine, *files, str(threads), str(batch)]
    return Process(command, HIDDEN if avx2_only else None)


def compare(all_of_them, at):
    logits = {}
    for name, process in all_of_them.items():
        file = f"{FOLDER}/logits"
        process.ask(f"logits {file}")
        logits[name] = numpy.fromfile(file, "<f4").astype("f8")
    own = logits.pop("ours")
    worst = max(abs(own - other).max() / abs(other).max() for other in logits.values())
    if not worst <= MOST_DIFFERENCE:
        sys.exit(f"infer: {at}: the logits differ by {worst:.1e} of the largest; expected at most {MOST_DIFFERENCE}")
    return worst


def side_by_side(network, threads, batch, instructions="auto"):
    avx2_only = instructions == "avx2"
    at = f"{network}, batch {batch}, {threads} thread{'s' * (threads > 1)}{', AVX2 only' * avx2_only}"
    processes = {"ours": ours(network, threads, batch, instructions)}
    processes.update({engine: peer(engine, network, threads, batch, avx2_only) for engine in PEERS})
    if avx2_only and not processes["openvino"].said.startswith("ready avx512 0,"):
        sys.exit(f"infer: {at}: OpenVINO says {processes['openvino'].said!r}, so AVX-512 is not hidden from it")
    difference = compare(processes, at)
    turns = {name: [] for name in processes}
    for _ in range(ROUNDS):
        for name, process in processes.items():
            turns[name].append(process.turn() / batch)
    for process in processes.values():
        process.end()
    median = {name: statistics.median(times) for name, times in turns.items()}
    for engine, label in PEERS.items():
        ratio = statistics.median(theirs / own for theirs, own in zip(turns[engine], turns["ours"]))
        add(at, median["ours"], "ms/image", label, median[engine], ratio)
    best = [min(theirs) for theirs in zip(*(turns[engine] for engine in PEERS))]
    ratio = statistics.median(theirs / own for theirs, own in zip(best, turns["ours"]))
    add(f"{at}: beside the better one", median["ours"], "ms/image", "the better", statistics.median(best), ratio)
    add(f"{at}: largest relative difference of logits", difference * 1e6, "1e-6")
    return median["ours"]


def peak(threads, instructions):
    return float(subprocess.run([OURS, "peak", str(threads), instructions], check=True, capture_output=True).stdout)


def share(network, milliseconds, threads, instructions):
    """Of the multiply-adds that the cores can do at most."""
    most = peak(threads, instructions)
    floor = multiply_adds[network] / most * 1e3
    at = f"{network}, batch 1, {threads} thread{'s' * (threads > 1)}{', AVX2 only' * (instructions == 'avx2')}"
    add(f"{at}: share of the {most / 1e9:.1f} GMAC/s at most", 100 * floor / milliseconds, "%")


def hidden():
    """Whether AVX-512 can be hidden from the others."""
    check = [sys.executable, "-c", "import onnxruntime, openvino"]
    made = all(os.path.exists(path) for path in HIDDEN.values())
    return made and subprocess.run(check, env={**os.environ, **HIDDEN}).returncode == 0


def growth(names):
    times = {name: [] for name in names}
    processes = {name: ours(name, 1, 1) for name in names}
    for _ in range(ROUNDS):
        for name, process in processes.items():
            times[name].append(process.turn())
    for process in processes.values():
        process.end()
    points = [(name, multiply_adds[name] / 1e6, statistics.median(times[name])) for name in names]
    for name, millions, milliseconds in points:
        add(f"{name}: growth, batch 1, 1 thread, {millions:.1f}M multiply-adds", milliseconds, "ms")
        add(f"{name}: growth, batch 1, 1 thread", millions / milliseconds, "GMAC/s")
    growth_plot(points, "target/bench/infer-growth.svg")
    print("plot in target/bench/infer-growth.svg", file=sys.stderr)


made = subprocess.run([OURS, "make", FOLDER], check=True, capture_output=True, text=True).stdout
multiply_adds = {name: int(count) for name, count in (line.split() for line in made.splitlines())}
wanted = re.compile(os.environ.get("CNX_BENCH_NETWORKS", ""))
with_avx2 = hidden()
if not with_avx2:
    print("infer: AVX-512 cannot be hidden from ONNX Runtime and OpenVINO here: no figures of AVX2 alone", file=sys.stderr)
for network in filter(wanted.search, COMPARED if GROWTH != "only" else []):
    for threads in (1, 2):
        for batch in (1, 16):
            time = side_by_side(network, threads, batch)
            if batch == 1:
                share(network, time, threads, "auto")
        if with_avx2:
            share(network, side_by_side(network, threads, 1, "avx2"), threads, "avx2")
if GROWTH != "0":
    growth(list(filter(wanted.search, multiply_adds)))
with open("target/bench/infer.json", "w") as file:
    json.dump(figures, file, indent=1)
print("figures in target/bench/infer.json", file=sys.stderr)
