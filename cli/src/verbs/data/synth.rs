//! `cnx data synth`.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use cnx_proto::synthetic::{RECORD_BYTES, TEST_START, records};

use super::{SynthArgs, at, dataset::Cifar};
use crate::context::{Context, stdout};
use crate::failure::Result;
use crate::term::format::{bytes, thousands};

pub fn run(context: &Context, args: &SynthArgs) -> Result {
    let folder = &args.folder;
    fs::create_dir_all(folder).map_err(at(folder, "made"))?;
    let train = Cifar::Cifar10.train();
    // Spread like CIFAR-10's own: five files of training images, the earlier ones fuller.
    let share = args.train.div_ceil(train.len() as u32).max(1);
    let mut start = 0;
    for batch in train {
        let end = (start + share).min(args.train);
        let path = folder.join(batch.name);
        if start < end {
            write(&path, args.seed, start..end)?;
        } else if path.exists() {
            // Of an earlier, larger set.
            fs::remove_file(&path).map_err(at(&path, "removed"))?;
        }
        start = end;
    }
    write(&folder.join(Cifar::Cifar10.test().name), args.seed, TEST_START..TEST_START + args.test)?;
    let size = u64::from(args.train + args.test) * RECORD_BYTES as u64;
    context.talk(format!(
        "{} training and {} test images of 10 classes, {}",
        thousands(args.train.into()),
        thousands(args.test.into()),
        bytes(size)
    ));
    writeln!(stdout(), "{}", folder.display())?;
    Ok(())
}

/// Written beside and renamed: a file that is there is whole.
fn write(path: &Path, seed: u64, indices: Range<u32>) -> Result {
    let partial = path.with_extension("bin.part");
    let write = || {
        let mut out = BufWriter::new(File::create(&partial)?);
        for record in records(seed, indices) {
            out.write_all(&record)?;
        }
        out.into_inner().map_err(|error| error.into_error())?.sync_all()?;
        fs::rename(&partial, path)
    };
    write().map_err(at(path, "written"))
}

#[cfg(test)]
mod tests {
    use super::super::verify;
    use super::*;
    use crate::args::Global;

    #[test]
    fn what_is_generated_is_in_cifar_10s_format() {
        let folder = tempfile::tempdir().unwrap();
        let context =
            Context::new(&Global { state: None, server: None, tls: Default::default(), quiet: true });
        let args = |train| SynthArgs { folder: folder.path().join("set"), train, test: 30, seed: 7 };
        run(&context, &args(120)).unwrap();
        let found = verify::check(Cifar::Cifar10, &args(0).folder).unwrap();
        assert_eq!((found.train, found.test), (120, 30));
        // A smaller set over it leaves nothing of the larger one.
        run(&context, &args(2)).unwrap();
        assert_eq!(verify::check(Cifar::Cifar10, &args(0).folder).unwrap().train, 2);
    }
}
