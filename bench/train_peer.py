"""Trains a CondenseNet in plain PyTorch: the same network and recipe as cnx (SGD with Nesterov momentum, weight decay, cross
entropy), written as one would write it. Prints a line of JSON: images/s, the median over steps.

    python bench/train_peer.py WAY STAGES GROWTH BATCH STEPS THREADS [DEVICE [SIZE]]

WAY: eager or compile, and what else of channels-last, autotune (torch.compile's max-autotune), bf16 and tf32 applies, joined
by dashes. DEVICE: cpu or cuda. SIZE: 32, or 224 with ImageNet's stem and classes. Batches are made beforehand and are not part of
the time. WAY roof: what the device copies and multiplies at most, instead.
"""

import json
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


class LearnedGroupConv(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.register_buffer("mask", torch.ones(outputs, inputs, 1, 1))

    def forward(self, x):
        return F.conv2d(F.relu(self.norm(x), inplace=True), self.conv.weight * self.mask)


class DenseLayer(nn.Module):
    def __init__(self, inputs, growth):
        super().__init__()
        self.conv_1 = LearnedGroupConv(inputs, 4 * growth)
        self.norm = nn.BatchNorm2d(4 * growth)
        self.conv_2 = nn.Conv2d(4 * growth, growth, 3, padding=1, groups=4, bias=False)

    def forward(self, x):
        return torch.cat([x, self.conv_2(F.relu(self.norm(self.conv_1(x)), inplace=True))], 1)


class CondenseNet(nn.Module):
    def __init__(self, stages, growth, size):
        super().__init__()
        channels = 2 * growth[0]
        layers = [nn.Conv2d(3, channels, 3, stride=2 if size == 224 else 1, padding=1, bias=False)]
        for i, (stage, rate) in enumerate(zip(stages, growth)):
            for _ in range(stage):
                layers.append(DenseLayer(channels, rate))
                channels += rate
            if i + 1 < len(stages):
                layers.append(nn.AvgPool2d(2))
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 1000 if size == 224 else 10)

    def forward(self, x):
        return self.classifier(self.features(x))


def seconds_of(work, device, steps):
    """A run of `work`, on average; the device has nothing left to do before and after."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    wait()
    start = time.perf_counter()
    for _ in range(steps):
        work()
    wait()
    return (time.perf_counter() - start) / steps


def roof(device):
    source, target = (torch.empty(1 << 28, dtype=torch.uint8, device=device) for _ in range(2))
    copy = lambda: target.copy_(source)
    copy()
    found = {"way": "roof", "copied_gb_per_s": 2 * source.numel() / seconds_of(copy, device, 20) / 1e9}
    for name, dtype, tf32 in [("float32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False)]:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(8192, 8192, dtype=dtype, device=device) for _ in range(2))
        multiply = lambda: a @ b
        multiply()
        found[f"{name}_tflop_per_s"] = 2 * 8192**3 / seconds_of(multiply, device, 5) / 1e12
    print(json.dumps(found))


def main():
    way, stages, growth, batch, steps, threads, *where = sys.argv[1:]
    device, size = where + ["cpu", "32"][len(where) :]
    if way == "roof":
        return roof(device)
    stages, growth = ([int(n) for n in text.split("-")] for text in (stages, growth))
    batch, steps, size = int(batch), int(steps), int(size)
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = "tf32" in way
    network = CondenseNet(stages, growth, size).to(device)
    images = torch.randn(batch, 3, size, size, device=device)
    labels = torch.randint(10, (batch,), device=device)
    if "channels-last" in way:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    forward = network
    if "autotune" in way:
        forward = torch.compile(network, mode="max-autotune")
    elif "compile" in way:
        forward = torch.compile(network)

    def step():
        with torch.autocast(device, dtype=torch.bfloat16, enabled="bf16" in way):
            loss = F.cross_entropy(forward(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    start = time.perf_counter()
    for _ in range(2 if device == "cpu" else 4):
        step()
    seconds_of(step, device, 1)
    told = {"first_s": time.perf_counter() - start} if device == "cuda" else {}
    # A GPU works behind the host: five runs of several steps.
    runs, of = (steps, 1) if device == "cpu" else (5, max(1, steps // 5))
    runs = [seconds_of(step, device, of) for _ in range(runs)]
    if device == "cuda":
        told["peak_mib"] = torch.cuda.max_memory_allocated() >> 20
    print(json.dumps({"way": way, "images_per_s": batch / sorted(runs)[len(runs) // 2], **told}))


main()
