"""Our training on a GPU beside PyTorch's, in one run on one card: on screen, and in target/bench/gpu-PART.json.

    python bench/gpu.py PART BIN

PART: train (CondenseNet-86 and -182, batch 64 and 256), switches (each switch's own gain), many (workers that share the card),
imagenet (CondenseNet-74 at 224x224). BIN: the folder of the example `train`. CNX_BENCH_STEPS: steps of each run;
CNX_BENCH_NETWORKS, CNX_BENCH_BATCHES and CNX_BENCH_PEERS (ways of train_peer.py; may be empty): comma-separated, of train. A compiler
of PyTorch takes minutes for each network and batch.
"""

import json
import os
import subprocess
import sys

STEPS = os.environ.get("CNX_BENCH_STEPS", "200")
listed = lambda name, default: [entry for entry in os.environ.get(name, default).split(",") if entry]
PEERS = listed("CNX_BENCH_PEERS", "eager,compile,compile-autotune,compile-autotune-bf16-channels-last")
DEVICE = os.environ.get("CNX_BENCH_DEVICE", "cuda:0")
PYTHON = os.environ.get("CNX_BENCH_PYTHON", sys.executable)
ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", **os.environ}
BEST = ["train.precision=bfloat16", "train.channels_last=true", "train.deterministic=false"]
NETWORKS = {"50": ("8-8-8", "8-16-32"), "86": ("14-14-14", "8-16-32"), "182": ("30-30-30", "12-24-48")}
figures = []


def add(metric, value, unit="images/s", peer=None, peer_value=None):
    ratio = value / peer_value if peer_value else None
    beside = f"  {peer}: {peer_value:.0f}  ({ratio:.2f}x)" if peer_value else ""
    print(f"{metric:<78} {value:>10.0f} {unit:<9}{beside}", flush=True)
    figures.append(dict(metric=metric, value=value, unit=unit, peer=peer, peer_value=peer_value, ratio=ratio))


def start(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)


def finish(process):
    """What it printed as JSON; nothing, and why on the screen, where it failed: the other figures are worth having."""
    output, errors = process.communicate()
    if process.returncode != 0:
        print(f"{' '.join(process.args)} failed: {errors.strip()[-600:]}", flush=True)
        return []
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def ours(config, way, *settings, steps=STEPS, batch=64):
    return start([f"{BIN}/train", config, steps, "2", f"device={DEVICE}", f"ways={way}", "stages=0", f"train.batch_size={batch}", *settings])


def our_figure(*arguments, **options):
    lines = finish(ours(*arguments, **options))
    return (lines[0]["images_per_s"], lines[0].get("peak_mib", 0)) if lines else (0, 0)


def peer(way, stages, growth, batch, size="32", steps=STEPS):
    if not PEERS:
        return 0, 0
    command = [PYTHON, "bench/train_peer.py", way, stages, growth, str(batch), steps, "2", DEVICE.split(":")[0], size]
    lines = finish(start(command))
    return (lines[0]["images_per_s"], lines[0].get("peak_mib", 0)) if lines else (0, 0)


def train():
    for name in listed("CNX_BENCH_NETWORKS", "86,182"):
        for batch in map(int, listed("CNX_BENCH_BATCHES", "64,256")):
            config, shape = f"configs/condensenet-{name}.toml", NETWORKS[name]
            at = f"condensenet-{name}, batch {batch}"
            peers = {way: peer(way, *shape, batch)[0] for way in PEERS}
            best = max(peers, key=peers.get, default="")
            for label, way, settings in [
                ("libtorch, operation by operation", "libtorch", []),
                ("data on the device, operation by operation", "device", []),
                ("graph", "graph", []),
                ("graph, bfloat16, channels-last, not repeatable", "graph", BEST),
            ]:
                value = our_figure(config, way, *settings, batch=batch)[0]
                for other in [way for way in dict.fromkeys(["eager", best]) if way in peers] or [None]:
                    add(f"{at}: {label}", value, peer=other and f"PyTorch {other}", peer_value=peers.get(other))
            for way, value in peers.items():
                add(f"{at}: PyTorch {way}", value)
        floor(name)


