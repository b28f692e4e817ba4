//! Files that should be there, and files that nothing knows.

use std::fs;
use std::io;
use std::path::Path;

use cnx_proto::v1::Finding;

use super::finding::{NAMED, counted, problem, size, skipped, well};
use super::{Patient, local_folder, shown};
use crate::store::{Inspector, Result};

const AREA: &str = "artifacts";

/// The folder in which each experiment has its own, as workers name their artifacts.
const EXPERIMENTS: &str = "experiments";
/// Beside each file stands its hash.
const HASH: &str = ".sha256";

/// Some of the files that were found, and what there is of them.
#[derive(Debug, Default)]
struct Found {
    names: Vec<String>,
    count: u64,
    bytes: u64,
}

impl Found {
    fn add(&mut self, name: String, bytes: u64) {
        self.count += 1;
        self.bytes += bytes;
        if self.names.len() < NAMED {
            self.names.push(name);
        }
    }

    fn named(self) -> Vec<String> {
        let more = self.count.saturating_sub(self.names.len() as u64);
        let and_more = (more > 0).then(|| format!("and {more} more"));
        self.names.into_iter().chain(and_more).collect()
    }
}

pub(super) fn examine(patient: &Patient, inspector: &Inspector) -> Result<Vec<Finding>> {
    let url = &patient.artifacts_url;
    let Some(root) = local_folder(url) else {
        return Ok(vec![skipped(
            AREA,
            format!("not looked at: they are kept at {url}, not in a folder of this machine"),
        )]);
    };
    if !root.is_dir() {
        return without_folder(&root, inspector);
    }
    Ok(vec![missing(&root, inspector)?, unknown(&root, inspector)?])
}

fn without_folder(root: &Path, inspector: &Inspector) -> Result<Vec<Finding>> {
    let mut files: u64 = 0;
    inspector.each_file(|_| files += 1)?;
    Ok(vec![match files {
        0 => well(AREA, "there are none yet"),
        n => problem(
            AREA,
            format!("there is no folder {}, but {} should be there", shown(root), counted(n, "file")),
            Vec::new(),
            "If the coordinator is started with --artifacts, give the same to cnx doctor; else mount the folder again.",
        ),
    }])
}

/// Every artifact on record has its file, of its size.
fn missing(root: &Path, inspector: &Inspector) -> Result<Finding> {
    let (mut there, mut bytes) = (0, 0);
    let mut wrong = Found::default();
    inspector.each_file(|row| match fs::metadata(root.join(&row.name)) {
        Ok(file) if file.len() == row.bytes => {
            there += 1;
            bytes += row.bytes;
        }
        Ok(file) => wrong.add(format!("{} has {} of {} bytes", row.name, file.len(), row.bytes), 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            wrong.add(format!("{} is missing", row.name), 0)
        }
        Err(error) => wrong.add(format!("{}: {error}", row.name), 0),
    })?;
    Ok(match wrong.count {
        0 => {
            well(AREA, format!("every file on record is there ({}, {})", counted(there, "file"), size(bytes)))
        }
        n => problem(
            AREA,
            format!("{} on record missing or damaged", counted(n, "file")),
            wrong.named(),
            "Bring them back from a copy of the folder if you need them. Figures are in the database and are not touched; \
             training that goes on uses the newest checkpoint that is whole; a lost model comes back by cnx submit --force.",
        ),
    })
}

/// Every file belongs to an artifact on record, but for those of experiments that run: they come and go.
fn unknown(root: &Path, inspector: &Inspector) -> Result<Finding> {
    let mut orphans = Found::default();
    for (experiment, folder) in experiment_folders(root) {
        if inspector.runs(experiment)? == Some(true) {
            continue;
        }
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let of = name.strip_suffix(HASH).unwrap_or(&name);
            if !inspector.knows_file(&format!("{EXPERIMENTS}/{experiment}/{of}"))?
                && still_orphan(experiment, inspector)?
            {
                let bytes = entry.metadata().map_or(0, |m| m.len());
                orphans.add(format!("{EXPERIMENTS}/{experiment}/{name}"), bytes);
            }
        }
    }
    Ok(match orphans.count {
        0 => well(AREA, "no file is there that nothing knows"),
        n => {
            let found = format!("{} ({}) that no record knows", counted(n, "file"), size(orphans.bytes));
            let advice = format!(
                "Left by workers that were killed, or from after the backup that was restored. Delete them from {} if you \
                 need the space; nothing reads them but a retry that looks for a checkpoint.",
                shown(root)
            );
            problem(AREA, found, orphans.named(), &advice)
        }
    })
}

/// It may have been leased while its folder was read.
fn still_orphan(experiment: u64, inspector: &Inspector) -> Result<bool> {
    Ok(inspector.runs(experiment)? != Some(true))
}

/// The highest ID of an experiment that has a folder among the artifacts; 0 if none has.
pub fn highest_experiment(artifacts_url: &str) -> u64 {
    let folders = local_folder(artifacts_url).map(|root| experiment_folders(&root)).unwrap_or_default();
    folders.last().map_or(0, |(id, _)| *id)
}

/// By ID.
fn experiment_folders(root: &Path) -> Vec<(u64, std::path::PathBuf)> {
    let entries = fs::read_dir(root.join(EXPERIMENTS)).into_iter().flatten().flatten();
    let numbered = |entry: fs::DirEntry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()));
    let mut folders: Vec<_> = entries.filter_map(numbered).collect();
    folders.sort_unstable();
    folders
}
