"""The other side of bench/data.sh: generated photographs, and torchvision's loader.

    data.py make FOLDER N    N JPEGs in FOLDER/train/<class>, unless they are there
    data.py serve FOLDER     for each line "LOADER WORKERS SECONDS" on standard input, images/s on standard output

Loaders: pillow, torchvision (its own decode_jpeg), and decode, which only decodes, with Pillow, in this process.
"""

import pathlib
import sys
import time

import numpy
from PIL import Image

BATCH = 128


def make(folder, count):
    stamp = folder / f"made-{count}"
    if stamp.exists():
        return
    random = numpy.random.default_rng(1)
    (folder / "val").mkdir(parents=True, exist_ok=True)
    for number in range(count):
        # ImageNet's sizes are about this; most of its photographs lie on their side.
        width, height = [(500, 375), (500, 333), (375, 500), (500, 375)][number % 4]
        image = numpy.zeros((height, width, 3))
        # Noise at every scale, coarse noise strongest, as in photographs.
        for scale, strength in ((125, 60), (40, 40), (12, 20), (4, 10), (1, 6)):
            noise = random.normal(0, strength, (height // scale + 2, width // scale + 2, 3 if scale > 4 else 1))
            noise = numpy.clip(noise * 1.2 + 128, 0, 255).astype(numpy.uint8)
            planes = [Image.fromarray(noise[:, :, c]).resize((width, height), Image.BICUBIC) for c in range(noise.shape[2])]
            image += numpy.stack([numpy.asarray(plane) for plane in planes], 2).astype(float) - 128
        path = folder / "train" / f"n{number % 10:08}" / f"{number}.JPEG"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numpy.clip(image + 128, 0, 255).astype(numpy.uint8)).save(path, quality=90)
    stamp.touch()


class TrainingSet:
    def __init__(self, folder, transform, read):
        from torchvision.datasets import ImageFolder

        self.samples, self.transform, self.read = ImageFolder(folder).samples, transform, read

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, label = self.samples[index]
        return self.transform(self.read(path)), label


def pillow(path):
    return Image.open(path).convert("RGB")


def torchvision(path):
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    return decode_jpeg(read_file(path), mode=ImageReadMode.RGB)


def loader(kind, folder, workers):
    import torch
    from torchvision import transforms
    from torchvision.transforms import v2

    flipped = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()]
    if kind == "pillow":
        flipped = [transforms.RandomResizedCrop(224), transforms.RandomHorizontalFlip(), transforms.PILToTensor()]
    # Of our own module's, so that worker processes need not import this one.
    data = TrainingSet(folder / "train", transforms.Compose(flipped), globals()[kind])
    return torch.utils.data.DataLoader(
        data, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=True, prefetch_factor=4
    )


def measure(batches, seconds):
    # The first pass starts processes and fills caches.
    for _ in batches:
        pass
    images, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        for pixels, labels in batches:
            assert tuple(pixels.shape[1:]) == (3, 224, 224)
            images += len(labels)
    return images / (time.monotonic() - start)


def decode(folder, seconds):
    paths = sorted((folder / "train").glob("*/*"))[:256]
    images, start = 0, time.monotonic()
    while time.monotonic() - start < seconds:
        for path in paths:
            Image.open(path).load()
        images += len(paths)
    return images / (time.monotonic() - start)


def serve(folder):
    loaders = {}
    for line in sys.stdin:
        kind, workers, seconds = line.split()
        if kind == "decode":
            value = decode(folder, float(seconds))
        else:
            key = kind, int(workers)
            loaders.setdefault(key, loader(kind, folder, int(workers)))
            value = measure(loaders[key], float(seconds))
        print(value, flush=True)


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[2])
    make(folder, int(sys.argv[3])) if sys.argv[1] == "make" else serve(folder)
