"""Trains a CondenseNet in plain PyTorch: the same network and recipe as cnx (SGD with Nesterov momentum, weight decay, cross
entropy), written as one would write it. Prints a line of JSON: images/s, the median over steps.

    python bench/train_peer.py WAY STAGES GROWTH BATCH STEPS THREADS

WAY: eager, channels-last, compile, compile-channels-last. Batches are made beforehand and are not part of the time.
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
    def __init__(self, stages, growth):
        super().__init__()
        channels = 2 * growth[0]
        layers = [nn.Conv2d(3, channels, 3, padding=1, bias=False)]
        for i, (stage, rate) in enumerate(zip(stages, growth)):
            for _ in range(stage):
                layers.append(DenseLayer(channels, rate))
                channels += rate
            if i + 1 < len(stages):
                layers.append(nn.AvgPool2d(2))
        layers += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(channels, 10)

    def forward(self, x):
        return self.classifier(self.features(x))


def main():
    way, stages, growth, batch, steps, threads = sys.argv[1:]
    stages, growth = ([int(n) for n in text.split("-")] for text in (stages, growth))
    batch, steps = int(batch), int(steps)
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    network = CondenseNet(stages, growth)
    images = torch.randn(batch, 3, 32, 32)
    labels = torch.randint(10, (batch,))
    if "channels-last" in way:
        network = network.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    forward = torch.compile(network) if "compile" in way else network
    seconds = []
    for _ in range(steps + 2):
        start = time.perf_counter()
        loss = F.cross_entropy(forward(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    seconds = sorted(seconds[2:])
    print(json.dumps({"way": way, "images_per_s": batch / seconds[len(seconds) // 2]}))


main()
