//! `cnx predict`, on generated images and networks of random weights.

use std::path::PathBuf;

use cnx_engine::{reference, sample};
use cnx_formats::{StateDict, safetensors};
use cnx_images::raster::Raster;
use cnx_proto::Spec;
use cnx_proto::architecture::Form;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use serde_json::Value;

use crate::{Said, cnx, run};

fn spec(dataset: Dataset) -> Spec {
    let mut spec = recipe(Arch::CondenseNet, dataset);
    spec.name = "small".to_owned();
    spec.model.stages = serde_json::from_value("1-1".into()).unwrap();
    spec.model.growth = serde_json::from_value("8-8".into()).unwrap();
    spec
}

fn network(dataset: Dataset, form: Form) -> StateDict {
    sample::state(&spec(dataset), form, 5)
}

struct Place(tempfile::TempDir);

impl Place {
    /// A folder with a model of a dataset.
    fn new(dataset: Dataset) -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        place.write("m.safetensors", &safetensors::write(&network(dataset, Form::Converted)).unwrap());
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.at(name), bytes).unwrap();
    }

    fn predict(&self, arguments: &[&str]) -> Said {
        run(cnx(&["predict", "m.safetensors"]).args(arguments).current_dir(self.0.path()))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let said = self.predict(&[arguments, &["--json"]].concat());
        assert_eq!(said.code, 0, "{}", said.err);
        serde_json::from_str(&said.out).unwrap()
    }
}

fn picture(width: u32, height: u32) -> Raster {
    let pixels = (0..3 * width * height).map(|i| (i * 37 % 253) as u8).collect();
    Raster { width, height, pixels }
}

fn png_bytes(raster: &Raster) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, raster.width, raster.height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&raster.pixels).unwrap();
    bytes
}

fn jpeg_bytes(raster: &Raster) -> Vec<u8> {
    cnx_images::decode::encode_jpeg(raster, 95).unwrap()
}

/// Classes and probabilities by plain loops over a picture of the network's size.
fn expected(dataset: Dataset, form: Form, raster: &Raster) -> Vec<(usize, f64)> {
    let (mean, deviation) = dataset.normalisation();
    let value =
        |c: usize| move |pixel: &[u8]| ((f64::from(pixel[c]) / 255.0 - mean[c]) / deviation[c]) as f32;
    let image: Vec<f32> = (0..3).flat_map(|c| raster.pixels.chunks(3).map(value(c))).collect();
    let logits = reference::logits(&spec(dataset), &network(dataset, form), &image);
    let sum: f64 = logits.iter().map(|x| x.exp()).sum();
    let mut classes: Vec<(usize, f64)> = logits.iter().map(|x| x.exp() / sum).enumerate().collect();
    classes.sort_by(|a, b| b.1.total_cmp(&a.1));
    classes
}

fn hold(predictions: &Value, expected: &[(usize, f64)]) {
    let predictions = predictions.as_array().unwrap();
    for (found, (class, probability)) in predictions.iter().zip(expected) {
        assert_eq!(found["class"], *class, "{predictions:?}");
        assert!((found["probability"].as_f64().unwrap() - probability).abs() < 1e-4, "{predictions:?}");
    }
}

#[test]
fn the_likeliest_classes_are_those_of_the_network_with_their_names() {
    let place = Place::new(Dataset::Cifar10);
    let raster = picture(32, 32);
    place.write("a.png", &png_bytes(&raster));
    for threads in ["1", "2"] {
        let told = place.json(&["a.png", "--threads", threads]);
        assert_eq!((&told["version"], &told["model"]["name"]), (&1.into(), &"small".into()));
        let image = &told["images"][0];
        assert_eq!(
            (&image["path"], &image["resized"], &image["error"]),
            (&"a.png".into(), &false.into(), &Value::Null)
        );
        assert!(image["time_ms"].as_f64().unwrap() > 0.0);
        let predictions = &image["predictions"];
        assert_eq!(predictions.as_array().unwrap().len(), 5);
        let expected = expected(Dataset::Cifar10, Form::Converted, &raster);
        hold(predictions, &expected);
        let names =
            ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
        assert_eq!(predictions[0]["label"], names[expected[0].0]);
    }
    assert_eq!(
        place.json(&["a.png", "--top", "99"])["images"][0]["predictions"].as_array().unwrap().len(),
        10
    );
}

#[test]
fn people_read_a_block_an_image() {
    let place = Place::new(Dataset::Cifar10);
    place.write("a.png", &png_bytes(&picture(32, 32)));
    place.write("b.jpg", &jpeg_bytes(&picture(75, 50)));
    let said = place.predict(&["a.png", "b.jpg", "--top", "2"]);
    assert_eq!((said.code, said.err.as_str()), (0, ""));
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 6, "{}", said.out);
    assert!(lines[0].starts_with("a.png  32×32; ") && lines[0].ends_with(" ms"), "{}", said.out);
    assert!(lines[3].starts_with("b.jpg  75×50, resized to 32×32; "), "{}", said.out);
    assert!(lines[1].contains(" %  ") && lines[1].starts_with("  "), "{}", said.out);
}

