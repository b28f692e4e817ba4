//! Damaged and hostile files: every one is an error or an image, none a panic, none takes more memory than its bound.

// A test may panic.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use cnx_images::decode::{DecodeError, decode, encode_jpeg};
use cnx_images::folder::Folders;
use cnx_images::pack::{INDEX, Options, Pack, pack};
use cnx_images::raster::Raster;
use proptest::prelude::*;
use sha2::{Digest, Sha256};

fn picture(width: u32, height: u32) -> Raster {
    let pixels = (0..3 * width * height).map(|i| (i * i / 7 + i) as u8).collect();
    Raster { width, height, pixels }
}

fn jpeg() -> Vec<u8> {
    encode_jpeg(&picture(40, 30), 90).unwrap()
}

/// A pack of two classes and six images, in a folder of its own.
fn packed(root: &Path) -> std::path::PathBuf {
    for file in [
        "train/a/1.JPEG",
        "train/a/2.JPEG",
        "train/b/1.JPEG",
        "train/b/2.JPEG",
        "val/a/3.JPEG",
        "val/b/3.JPEG",
    ] {
        let path = root.join("set").join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, [&jpeg()[..], file.as_bytes()].concat()).unwrap();
    }
    let folders = Folders::open(&root.join("set")).unwrap();
    let splits = ["train", "val"].map(|split| (split, folders.list(split).unwrap()));
    let out = root.join("pack");
    pack(&folders, &splits, &out, Options { shard_bytes: 3000, shorter_side: None }, &mut |_, _| {}).unwrap();
    out
}

/// Opens a pack and reads all of it; says what went wrong.
fn read_all(folder: &Path) -> Result<usize, String> {
    let pack = Pack::open(folder).map_err(|error| error.to_string())?;
    let mut buffer = Vec::new();
    let mut images = 0;
    for split in ["train", "val"].iter().filter_map(|name| pack.split(name)) {
        for image in 0..split.len() {
            split.read(image, &mut buffer).map_err(|error| error.to_string())?;
            images += 1;
        }
    }
    Ok(images)
}

/// Sets the last 32 bytes of an index to the hash of those before: a liar would.
fn seal(index: &mut [u8]) {
    let body = index.len() - 32;
    let hash = Sha256::digest(&index[..body]);
    index[body..].copy_from_slice(&hash);
}

#[test]
fn a_changed_byte_anywhere_in_a_pack_is_found_and_its_file_named() {
    let root = tempfile::tempdir().unwrap();
    let folder = packed(root.path());
    assert_eq!(read_all(&folder).unwrap(), 6);
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() > 3, "{files:?}");
    for path in files {
        let whole = fs::read(&path).unwrap();
        for at in (0..whole.len()).step_by(97) {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            let said = read_all(&folder).unwrap_err();
            assert!(said.contains(path.file_name().unwrap().to_str().unwrap()), "byte {at}: {said}");
            assert!(Pack::open(&folder).and_then(|pack| pack.verify(&mut |_| {})).is_err());
        }
        for length in [0, 1, whole.len() / 2, whole.len() - 1] {
            fs::write(&path, &whole[..length]).unwrap();
            let said = read_all(&folder).unwrap_err();
            assert!(said.contains(path.file_name().unwrap().to_str().unwrap()), "{length} bytes: {said}");
        }
        fs::write(&path, &whole).unwrap();
    }
    assert_eq!(read_all(&folder).unwrap(), 6);
}

#[test]
fn an_index_that_lies_under_a_right_checksum_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let folder = packed(root.path());
    let path = folder.join(INDEX);
    let whole = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(whole[8..16].try_into().unwrap()) as usize;
    let contents = String::from_utf8(whole[16..16 + length].to_vec()).unwrap();
    let records = whole[16 + length..whole.len() - 32].to_vec();
    let said = |contents: &str, records: &[u8]| {
        let length = (contents.len() as u64).to_le_bytes();
        let mut index = [b"CNXPACK1", &length[..], contents.as_bytes(), records, &[0; 32]].concat();
        seal(&mut index);
        fs::write(&path, index).unwrap();
        read_all(&folder).unwrap_err()
    };
    assert!(
        said(&contents.replace("train-00000", "../train-00000"), &records).contains("is no name of a shard")
    );
    assert!(
        said(&contents.replace("\"images\":", "\"images\":4294967295,\"x\":"), &records)
            .contains("unknown field")
    );
    let many = contents.replacen("\"images\":", "\"images\":4294967", 1);
    assert!(said(&many, &records).contains("bytes of records"), "{}", said(&many, &records));
    let mut long = records.clone();
    long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(said(&contents, &long).contains("expected at most"));
    let mut other = records.clone();
    other[0] ^= 1;
    assert!(said(&contents, &other).contains("bytes together"));
    let mut class = records.clone();
    class[4] = 200;
    assert!(said(&contents, &class).contains("of class 200, expected less than 2"));
    let mut index = whole.clone();
    index[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    seal(&mut index);
    fs::write(&path, index).unwrap();
    assert!(read_all(&folder).unwrap_err().contains("within its contents"));
}

#[test]
fn a_head_that_promises_gigapixels_allocates_nothing() {
    let mut bytes = jpeg();
    let frame = bytes.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    bytes[frame + 5..frame + 9].copy_from_slice(&[0xFF, 0xDC, 0xFF, 0xDC]);
    let error = decode(&bytes).unwrap_err();
    assert!(error.to_string().contains("limit") || matches!(error, DecodeError::TooLarge(..)), "{error}");
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\x7f\xff\xff\xff\x7f\xff\xff\xff\x08\x02\0\0\0".to_vec();
    let crc = crc32fast::hash(&png[12..]);
    png.extend(crc.to_be_bytes());
    assert!(decode(&png).is_err());
}

#[test]
fn a_cut_jpeg_is_refused_as_pillow_refuses_it() {
    let whole = encode_jpeg(&picture(200, 150), 90).unwrap();
    assert!(decode(&whole).is_ok());
    for length in [2, 100, whole.len() / 2, whole.len() - 200] {
        assert!(decode(&whole[..length]).is_err(), "{length} of {} bytes", whole.len());
    }
    assert_eq!(decode(b"").unwrap_err().to_string(), "the file is empty, expected a JPEG or a PNG");
    assert!(decode(b"GIF89a").unwrap_err().to_string().contains("expected a JPEG or a PNG"));
}

proptest! {
    #[test]
    fn damaged_images_are_errors_or_images(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12)) {
        let mut bytes = jpeg();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(raster) = decode(&bytes) {
            prop_assert_eq!(raster.pixels.len(), 3 * raster.width as usize * raster.height as usize);
        }
    }

    #[test]
    fn any_bytes_after_a_jpeg_s_or_png_s_first_ones_are_errors_or_images(rest in proptest::collection::vec(any::<u8>(), 0..2000), png: bool) {
        let first: &[u8] = if png { b"\x89PNG\r\n\x1a\n" } else { b"\xFF\xD8" };
        let _ = decode(&[first, &rest].concat());
    }
}