def floor(name):
    """What the step would take if the card did nothing but the arithmetic, or nothing but move each map once."""
    lines = finish(start([PYTHON, "bench/train_peer.py", "roof", "0", "0", "0", "0", "0", DEVICE.split(":")[0]])) if PEERS else []
    if not lines:
        return
    stages, growth = ([int(n) for n in text.split("-")] for text in NETWORKS[name])
    channels, size, macs, floats = 2 * growth[0], 32, 3 * 9 * 2 * growth[0] * 32 * 32, 0
    for stage, rate in zip(stages, growth):
        for _ in range(stage):
            wide = 4 * rate
            macs += size * size * (channels * wide + 9 * wide * rate // 4)
            # Read the layer's inputs, write and read its two maps; backward the same again, and the gradients of both.
            floats += size * size * 3 * (channels + 2 * wide + rate)
            channels += rate
        size //= 2
    arithmetic = lines[0]["float32_tflop_per_s"] * 1e12 / (3 * 2 * macs)
    memory = lines[0]["copied_gb_per_s"] * 1e9 / (4 * floats)
    at = f"condensenet-{name}: at most, by"
    add(f"{at} float32 arithmetic of {lines[0]['float32_tflop_per_s']:.0f} TFLOP/s", arithmetic)
    add(f"{at} bf16 arithmetic of {lines[0]['bf16_tflop_per_s']:.0f} TFLOP/s", lines[0]["bf16_tflop_per_s"] * 1e12 / (6 * macs))
    add(f"{at} copies of {lines[0]['copied_gb_per_s']:.0f} GB/s, float32", memory)


def switches():
    for name in ["86", "182"]:
        config = f"configs/condensenet-{name}.toml"
        plain = our_figure(config, "graph")[0]
        for label, settings in [
            ("train.precision = tf32", ["train.precision=tf32", "resources.gpus=1"]),
            ("train.precision = bfloat16", BEST[:1]),
            ("train.channels_last = true", BEST[1:2]),
            ("train.deterministic = false", BEST[2:]),
            ("bfloat16 and channels_last", BEST[:2]),
            ("bfloat16, channels_last, not deterministic", BEST),
        ]:
            add(f"condensenet-{name}, batch 64, graph: {label}", our_figure(config, "graph", *settings)[0], peer="without", peer_value=plain)


def many():
    alone = None
    for workers in [1, 2, 4, 8]:
        running = [ours("configs/condensenet-50.toml", "graph", steps=str(5 * int(STEPS))) for _ in range(workers)]
        total = sum(line["images_per_s"] for process in running for line in finish(process))
        alone = alone or total
        add(f"condensenet-50, batch 64, {workers} workers on one card: all together", total, peer="one worker", peer_value=alone)


def imagenet():
    for groups in ["g4", "g8"]:
        config, steps = f"configs/imagenet/condensenet-74-{groups}.toml", str(max(10, int(STEPS) // 10))
        for label, settings in [("float32", []), ("bfloat16, channels-last, not repeatable", BEST)]:
            speed, peak = our_figure(config, "graph", *settings, steps=steps, batch=256)
            way = "eager-bf16-channels-last" if settings else "eager"
            # The peer's groups are always 4: its speed stands beside both.
            peer_speed, peer_peak = peer(way, "4-6-8-10-8", "8-16-32-64-128", 256, "224", steps)
            at = f"imagenet condensenet-74 {groups}, batch 256, {label}"
            add(at, speed, peer=f"PyTorch {way}", peer_value=peer_speed)
            add(f"{at}: memory of tensors at most", peak, "MiB", peer=f"PyTorch {way}", peer_value=peer_peak)


part, BIN = sys.argv[1:]
os.makedirs("target/bench", exist_ok=True)
{"train": train, "switches": switches, "many": many, "imagenet": imagenet}[part]()
with open(f"target/bench/gpu-{part}.json", "w") as file:
    json.dump(figures, file, indent=1)
