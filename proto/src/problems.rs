//! Problems of files a person wrote, all of them at once, each with its place.

use std::fmt;

/// Where a problem is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A line of the file, from 1.
    Line(usize),
    /// The file as a whole: something is missing.
    File,
    /// A `--set` on the command line, as it was written.
    Override(String),
}

/// What is wrong with one file (and the overrides on top of it).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems {
    /// The file, as the person named it.
    pub file: String,
    /// The problems, by place; never empty.
    pub found: Vec<(Place, String)>,
}

impl Problems {
    /// A single problem.
    pub fn one(file: &str, place: Place, message: impl Into<String>) -> Problems {
        Problems { file: file.to_owned(), found: vec![(place, message.into())] }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = match self.found.len() {
            1 => "a problem".to_owned(),
            n => format!("{n} problems"),
        };
        write!(f, "{} has {count}", self.file)?;
        for (place, message) in &self.found {
            match place {
                Place::Line(line) => write!(f, "\n  line {line}: {message}")?,
                Place::File => write!(f, "\n  {message}")?,
                Place::Override(text) => write!(f, "\n  --set {text}: {message}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known name nearest to what was written, if one is near enough to be meant.
pub fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&written.to_lowercase(), name);
    let (best, name) = known.into_iter().map(|name| (distance(name), name)).min()?;
    (best <= 1 + name.len() / 4).then_some(name)
}

/// `; did you mean …?`, or nothing.
pub fn suggestion<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(written, known).map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
