//! Files made by hand: pickles instruction by instruction, in the containers of torch.

// A test may panic; and not every test uses all of this.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

use std::io::{Cursor, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

/// A real file.
pub fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The instructions of a pickle of protocol 2.
pub struct Pickle(pub Vec<u8>);

/// Pushes one value.
pub type Push = fn(&mut Pickle);

impl Pickle {
    pub fn new() -> Pickle {
        Pickle(vec![0x80, 2])
    }

    pub fn op(&mut self, op: u8) -> &mut Pickle {
        self.0.push(op);
        self
    }

    pub fn mark(&mut self) -> &mut Pickle {
        self.op(b'(')
    }

    pub fn int(&mut self, n: i64) -> &mut Pickle {
        self.op(0x8a).op(8);
        self.0.extend(n.to_le_bytes());
        self
    }

    pub fn text(&mut self, text: &str) -> &mut Pickle {
        self.op(b'X');
        self.0.extend((text.len() as u32).to_le_bytes());
        self.0.extend(text.as_bytes());
        self
    }

    pub fn global(&mut self, module: &str, name: &str) -> &mut Pickle {
        self.0.extend(format!("c{module}\n{name}\n").as_bytes());
        self
    }

    /// A dict of these pairs.
    pub fn dict(&mut self, pairs: &[(&str, Push)]) -> &mut Pickle {
        self.op(b'}').mark();
        for (name, push) in pairs {
            self.text(name);
            push(self);
        }
        self.op(b'u')
    }

    /// A tensor of the storage `0`, of `len` floats.
    pub fn tensor(&mut self, len: i64, offset: i64, shape: &[i64], strides: &[i64]) -> &mut Pickle {
        self.global("torch._utils", "_rebuild_tensor_v2").mark();
        self.mark()
            .text("storage")
            .global("torch", "FloatStorage")
            .text("0")
            .text("cpu")
            .int(len)
            .op(b't')
            .op(b'Q');
        self.int(offset);
        for sizes in [shape, strides] {
            self.mark();
            for &n in sizes {
                self.int(n);
            }
            self.op(b't');
        }
        self.op(0x89).global("collections", "OrderedDict").op(b')').op(b'R').op(b't').op(b'R')
    }

    /// The whole pickle.
    pub fn end(&self) -> Vec<u8> {
        [self.0.as_slice(), b"."].concat()
    }
}

/// A storage as the legacy container has it: the number of elements, and they.
pub fn float_storage(values: &[f32]) -> Vec<u8> {
    let bytes = values.iter().flat_map(|x| x.to_le_bytes());
    (values.len() as u64).to_le_bytes().into_iter().chain(bytes).collect()
}

/// A file of the legacy container.
pub fn legacy(object: &Pickle, keys: &[&str], storages: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.'];
    bytes.extend(Pickle::new().int(1001).end());
    bytes.extend(
        Pickle::new()
            .dict(&[("little_endian", |pickle| {
                pickle.op(0x88);
            })])
            .end(),
    );
    bytes.extend(object.end());
    let mut list = Pickle::new();
    list.op(b']').mark();
    for key in keys {
        list.text(key);
    }
    bytes.extend(list.op(b'e').end());
    bytes.extend(storages);
    bytes
}

/// A zip archive of these entries.
pub fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in entries {
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(format!("archive/{name}"), options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A zip archive of these entries, compressed; `claim`: the size that each says it has.
pub fn deflated(entries: &[(&str, &[u8])], claim: Option<u32>) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in entries {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(content).unwrap();
        let packed = encoder.finish().unwrap();
        let name = format!("archive/{name}");
        let size = claim.unwrap_or(content.len() as u32);
        // Version, flags, method, time, date, checksum (0: none), sizes, lengths of name and extra field.
        let mut about: Vec<u8> = [20u16, 0, 8, 0, 0x21].iter().flat_map(|n| n.to_le_bytes()).collect();
        about.extend([0, packed.len() as u32, size].iter().flat_map(|n| n.to_le_bytes()));
        about.extend([name.len() as u16, 0].iter().flat_map(|n| n.to_le_bytes()));
        let offset = bytes.len() as u32;
        directory.extend(
            [b"PK\x01\x02\x14\0", about.as_slice(), &[0; 10], &offset.to_le_bytes(), name.as_bytes()]
                .concat(),
        );
        bytes.extend([b"PK\x03\x04", about.as_slice(), name.as_bytes(), &packed].concat());
    }
    let (offset, length, count) = (bytes.len() as u32, directory.len() as u32, entries.len() as u16);
    bytes.extend(directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count, count].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend([length, offset].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend([0, 0]);
    bytes
}

/// The entries of a zip archive in one of [`deflated`]'s.
pub fn repacked(bytes: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut entries = Vec::new();
    for index in 0..zip.len() {
        let mut file = zip.by_index(index).unwrap();
        let name = file.name().unwrap().split_once('/').unwrap().1.to_owned();
        let mut content = Vec::new();
        file.read_to_end(&mut content).unwrap();
        entries.push((name, content));
    }
    let entries: Vec<_> = entries.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    deflated(&entries, None)
}

/// The spec of the `condensenet-c4` files.
pub fn spec_of_the_fixtures() -> cnx_proto::Spec {
    use cnx_proto::spec::{Arch, Dataset};
    let mut spec = cnx_proto::recipe::recipe(Arch::CondenseNet, Dataset::Cifar10);
    "condensenet-c4".clone_into(&mut spec.name);
    spec.model.stages = serde_json::from_value("2-2-2".into()).unwrap();
    spec.model.growth = serde_json::from_value("4-8-16".into()).unwrap();
    spec
}
