//! Files that lie, and files that would do harm: each is refused with a message that says what is wrong, and reading it
//! takes memory in proportion to its size.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod craft;
mod metered;

use craft::{Pickle, archive, fixture, float_storage, legacy};
use metered::Meter;

/// A legacy file of one tensor `w`.
fn one_tensor(len: i64, offset: i64, shape: &[i64], strides: &[i64], storage: &[u8]) -> Vec<u8> {
    let mut object = Pickle::new();
    object.op(b'}').text("w").tensor(len, offset, shape, strides).op(b's');
    legacy(&object, &["0"], storage)
}

#[test]
fn a_pickle_that_would_run_code_is_refused_by_the_name_of_what_it_wants() {
    let meter = Meter::alone();
    let mut system = Pickle::new();
    system.op(b'}').text("state_dict").global("posix", "system").text("true").op(0x85).op(b'R').op(b's');
    let mut by_stack = Pickle::new();
    by_stack.text("builtins").text("eval").op(0x93).text("1").op(0x85).op(b'R');
    let mut hidden = Pickle::new();
    hidden.global("os", "popen").text("true").op(0x85).op(b'R').op(b'0').op(b'}').text("w");
    hidden.tensor(1, 0, &[1], &[1]).op(b's');
    for (pickle, callable) in [(system, "posix.system"), (by_stack, "builtins.eval"), (hidden, "os.popen")] {
        let said = format!("refused: its pickle asks for the callable `{callable}`");
        for file in [
            legacy(&pickle, &["0"], &float_storage(&[1.0])),
            archive(&[("data.pkl", &pickle.end()), ("data/0", &[0; 4])]),
            pickle.end(),
        ] {
            meter.refused(&file, &said);
        }
    }
    meter.refused(b"cos\nsystem\n(S'true'\ntR.", "`os.system`");
    meter.refused(b"(X\x04\x00\x00\x00trueios\nsystem\n.", "`os.system`");
}

#[test]
fn what_is_no_checkpoint_is_said_to_be_none() {
    let meter = Meter::alone();
    meter.refused(b"", "not a checkpoint: the file is empty");
    meter.refused(b"%PDF-1.7 and more", "not a checkpoint: it begins with `%PDF-1.7`");
    meter.refused(&[0xff; 3], "not a checkpoint");
    meter.refused(&Pickle::new().int(7).end(), "it is a pickle, but not one that torch.save wrote");
    meter.refused(&legacy(Pickle::new().int(7), &[], &[]), "what it holds is no dict");
    meter.refused(&archive(&[("readme", b"hello")]), "it is a zip archive without data.pkl");
    let mut nothing = Pickle::new();
    nothing.op(b'}').text("epoch").int(3).op(b's').text("lr").int(1).op(b's');
    meter.refused(&legacy(&nothing, &[], &[]), "neither tensors nor a key state_dict, but [epoch, lr]");
    let mut tar = vec![0; 1024];
    tar[257..262].copy_from_slice(b"ustar");
    meter.refused(&tar, "it is a tar archive, as torch wrote before 0.1.10");
    let script = archive(&[("data.pkl", &Pickle::new().int(7).end()), ("constants.pkl", b"")]);
    meter.refused(&script, "it is a TorchScript program");
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let meter = Meter::alone();
    for name in ["condensenet-c4.zip.pth.tar", "condensenet-c4.legacy.pth.tar", "oddities.protocol4.pth"] {
        let bytes = fixture(name);
        let step = (bytes.len() / 500).max(1);
        for length in (0..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            assert!(meter.read(&bytes[..length]).is_err(), "{name} cut to {length} of {} bytes", bytes.len());
        }
    }
    let whole = fixture("condensenet-c4.legacy.pth.tar");
    meter.refused(&whole[..10_000], "the file is damaged: it ends in the middle of its pickle");
    meter.refused(&whole[..100_000], "the file is damaged: it ends before its storage");
    meter.refused(
        &fixture("condensenet-c4.zip.pth.tar")[..100_000],
        "the file is damaged: its zip directory cannot be read",
    );
}

#[test]
fn a_flipped_bit_in_an_archive_is_found_by_its_checksum() {
    let meter = Meter::alone();
    let mut object = Pickle::new();
    object.op(b'}').text("w").tensor(4, 0, &[4], &[1]).op(b's');
    let mut bytes = archive(&[("data.pkl", &object.end()), ("data/0", b"sixteen bytes :)")]);
    let at = bytes.windows(7).position(|window| window == b"sixteen").unwrap();
    bytes[at] ^= 1;
    meter.refused(&bytes, "the checksum of its entry data/0 is wrong");
}

