//! Packing: what comes out is what went in; whole or absent; going on where it stopped.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use cnx_images::decode::{decode, encode_jpeg};
use cnx_images::folder::Folders;
use cnx_images::pack::{Options, Pack, PackError, Packed, pack};
use cnx_images::raster::Raster;

const AS_THEY_ARE: Options = Options { shard_bytes: 2500, shorter_side: None };

/// Three classes; the contents are no images, which packing does not mind.
fn set(root: &Path) -> PathBuf {
    let set = root.join("set");
    for (split, images) in [("train", 7), ("val", 2)] {
        for class in ["n01", "n02", "n03"] {
            fs::create_dir_all(set.join(split).join(class)).unwrap();
            for image in 0..images {
                let content = format!("{split} {class} {image} ").repeat(20 + image);
                fs::write(set.join(split).join(class).join(format!("{image}.JPEG")), content).unwrap();
            }
        }
    }
    set
}

fn packed(set: &Path, out: &Path, options: Options) -> Result<Packed, PackError> {
    let folders = Folders::open(set).unwrap();
    let splits = ["train", "val"].map(|split| (split, folders.list(split).unwrap()));
    pack(&folders, &splits, out, options, &mut |_, _| {})
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_pack_holds_every_image_with_its_name_and_class_in_the_folders_order() {
    let root = tempfile::tempdir().unwrap();
    let set = set(root.path());
    let out = root.path().join("pack");
    let Packed { pack, already, .. } = packed(&set, &out, AS_THEY_ARE).unwrap();
    assert!(!already && pack.classes() == ["n01", "n02", "n03"] && pack.images() == 27);
    let (folders, mut buffer) = (Folders::open(&set).unwrap(), Vec::new());
    for split in ["train", "val"] {
        let (listing, images) = (folders.list(split).unwrap(), pack.split(split).unwrap());
        assert_eq!(images.len(), listing.images.len());
        for (at, image) in listing.images.iter().enumerate() {
            let entry = images.read(at, &mut buffer).unwrap();
            assert_eq!(entry.name, format!("{}/{}", listing.class(image), image.name));
            assert_eq!(entry.image, fs::read(listing.path(image)).unwrap());
            assert_eq!(images.class(at), Some(image.class));
        }
    }
    pack.verify(&mut |_| {}).unwrap();
    // Only shards and the index are left, and no shard is larger than was said, but for the names.
    let names: Vec<String> = contents(&out).into_iter().map(|(name, _)| name).collect();
    assert!(
        names.len() > 4 && names.iter().all(|name| name.ends_with(".shard") || name == "index.cnx"),
        "{names:?}"
    );
    assert!(!root.path().join("pack.part").exists());
}

#[test]
fn packing_again_is_done_at_once_and_other_images_are_not_written_over() {
    let root = tempfile::tempdir().unwrap();
    let set = set(root.path());
    let out = root.path().join("pack");
    let first = packed(&set, &out, AS_THEY_ARE).unwrap().pack.hash().to_owned();
    let again = packed(&set, &out, AS_THEY_ARE).unwrap();
    assert!(again.already && again.pack.hash() == first);
    // A copy of the images gives the same pack.
    fs::File::options()
        .append(true)
        .open(set.join("val/n01/0.JPEG"))
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH)
        .unwrap();
    assert_eq!(packed(&set, &root.path().join("copy"), AS_THEY_ARE).unwrap().pack.hash(), first);
    fs::write(set.join("val/n02/new.JPEG"), "new").unwrap();
    let said = packed(&set, &out, AS_THEY_ARE).unwrap_err().to_string();
    assert!(said.contains("a pack of other images"), "{said}");
    fs::create_dir(root.path().join("mine")).unwrap();
    let said = packed(&set, &root.path().join("mine"), AS_THEY_ARE).unwrap_err().to_string();
    assert!(said.contains("is no pack"), "{said}");
}

#[test]
fn a_stopped_packing_goes_on_where_it_stopped_and_ends_with_the_same_bytes() {
    let root = tempfile::tempdir().unwrap();
    let set = set(root.path());
    let (whole, out) = (root.path().join("whole"), root.path().join("pack"));
    packed(&set, &whole, AS_THEY_ARE).unwrap();
    // It stops at an image that cannot be read: a folder stands in its place.
    let (blocked, aside) = (set.join("val/n03/1.JPEG"), root.path().join("aside"));
    fs::rename(&blocked, &aside).unwrap();
    fs::create_dir(&blocked).unwrap();
    let said = packed(&set, &out, AS_THEY_ARE).unwrap_err().to_string();
    assert!(said.contains("val/n03/1.JPEG"), "{said}");
    assert!(!out.exists(), "whole or absent");
    let written =
        |name: &str| fs::metadata(root.path().join("pack.part").join(name)).unwrap().modified().unwrap();
    let before = written("train-00000.shard");
    fs::remove_dir(&blocked).unwrap();
    fs::rename(&aside, &blocked).unwrap();
    packed(&set, &out, AS_THEY_ARE).unwrap();
    assert!(contents(&whole) == contents(&out), "the same files, and the same bytes in them");
    assert_eq!(
        fs::metadata(out.join("train-00000.shard")).unwrap().modified().unwrap(),
        before,
        "taken over"
    );
}

#[test]
fn larger_images_are_made_smaller_on_request_and_damaged_ones_named() {
    let root = tempfile::tempdir().unwrap();
    let set = root.path().join("set");
    fs::create_dir_all(set.join("val/n01")).unwrap();
    let image = |width: u32, height: u32| {
        let pixels = (0..width * height).flat_map(|i| [(i % width) as u8, (i / width) as u8, 7]).collect();
        encode_jpeg(&Raster { width, height, pixels }, 90).unwrap()
    };
    let small = image(50, 30);
    fs::write(set.join("val/n01/a.JPEG"), image(200, 100)).unwrap();
    fs::write(set.join("val/n01/b.JPEG"), &small).unwrap();
    fs::write(set.join("val/n01/c.JPEG"), &small[..90]).unwrap();
    let folders = Folders::open(&set).unwrap();
    let splits = [("val", folders.list("val").unwrap())];
    let options = Options { shard_bytes: 1 << 20, shorter_side: Some(64) };
    let Packed { pack, damaged, .. } =
        pack(&folders, &splits, &root.path().join("pack"), options, &mut |_, _| {}).unwrap();
    assert!(damaged.len() == 1 && damaged[0].contains("c.JPEG"), "{damaged:?}");
    let val = pack.split("val").unwrap();
    let mut buffer = Vec::new();
    let made = decode(val.read(0, &mut buffer).unwrap().image).unwrap();
    assert_eq!((made.width, made.height), (128, 64));
    assert_eq!(val.read(1, &mut buffer).unwrap().image, small, "no larger than asked for: as it was");
    assert_eq!(Pack::open(&root.path().join("pack")).unwrap().images(), 3);
}