#[test]
fn a_model_as_trained_answers_as_well() {
    let place = Place::new(Dataset::Cifar10);
    place.write("m.safetensors", &safetensors::write(&network(Dataset::Cifar10, Form::Large)).unwrap());
    let raster = picture(32, 32);
    place.write("a.png", &png_bytes(&raster));
    hold(
        &place.json(&["a.png"])["images"][0]["predictions"],
        &expected(Dataset::Cifar10, Form::Large, &raster),
    );
}

#[test]
fn a_broken_image_is_named_and_the_others_are_answered() {
    let place = Place::new(Dataset::Cifar100);
    place.write("a.png", &png_bytes(&picture(32, 32)));
    let jpeg = jpeg_bytes(&picture(60, 60));
    place.write("short.jpg", &jpeg[..30]);
    place.write("text.png", b"no image at all");
    place.write("empty.png", b"");
    std::fs::create_dir(place.at("folder.png")).unwrap();
    let images = ["none.png", "short.jpg", "text.png", "empty.png", "folder.png", "a.png"];
    let said = place.predict(&images);
    assert_eq!(said.code, 1);
    assert!(said.out.starts_with("a.png  32×32; "), "{}", said.out);
    for expected in [
        "cannot read none.png",
        "short.jpg: ",
        "text.png: unknown first bytes",
        "empty.png: the file is empty",
        "folder.png is not a file",
    ] {
        assert!(said.err.contains(expected), "{expected}: {}", said.err);
    }
    let said = place.predict(&[&images[..], &["--json"]].concat());
    let told: Value = serde_json::from_str(&said.out).unwrap();
    let answered: Vec<bool> =
        told["images"].as_array().unwrap().iter().map(|image| image["error"].is_null()).collect();
    assert_eq!((said.code, answered), (1, vec![false, false, false, false, false, true]));
}

#[test]
fn names_of_classes_may_be_given_and_must_be_as_many() {
    let place = Place::new(Dataset::Synthetic);
    place.write("a.png", &png_bytes(&picture(32, 32)));
    assert!(place.predict(&["a.png"]).out.contains(" %  class "));
    let names = |n: usize| (0..n).map(|i| format!("thing\x1b {i}\n")).collect::<String>();
    place.write("labels.txt", format!("{}\n", names(10)).as_bytes());
    let said = place.predict(&["a.png", "--labels", "labels.txt"]);
    assert!(said.code == 0 && said.out.contains(" %  thing") && !said.out.contains('\x1b'), "{:?}", said.out);
    place.write("labels.txt", names(9).as_bytes());
    let said = place.predict(&["a.png", "--labels", "labels.txt"]);
    assert!(
        said.code == 2 && said.err.contains("names 9 classes, but a model of synthetic has 10"),
        "{}",
        said.err
    );
    for bad in ["none.txt", "/dev/zero", "m.safetensors"] {
        let said = place.predict(&["a.png", "--labels", bad]);
        assert!(said.code == 2 && said.err.contains(bad), "{bad}: {}", said.err);
    }
}

#[test]
fn a_model_that_is_none_is_refused_in_words() {
    let place = Place::new(Dataset::Cifar10);
    place.write("a.png", &png_bytes(&picture(32, 32)));
    let whole = std::fs::read(place.at("m.safetensors")).unwrap();
    let refused = |bytes: &[u8], expected: &str| {
        place.write("m.safetensors", bytes);
        let said = place.predict(&["a.png"]);
        assert!(said.code == 1 && said.out.is_empty(), "{expected}: {}", said.out);
        assert!(
            said.err.contains("m.safetensors") && said.err.contains(expected),
            "{expected}: {}",
            said.err
        );
    };
    refused(&whole[..whole.len() / 2], "safetensors");
    refused(b"PK\x03\x04 and so on", "");
    let mut state = network(Dataset::Cifar10, Form::Converted);
    state.spec_json = None;
    refused(&safetensors::write(&state).unwrap(), "cnx import --spec");
    let mut state = network(Dataset::Cifar10, Form::Converted);
    assert!(state.tensors.remove("classifier.linear.weight").is_some());
    refused(&safetensors::write(&state).unwrap(), "classifier.linear.weight");
    std::fs::remove_file(place.at("m.safetensors")).unwrap();
    let said = place.predict(&["a.png"]);
    assert!(said.code == 1 && said.err.contains("cannot read the model m.safetensors"), "{}", said.err);
}

#[test]
fn what_cannot_be_meant_is_wrong_usage() {
    let place = Place::new(Dataset::Cifar10);
    for arguments in
        [&[][..], &["a.png", "--top", "0"], &["a.png", "--threads", "0"], &["a.png", "--threads", "9999999"]]
    {
        assert_eq!(place.predict(arguments).code, 2, "{arguments:?}");
    }
}
