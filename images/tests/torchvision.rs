//! Training crops and test crops are those of torchvision on Pillow's images, from the same files and the same crop boxes.
//!
//! Tolerance: decoding gives the same bytes. Resizing rounds twice, once along each axis, with 16-bit weights where Pillow's have 22 bits:
//! a value differs by at most 1 of 255, in the worst of these crops one value in 30 (0.033 in the mean). We resize rows first, as
//! every Pillow did; from 13 on, Pillow begins with the columns where a crop is higher than wide by enough, and of such crops
//! a quarter of the values differs (0.248 in the mean), still by no more than 1.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../formats/tests/peers/mod.rs"]
mod peers;

use std::fs;
use std::path::Path;

use cnx_images::crop::RandomResizedCrop;
use cnx_images::decode::{Encoded, decode};
use cnx_images::resize::Resize;
use cnx_proto::random::{Purpose, Stream};

/// Makes FOLDER/NAME for each line `NAME WIDTH HEIGHT KIND` of FOLDER/images, writes NAME.rgb (its pixels) and NAME.test (the
/// test crop); and for each line `NAME LEFT TOP WIDTH HEIGHT FLIP` of FOLDER/crops, the nth, n.train (the training crop).
const PROGRAM: &str = r#"
import pathlib, sys
import numpy
from PIL import Image
from torchvision.transforms import functional as F, CenterCrop, Compose, Resize

folder = pathlib.Path(sys.argv[1])
random = numpy.random.default_rng(1)

def picture(width, height, channels):
    coarse = random.integers(0, 256, (9, 12, channels), dtype=numpy.uint8)
    planes = [Image.fromarray(coarse[:, :, c]).resize((width, height), Image.BICUBIC) for c in range(channels)]
    smooth = numpy.stack([numpy.asarray(plane) for plane in planes], 2).astype(float)
    return numpy.clip(smooth + random.normal(0, 12, smooth.shape), 0, 255).astype(numpy.uint8)

test = Compose([Resize(256), CenterCrop(224)])
for line in (folder / "images").read_text().splitlines():
    name, width, height, kind = line.split()
    pixels = picture(int(width), int(height), {"cmyk": 4, "rgba": 4}.get(kind, 3))
    path = folder / name
    if kind == "cmyk":
        Image.fromarray(pixels, "CMYK").save(path, "JPEG", quality=90)
    elif kind == "rgba":
        Image.fromarray(pixels, "RGBA").save(path, "PNG")
    elif kind in ("png", "palette"):
        image = Image.fromarray(pixels)
        (image.quantize(64) if kind == "palette" else image).save(path, "PNG")
    elif kind == "grey":
        Image.fromarray(pixels).convert("L").save(path, "JPEG", quality=90)
    else:
        subsampling = {"444": 0, "422": 1}.get(kind, 2)
        Image.fromarray(pixels).save(path, "JPEG", quality=90, progressive=kind == "progressive", subsampling=subsampling)
    image = Image.open(path).convert("RGB")
    (folder / f"{name}.rgb").write_bytes(numpy.asarray(image).tobytes())
    (folder / f"{name}.test").write_bytes(numpy.asarray(test(image)).tobytes())

for number, line in enumerate((folder / "crops").read_text().splitlines()):
    name, *box = line.split()
    left, top, width, height, flip = map(int, box)
    image = F.resized_crop(Image.open(folder / name).convert("RGB"), top, left, height, width, (224, 224))
    image = F.hflip(image) if flip else image
    (folder / f"{number}.train").write_bytes(numpy.asarray(image).tobytes())
"#;

const SIDE: u32 = 224;

const IMAGES: [(&str, u32, u32, &str); 14] = [
    ("plain.JPEG", 500, 375, "420"),
    ("portrait.JPEG", 333, 500, "420"),
    ("odd.JPEG", 401, 299, "420"),
    ("half.JPEG", 500, 334, "422"),
    ("full.JPEG", 375, 500, "444"),
    ("large.JPEG", 1500, 1200, "420"),
    ("small.JPEG", 90, 71, "420"),
    ("narrow.JPEG", 40, 300, "420"),
    ("progressive.JPEG", 480, 360, "progressive"),
    ("grey.JPEG", 500, 375, "grey"),
    ("inks.JPEG", 500, 333, "cmyk"),
    ("a_png.JPEG", 300, 400, "png"),
    ("transparent.JPEG", 256, 257, "rgba"),
    ("palette.JPEG", 224, 310, "palette"),
];

