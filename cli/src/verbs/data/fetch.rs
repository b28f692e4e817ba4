//! `cnx data fetch`.

use std::fs;
use std::io::Write;
use std::path::Path;

use super::dataset::Cifar;
use super::download::{Source, check_md5, download};
use super::unpack::unpack;
use super::{FetchArgs, root, verify};
use crate::context::{Context, stdout};
use crate::failure::{Failure, Result};

/// Where both archives are.
const HOME: &str = "https://www.cs.toronto.edu/~kriz/";

pub fn run(context: &Context, args: &FetchArgs) -> Result {
    let (cifar, root) = (args.dataset, root(args.data.as_deref())?);
    let source = Source { url: url(cifar, args.from.as_deref()), md5: cifar.md5().to_owned() };
    let full = |folder: &Path| match verify::check(cifar, folder)?.is_full(cifar) {
        true => Ok(()),
        false => Err(Failure::refused(format!("{} is not the full set", folder.display()))),
    };
    let local = args.from.as_deref().map(Path::new).filter(|path| path.is_file());
    fetch(context, cifar, &root, &source, local, full)
}

fn url(cifar: Cifar, from: Option<&str>) -> String {
    match from {
        None => format!("{HOME}{}", cifar.archive()),
        Some(url) if url.ends_with(".tar.gz") => url.to_owned(),
        Some(mirror) => format!("{}/{}", mirror.trim_end_matches('/'), cifar.archive()),
    }
}

/// Downloads (or takes the `local` archive), checks, unpacks; says where it lies.
fn fetch(
    context: &Context,
    cifar: Cifar,
    root: &Path,
    source: &Source,
    local: Option<&Path>,
    check: impl Fn(&Path) -> Result,
) -> Result {
    let target = root.join(cifar.folder());
    if target.exists() {
        check(&target).map_err(|failure| {
            let message = format!("{}\n  remove {} and fetch it again", failure.message, target.display());
            Failure { message, ..failure }
        })?;
        context.talk("there already, and whole");
        return Ok(writeln!(stdout(), "{}", target.display())?);
    }
    let archive = match local {
        Some(local) => {
            check_md5(local, &source.md5)?;
            fs::create_dir_all(root).map_err(super::at(root, "made"))?;
            local.to_path_buf()
        }
        // Of an earlier fetch that could not unpack it.
        None if check_md5(&root.join(cifar.archive()), &source.md5).is_ok() => root.join(cifar.archive()),
        None => download(context, source, root, cifar.archive())?,
    };
    context.talk(format!("unpacking {}", archive.display()));
    unpack(&archive, cifar, root, check)?;
    if local.is_none() {
        fs::remove_file(&archive).map_err(super::at(&archive, "removed"))?;
    }
    Ok(writeln!(stdout(), "{}", target.display())?)
}

#[cfg(test)]
mod tests;