#[test]
fn tensors_that_reach_beyond_their_storage_are_refused() {
    let meter = Meter::alone();
    let storage = float_storage(&[1.0, 2.0, 3.0, 4.0]);
    assert!(meter.read(&one_tensor(4, 1, &[3], &[1], &storage)).is_ok());
    let beyond = "w: a tensor of shape";
    for (offset, shape, strides) in [
        (2, &[3][..], &[1][..]),
        (0, &[5], &[1]),
        (0, &[2], &[4]),
        (4, &[1], &[1]),
        (i64::MAX, &[2], &[1]),
        (0, &[i64::MAX, i64::MAX], &[1, 1]),
        (0, &[2, 2], &[i64::MAX, i64::MAX]),
    ] {
        meter.refused(&one_tensor(4, offset, shape, strides, &storage), beyond);
    }
    meter.refused(&one_tensor(4, -1, &[1], &[1], &storage), "with the wrong arguments");
    meter.refused(&one_tensor(4, 0, &[2, 2], &[1], &storage), "with the wrong arguments");
    // A stride along a dimension of size 1 means nothing, however large.
    assert!(meter.read(&one_tensor(4, 0, &[1, 4], &[i64::MAX, 1], &storage)).is_ok());
    assert!(meter.read(&one_tensor(4, 0, &[2, 1, 2], &[1, i64::MAX, 2], &storage)).is_ok());
    meter.refused(&one_tensor(4, 0, &[i64::MAX, i64::MAX, 0], &[1, 1, 1], &storage), "w: shape");
}

#[test]
fn storages_of_other_sizes_than_they_say_are_refused() {
    let meter = Meter::alone();
    let storage = float_storage(&[1.0, 2.0, 3.0, 4.0]);
    meter.refused(&one_tensor(5, 0, &[5], &[1], &storage), "its storage 0 has 4 elements, 5 by the pickle");
    let huge = [(1u64 << 60).to_le_bytes().as_slice(), &[0; 16]].concat();
    meter.refused(&one_tensor(1 << 60, 0, &[1], &[1], &huge), "it ends before its storage 0 does");
    meter.refused(&one_tensor(i64::MAX, 0, &[1], &[1], &storage), "by the pickle");
    meter.refused(&one_tensor(-1, 0, &[1], &[1], &storage), "names a storage wrongly");
    let mut object = Pickle::new();
    object.op(b'}').text("w").tensor(4, 0, &[4], &[1]).op(b's');
    meter.refused(&legacy(&object, &[], &[]), "its storage 0 is missing");
    meter.refused(&legacy(&object, &["0", "1"], &storage), "its storage 1 belongs to no tensor");
    meter.refused(
        &archive(&[("data.pkl", &object.end()), ("data/0", &[0; 12])]),
        "its storage 0 has 12 bytes",
    );
    meter.refused(&archive(&[("data.pkl", &object.end())]), "its storage 0 is missing");
}

#[test]
fn one_number_shown_as_a_billion_takes_no_memory() {
    let meter = Meter::alone();
    meter.refused(&one_tensor(1, 0, &[1 << 30], &[0], &float_storage(&[1.0])), "would take more than");
    meter.refused(
        &one_tensor(1, 0, &[1 << 31, 1 << 31], &[0, 0], &float_storage(&[1.0])),
        "would take more than",
    );
}

#[test]
fn pickles_that_make_much_of_little_take_no_memory() {
    let meter = Meter::alone();
    const LENGTH: usize = 20 << 20;
    for op in [b'N', b'(', b']', b'}', b')', b'2'] {
        let mut flood = Pickle::new();
        flood.op(b'N');
        flood.0.extend(std::iter::repeat_n(op, LENGTH));
        meter.refused(&legacy(&flood, &[], &[]), "would take more than");
    }
    // Each level is two of the one below: 2^64 values, if they were copied.
    let mut doubling = Pickle::new();
    doubling.op(b'N');
    for _ in 0..64 {
        doubling.op(b'2').op(0x86);
    }
    meter.refused(&legacy(&doubling, &[], &[]), "what it holds is no dict");
    // A list in a list in a list, and one in itself.
    let mut deep = Pickle::new();
    deep.op(b']');
    for _ in 0..30_000 {
        deep.op(0x85);
    }
    meter.refused(&legacy(&deep, &[], &[]), "what it holds is no dict");
    let mut itself = Pickle::new();
    itself.op(b'}').op(b'q').op(0).text("state_dict").op(b'h').op(0).op(b's');
    meter.refused(&legacy(&itself, &[], &[]), "state_dict in its state dict is no tensor");
    // A text that says that it has four thousand million bytes.
    let mut long = Pickle::new();
    long.op(b'X').0.extend(u32::MAX.to_le_bytes());
    meter.refused(&legacy(&long, &[], &[]), "it ends in the middle of its pickle");
}