#[test]
fn crops_are_torchvision_s() {
    let folder = tempfile::tempdir().unwrap();
    let write =
        |name: &str, lines: Vec<String>| fs::write(folder.path().join(name), lines.join("\n")).unwrap();
    write("images", IMAGES.iter().map(|(name, w, h, kind)| format!("{name} {w} {h} {kind}")).collect());
    // Twenty crops an image, as training draws them.
    let crops: Vec<(&str, RandomResizedCrop)> = (0..20)
        .flat_map(|epoch| {
            (0..).zip(IMAGES).map(move |(at, (name, w, h, _))| {
                (name, RandomResizedCrop::draw(&mut Stream::new(7, Purpose::Augmentation, [epoch, at]), w, h))
            })
        })
        .collect();
    let line = |(name, crop): &(&str, RandomResizedCrop)| {
        let r = crop.region;
        format!("{name} {} {} {} {} {}", r.left, r.top, r.width, r.height, u8::from(crop.flip))
    };
    write("crops", crops.iter().map(line).collect());
    if peers::python("crops_are_torchvision_s", PROGRAM, &[folder.path()]).is_none() {
        return;
    }
    let read = |name: &str| fs::read(folder.path().join(name)).unwrap();
    let (mut resize, mut worst) = (Resize::default(), Worst::default());
    for (name, width, height, _) in IMAGES {
        let bytes = read(name);
        let raster = decode(&bytes).unwrap();
        assert_eq!((raster.width, raster.height), (width, height), "{name}");
        assert!(raster.pixels == read(&format!("{name}.rgb")), "{name}: decoding gives other bytes");
        let test = resize.centre(Encoded::open(&bytes).unwrap(), 256, SIDE).unwrap();
        worst.compare(name, &test.pixels, &read(&format!("{name}.test")), height > width);
    }
    for (number, (name, crop)) in crops.iter().enumerate() {
        let bytes = read(name);
        let train = resize.crop(Encoded::open(&bytes).unwrap(), *crop, SIDE).unwrap();
        let mut planes = Vec::new();
        train.append_planes(crop.flip, &mut planes);
        let pixels = (SIDE * SIDE) as usize;
        let interleaved: Vec<u8> = (0..3 * pixels).map(|i| planes[i % 3 * pixels + i / 3]).collect();
        let high = crop.region.height > crop.region.width;
        worst.compare(&format!("{name} {crop:?}"), &interleaved, &read(&format!("{number}.train")), high);
    }
    println!("{worst:?}");
    assert!(worst.wide < 0.05 && worst.high < 0.3, "{worst:?}");
}

/// Over all crops: their largest mean difference, of those wider than high, and of those higher.
#[derive(Debug, Default)]
struct Worst {
    wide: f64,
    high: f64,
}

impl Worst {
    fn compare(&mut self, what: &str, ours: &[u8], theirs: &[u8], high: bool) {
        assert_eq!(ours.len(), theirs.len(), "{what}");
        let differences = ours.iter().zip(theirs).map(|(a, b)| a.abs_diff(*b));
        let most = differences.clone().max().unwrap();
        assert!(most <= 1, "{what}: {most}");
        let mean = differences.map(f64::from).sum::<f64>() / ours.len() as f64;
        let worst = if high { &mut self.high } else { &mut self.wide };
        *worst = worst.max(mean);
    }
}

/// What a decoded region is, is what decoding everything gives there.
#[test]
fn a_decoded_region_has_the_pixels_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("crops"), "").unwrap();
    let lines = IMAGES.iter().map(|(name, w, h, kind)| format!("{name} {w} {h} {kind}"));
    fs::write(folder.path().join("images"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    let arguments: &[&Path] = &[folder.path()];
    if peers::python("a_decoded_region_has_the_pixels_of_the_whole", PROGRAM, arguments).is_none() {
        return;
    }
    for (at, (name, width, height, _)) in (0..).zip(IMAGES) {
        let bytes = fs::read(folder.path().join(name)).unwrap();
        let whole = decode(&bytes).unwrap();
        for draw in 0..30 {
            let mut random = Stream::new(3, Purpose::Augmentation, [draw, at]);
            let region = RandomResizedCrop::draw(&mut random, width, height).region;
            let (part, within) = Encoded::open(&bytes).unwrap().decode(region).unwrap();
            for y in 0..region.height {
                let row = |raster: &cnx_images::raster::Raster, left: u32, top: u32| {
                    let start = 3 * ((top + y) * raster.width + left) as usize;
                    raster.pixels[start..][..3 * region.width as usize].to_vec()
                };
                assert!(
                    row(&whole, region.left, region.top) == row(&part, within.left, within.top),
                    "{name}: row {y} of {region:?}"
                );
            }
        }
    }
}
