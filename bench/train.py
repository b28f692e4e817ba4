"""Runs our training and PyTorch's in turn and sets the figures side by side: on screen, and in target/bench/train.json."""

import json
import os
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

PYTHON = ["target/peers/python", "bench/train_peer.py"]
WAYS = ["eager", "channels-last", "compile", "compile-channels-last"]
STEPS = os.environ.get("CNX_BENCH_STEPS", "6")
ROUNDS = int(os.environ.get("CNX_BENCH_ROUNDS", "3"))
# Shares of a training that are spent at each condensing stage, C = 4.
SHARES = [1 / 6, 1 / 6, 1 / 6, 1 / 2]
figures = []


def add(metric, value, unit="images/s", peer=None, peer_value=None):
    ratio = value / peer_value if peer_value else None
    beside = f"  {peer}: {peer_value:.1f}  ({ratio:.2f}x)" if peer else ""
    print(f"{metric:<58} {value:>10.1f} {unit:<10}{beside}", flush=True)
    figures.append(dict(metric=metric, value=value, unit=unit, peer=peer, peer_value=peer_value, ratio=ratio))


# What the agent sets for its children: libtorch's idle threads sleep soon. PyTorch runs as it is.
OURS = {**os.environ, "GOMP_SPINCOUNT": "1000"}


def lines(command, environment=None):
    output = subprocess.run(command, capture_output=True, text=True, env=environment)
    if output.returncode != 0:
        sys.exit(f"{' '.join(command)} failed:\n{output.stderr}")
    return [json.loads(line) for line in output.stdout.splitlines() if line.startswith("{")]


def ours(config, threads=2, steps=STEPS, *settings):
    """By way and stage: images/s."""
    command = ["target/release/examples/train", config, str(steps), str(threads), *settings]
    return {(line["way"], line["stage"]): line["images_per_s"] for line in lines(command, OURS)}


def peer(way, stages, growth, batch=64, threads=2):
    return lines([*PYTHON, way, stages, growth, str(batch), STEPS, str(threads)])[0]["images_per_s"]


def whole_training(by_stage):
    return 1 / sum(share / speed for share, speed in zip(SHARES, by_stage))


def beside_pytorch(name, config, stages, growth, threads, ways):
    rounds = [(ours(config, threads), {way: peer(way, stages, growth, threads=threads) for way in ways}) for _ in range(ROUNDS)]
    median = lambda values: statistics.median(values)
    stage = [median(r[0][("kernels", s)] for r in rounds) for s in range(4)]
    libtorch = median(r[0][("libtorch", 0)] for r in rounds)
    peers = {way: median(r[1][way] for r in rounds) for way in ways}
    best = max(peers, key=peers.get)
    at = f"{name}, batch 64, {threads} threads"
    for i, speed in enumerate(stage):
        add(f"{at}: condensing stage {i}", speed, peer="PyTorch eager", peer_value=peers["eager"])
    add(f"{at}: before condensing", stage[0], peer=f"PyTorch {best}", peer_value=peers[best])
    add(f"{at}: over a whole training", whole_training(stage), peer=f"PyTorch {best}", peer_value=peers[best])
    add(f"{at}: resources.kernels = libtorch", libtorch, peer="PyTorch eager", peer_value=peers["eager"])
    for way in ways[1:]:
        add(f"{at}: PyTorch {way}", peers[way], peer="PyTorch eager", peer_value=peers["eager"])
    return stage


def share_of_peak(stage, threads):
    """Multiply-adds of the convolutions, forward and backward, over what the cores can do at most."""
    peak = lines(["target/release/examples/peak", str(threads)])[0]["gmac_per_s"]
    add(f"multiply-adds at most, {threads} threads", peak, "GMAC/s")
    # CondenseNet-86: dense 1×1 148.6M, 3×3 24.8M, the first convolution 0.4M; thrice that in a step (twice for the first).
    floor = peak * 1e9 / (3 * (148.6e6 + 24.8e6) + 2 * 0.44e6)
    add(f"condensenet-86, {threads} threads: before condensing", stage[0], peer="arithmetic at its peak", peer_value=floor)


def several_at_once(config):
    """Slots of one worker: its threads are divided among them, and what they do together counts."""
    run = lambda threads: ours(config, threads, int(STEPS) * 2, "ways=kernels", "stages=0")[("kernels", 0)]
    alone = run(2)
    with ThreadPoolExecutor() as slots:
        together = sum(slots.map(run, [1, 1]))
    add("condensenet-50, batch 64: two at once, a thread each", together, peer="one alone, 2 threads", peer_value=alone)


def growth():
    for depth, file in [(50, "50"), (74, "74"), (86, "86"), (98, "98"), (110, "110"), (122, "122"), (182, "182")]:
        speed = ours(f"configs/condensenet-{file}.toml", 2, 3, "ways=kernels", "stages=0,3")
        add(f"condensenet-{depth}, batch 64, 2 threads: before condensing", speed[("kernels", 0)])
        add(f"condensenet-{depth}, batch 64, 2 threads: condensed", speed[("kernels", 3)])
    for batch in [16, 32, 128, 256]:
        speed = ours("configs/condensenet-86.toml", 2, 3, f"train.batch_size={batch}", "ways=kernels", "stages=0")
        add(f"condensenet-86, batch {batch}, 2 threads: before condensing", speed[("kernels", 0)])


os.makedirs("target/bench", exist_ok=True)
# Compiling takes a minute each, and was behind channels-last on one thread.
for threads, ways in [(2, WAYS), (1, WAYS[:2])]:
    stage = beside_pytorch("condensenet-86", "configs/condensenet-86.toml", "14-14-14", "8-16-32", threads, ways)
    share_of_peak(stage, threads)
several_at_once("configs/condensenet-50.toml")
if os.environ.get("CNX_BENCH_GROWTH") != "0":
    growth()
with open("target/bench/train.json", "w") as file:
    json.dump(figures, file, indent=1)
print("figures in target/bench/train.json", file=sys.stderr)
