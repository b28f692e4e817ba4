//! The names of a dataset's classes.

use std::fs;
use std::path::Path;

use cnx_images::folder::Folders;
use cnx_proto::spec::Dataset;

use crate::failure::{Failure, Result};
use crate::verbs::data::class_names;

/// More than the names of any classes take.
const MOST_BYTES: u64 = 1 << 20;

/// The names by class; none where nobody said them.
pub struct Labels(Vec<String>);

impl Labels {
    /// Those of a file or of class folders; else those that are known of the dataset.
    pub fn of(dataset: Dataset, said: Option<&Path>) -> Result<Labels> {
        let Some(path) = said else { return Ok(Labels(class_names(dataset))) };
        let names = if path.is_dir() { of_folders(path)? } else { of_file(path)? };
        let (show, found, expected) = (path.display(), names.len(), dataset.classes());
        if found != expected as usize {
            return Err(Failure::usage(format!(
                "{show} names {found} classes, but a model of {dataset} has {expected}; expected one a line, in their order"
            )));
        }
        Ok(Labels(names))
    }

    pub fn name(&self, class: usize) -> Option<&str> {
        self.0.get(class).map(String::as_str)
    }

    pub fn shown(&self, class: usize) -> String {
        self.name(class).map_or_else(|| format!("class {class}"), str::to_owned)
    }
}

fn of_folders(path: &Path) -> Result<Vec<String>> {
    let folders = Folders::open(path).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(folders.classes)
}

/// A name a line; lines without one at the end, as CIFAR's own file has, count for nothing.
fn of_file(path: &Path) -> Result<Vec<String>> {
    let show = path.display();
    let unreadable =
        |error: std::io::Error| Failure::usage(format!("cannot read the labels {show}: {error}"));
    let about = fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() || about.len() > MOST_BYTES {
        return Err(Failure::usage(format!(
            "{show} holds no names of classes: expected a text file, a name a line"
        )));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    Ok(text.trim_end().lines().map(|line| line.trim().to_owned()).collect())
}
