//! On small folders of PNGs that the tests write.

use super::*;
use crate::args::Global;

fn context() -> Context {
    Context::new(&Global { state: None, server: None, tls: Default::default(), quiet: true })
}

/// A PNG of 32×32 pixels of one colour.
fn png(colour: [u8; 3], side: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, side, side);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&colour.repeat((side * side) as usize)).unwrap();
    writer.finish().unwrap();
    bytes
}

/// Class folders of a dataset: an image a class and split, whose red is the class's number and whose blue tells the split.
fn folders(cifar: Cifar) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (blue, split) in [(1, "train"), (2, "test")] {
        for (number, class) in (0..).zip(classes(cifar)) {
            let folder = root.path().join(split).join(class.name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join("a.png"), png([number, 0, blue], SIDE)).unwrap();
        }
    }
    root
}

fn import(from: &Path, format: Cifar) -> (Result, PathBuf) {
    let out = from.join("out");
    (run(&context(), &ImportArgs { folder: from.to_path_buf(), out: Some(out.clone()), format }), out)
}

#[test]
fn every_image_comes_with_the_labels_of_its_folder() {
    let root = folders(Cifar::Cifar100);
    let (done, out) = import(root.path(), Cifar::Cifar100);
    done.unwrap();
    for (file, blue) in [("train.bin", 1), ("test.bin", 2)] {
        let bytes = fs::read(out.join(file)).unwrap();
        let mut fine: Vec<u8> = bytes
            .chunks(3074)
            .map(|record| {
                let (labels, pixels) = record.split_at(2);
                assert_eq!((pixels[0], pixels[1024], pixels[2048]), (labels[1], 0, blue));
                assert_eq!(labels, classes(Cifar::Cifar100)[labels[1] as usize].labels);
                labels[1]
            })
            .collect();
        assert!(!fine.is_sorted(), "shuffled");
        fine.sort_unstable();
        assert_eq!(fine, (0..100).collect::<Vec<u8>>());
    }
    assert!(
        fs::read_to_string(out.join("fine_label_names.txt")).unwrap().starts_with("apple\naquarium_fish\n")
    );
}

#[test]
fn the_result_verifies_and_a_change_in_it_does_not() {
    let root = folders(Cifar::Cifar10);
    let (done, out) = import(root.path(), Cifar::Cifar10);
    done.unwrap();
    assert_eq!(fs::read_dir(&out).unwrap().count(), 5 + 1 + 2);
    let verify = || verify::run(&context(), &super::super::VerifyArgs { folder: out.clone() });
    verify().unwrap();
    let path = out.join("data_batch_2.bin");
    let mut bytes = fs::read(&path).unwrap();
    bytes[100] ^= 1;
    fs::write(&path, bytes).unwrap();
    let said = verify().unwrap_err().message;
    assert!(said.contains("changed since it was imported: data_batch_2.bin"), "{said}");
}

#[test]
fn folders_that_are_not_the_dataset_s_classes_are_named() {
    let root = folders(Cifar::Cifar10);
    fs::rename(root.path().join("test/cat"), root.path().join("test/lion")).unwrap();
    let (done, out) = import(root.path(), Cifar::Cifar10);
    let said = done.unwrap_err().message;
    assert!(said.contains("unknown: lion") && said.contains("missing: cat"), "{said}");
    assert!(!out.exists());
}

#[test]
fn an_image_that_cannot_be_one_of_the_dataset_is_named_and_nothing_is_left() {
    let root = folders(Cifar::Cifar10);
    let path = root.path().join("train/frog/a.png");
    for (content, why) in [
        (png([0; 3], 31), "31×31 pixels, expected 32×32"),
        (b"\xFF\xD8\xFF".to_vec(), "is a JPEG"),
        (png([0; 3], 32)[..80].to_vec(), "PNG cannot be decoded"),
        (b"GIF89a".to_vec(), "expected a JPEG or a PNG"),
    ] {
        fs::write(&path, content).unwrap();
        let (done, _) = import(root.path(), Cifar::Cifar10);
        let said = done.unwrap_err().message;
        assert!(said.contains("train/frog/a.png") && said.contains(why), "{said}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 2, "only train and test");
    }
}

#[test]
fn what_is_there_already_is_not_overwritten() {
    let root = folders(Cifar::Cifar10);
    import(root.path(), Cifar::Cifar10).0.unwrap();
    let said = import(root.path(), Cifar::Cifar10).0.unwrap_err().message;
    assert!(said.contains("is there already"), "{said}");
}