#[test]
fn a_zip_bomb_is_not_inflated() {
    let meter = Meter::alone();
    let zeros = vec![0; 64 << 20];
    let mut object = Pickle::new();
    object.op(b'}').text("w").tensor(16 << 20, 0, &[16 << 20], &[1]).op(b's');
    let object = object.end();
    let bomb = craft::deflated(&[("data.pkl", &object), ("data/0", &zeros)], None);
    assert!(bomb.len() < 200_000, "{}", bomb.len());
    meter.refused(&bomb, "would take more than");
    // The pickle itself as a bomb, and one that says that it is small.
    let nones = [&[0x80, 2][..], &vec![b'N'; 64 << 20], b"."].concat();
    meter.refused(&craft::deflated(&[("data.pkl", &nones)], None), "would take more than");
    meter.refused(&craft::deflated(&[("data.pkl", &nones)], Some(1000)), "is not as long as it says");
    // Compressed by someone, and honest: read.
    let mut small = Pickle::new();
    small.op(b'}').text("w").tensor(4, 0, &[4], &[1]).op(b's');
    let honest = craft::deflated(&[("data.pkl", &small.end()), ("data/0", &[0; 16])], None);
    assert_eq!(meter.read(&honest).unwrap().state.tensors["w"].len(), 4);
}

#[test]
fn a_directory_of_very_many_entries_takes_memory_in_proportion() {
    let meter = Meter::alone();
    let names: Vec<String> = (0..65_000).map(|i| format!("data/{i}")).collect();
    let entries: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    meter.refused(&craft::deflated(&entries, None), "it is a zip archive without data.pkl");
}

#[test]
fn a_safetensors_header_of_very_many_tensors_takes_memory_in_proportion() {
    let meter = Meter::alone();
    let file =
        |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat();
    let tensor =
        |i: usize| format!("\"{i}\":{{\"dtype\":\"U8\",\"shape\":[],\"data_offsets\":[{i},{}]}}", i + 1);
    let tensors: Vec<String> = (0..100_000).map(tensor).collect();
    let header = format!("{{{}}}", tensors.join(","));
    meter.refused(&file(&header, &[0; 100_000]), "would take more than");
    let few = format!("{{{}}}", tensors[..1000].join(","));
    assert_eq!(meter.read(&file(&few, &[0; 1000])).unwrap().state.tensors.len(), 1000);
    let notes: Vec<String> = (0..1_000_000).map(|i| format!("\"{i}\":\"\"")).collect();
    let header = format!("{{\"__metadata__\":{{{}}}}}", notes.join(","));
    meter.refused(&file(&header, &[]), "would take more than");
    let deep = "[".repeat(500_000);
    meter.refused(&file(&format!("{{\"a\":{deep}"), &[]), "not a whole safetensors file");
}

#[test]
fn what_needs_more_than_plain_arrays_is_refused_by_name() {
    let meter = Meter::alone();
    let mut model = Pickle::new();
    model.global("models.condensenet", "CondenseNet").op(b')').op(0x81);
    meter.refused(&legacy(&model, &[], &[]), "`models.condensenet.CondenseNet`");
    let mut complex = Pickle::new();
    complex.global("torch", "ComplexFloatStorage");
    meter.refused(&legacy(&complex, &[], &[]), "torch.ComplexFloatStorage");
    let mut number = Pickle::new();
    number.op(b'}').text("state_dict").op(b'}').text("x").int(1).op(b's').op(b's');
    meter.refused(&legacy(&number, &[], &[]), "x in its state dict is no tensor");
    let mut both = Pickle::new();
    both.op(b'}')
        .text("w")
        .tensor(1, 0, &[1], &[1])
        .op(b's')
        .text("module.w")
        .tensor(1, 0, &[1], &[1])
        .op(b's');
    meter.refused(&legacy(&both, &["0"], &float_storage(&[1.0])), "it has w both with and without `module`");
}
