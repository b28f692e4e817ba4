//! `cnx data pack`.

use std::io::Write;
use std::path::Path;

use cnx_images::folder::{Folders, SPLITS};
use cnx_images::pack::{Options, Packed, pack};

use super::{PackArgs, images, progress};
use crate::context::{Context, stdout};
use crate::failure::{Failure, Result};
use crate::term::format::{bytes, count, thousands};

pub fn run(context: &Context, args: &PackArgs) -> Result {
    let folders = Folders::open(&args.folder).map_err(|error| {
        Failure::refused(format!("{error}\n  expected DIR/train/CLASS/*.JPEG and DIR/val/CLASS/*.JPEG"))
    })?;
    let out = args.out.clone().unwrap_or_else(|| beside(&args.folder));
    context.talk(format!("listing {}", args.folder.display()));
    let splits = SPLITS.into_iter().filter(|split| folders.has(split));
    let splits = splits.map(|split| Ok((split, folders.list(split).map_err(images::failure)?)));
    let splits = splits.collect::<Result<Vec<_>>>()?;
    let options = Options { shard_bytes: args.shard_mib << 20, shorter_side: args.shorter_side };
    let bar = progress::bytes(context, "packing", 0);
    let packed = pack(&folders, &splits, &out, options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let Packed { pack, already, damaged } = packed.map_err(images::failure)?;
    for line in &damaged {
        context.talk(format!("damaged, packed as it is: {line}"));
    }
    let classes = pack.classes().len();
    context.talk(format!(
        "{}{} images of {classes} classes, {}, hash {}",
        if already { "packed already: " } else { "" },
        thousands(pack.images()),
        bytes(pack.bytes()),
        pack.hash(),
    ));
    if !damaged.is_empty() {
        context.talk(format!("{} could not be decoded", count(damaged.len(), "image")));
    }
    Ok(writeln!(stdout(), "{}", out.display())?)
}

/// `DIR-packed`
fn beside(folder: &Path) -> std::path::PathBuf {
    // `.` and `DIR/..` have names of their own only once they are resolved.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf());
    let mut name = folder.file_name().unwrap_or_default().to_owned();
    name.push("-packed");
    folder.with_file_name(name)
}
