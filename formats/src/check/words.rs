//! A report in words: what is wrong, by kind, and not a thousand lines of it.

use std::fmt;

use super::{Fault, Hint, Problem, Report};
use crate::error::shown;

/// Lines of a kind before the rest is only counted.
const MOST_LINES: usize = 10;

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing { expected } => write!(f, "is missing; expected of shape {expected:?}"),
            Fault::Unexpected { found } => write!(f, "is not in this network; of shape {found:?}"),
            Fault::Shape { expected, found } => write!(f, "has shape {found:?}, expected {expected:?}"),
            Fault::Type { expected_real: true, found } => {
                write!(f, "has whole numbers ({}), expected real ones", found.as_str())
            }
            Fault::Type { expected_real: false, found } => {
                write!(f, "has real numbers ({}), expected whole ones", found.as_str())
            }
            Fault::NotFinite { count, of } => {
                write!(f, "has {count} of {of} elements that are NaN or infinite")
            }
            Fault::Value(what) => f.write_str(what),
        }
    }
}

impl Fault {
    /// The name of the kind in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Fault::Missing { .. } => "missing",
            Fault::Unexpected { .. } => "unexpected",
            Fault::Shape { .. } => "shape",
            Fault::Type { .. } => "type",
            Fault::NotFinite { .. } => "not-finite",
            Fault::Value(_) => "value",
        }
    }

    /// Whether it often is that of all tensors of a module.
    fn is_of_modules(&self) -> bool {
        matches!(self, Fault::Missing { .. } | Fault::Unexpected { .. })
    }

    fn title(&self) -> &'static str {
        match self {
            Fault::Missing { .. } => "missing from the file",
            Fault::Unexpected { .. } => "in the file, but not in the network",
            Fault::Shape { .. } => "of another shape",
            Fault::Type { .. } => "of another type",
            Fault::NotFinite { .. } => "NaN or infinite",
            Fault::Value(_) => "with values that cannot be",
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {} in the spec, but the file looks like {}", self.key, self.spec, self.file)
    }
}

/// The problems of a report as a person reads them: by kind, whole modules in one line, the rest counted.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a>(pub &'a Report);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds: Vec<(&str, Vec<&Problem>)> = Vec::new();
        for problem in &self.0.problems {
            let title = problem.fault.title();
            match kinds.iter_mut().find(|(kind, _)| *kind == title) {
                Some((_, problems)) => problems.push(problem),
                None => kinds.push((title, vec![problem])),
            }
        }
        for (title, problems) in kinds {
            write!(f, "\n  {title}: {}", problems.len())?;
            let lines = lines(&problems);
            for line in lines.iter().take(MOST_LINES) {
                write!(f, "\n    {line}")?;
            }
            if lines.len() > MOST_LINES {
                write!(
                    f,
                    "\n    and {} more lines (`cnx import --json` lists all)",
                    lines.len() - MOST_LINES
                )?;
            }
        }
        for hint in &self.0.hints {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

/// A line a problem; where a whole module is missing or unexpected, a line for it.
fn lines(problems: &[&Problem]) -> Vec<String> {
    let mut lines = Vec::new();
    for group in problems.chunk_by(|a, b| a.fault.is_of_modules() && module(&a.name) == module(&b.name)) {
        match group {
            [only] => lines.push(line(only)),
            several => {
                let module = module(&several[0].name);
                lines.push(format!("{}.* ({} tensors)", shown(module.as_bytes()), several.len()));
            }
        }
    }
    lines
}

fn line(problem: &Problem) -> String {
    let name = shown(problem.name.as_bytes());
    match &problem.fault {
        Fault::Value(what) => format!("{name}: {what}"),
        fault => format!("{name} {fault}"),
    }
}

/// The first three components of a name, such as those of a dense layer.
fn module(name: &str) -> String {
    name.split('.').take(3).collect::<Vec<_>>().join(".")
}
