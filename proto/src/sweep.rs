//! Sweeps: a file that names configs, or a base config and the keys to vary, becomes named specs. Pure: files come
//! in through a function.
//!
//! ```toml
//! name = "cifar10"
//! experiments = ["../condensenet-50.toml", "../condensenet-74.toml"]   # or: base = "../condensenet-50.toml"
//!
//! [grid]                              # every combination
//! "train.seed" = [0, 1, 2]
//!
//! [zip]                               # in step: the first of each, the second of each …
//! "model.stages" = ["8-8-8", "12-12-12"]
//! "train.epochs" = [100, 200]
//!
//! [[list]]                            # one by one
//! name = "wide"
//! "model.growth" = "16-32-64"
//! ```
//!
//! Experiments are named after their config and what varies, except for the seed: those that differ in nothing else
//! share a name, and a row of the table.

use std::io;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::file::{self, Document, Override};
use crate::problems::{Place, Problems, suggestion};
use crate::spec::Spec;
use crate::validate::{NAME_RULE, in_names, is_name};

/// More than a mistake in a grid should ever make.
const MAX_EXPERIMENTS: usize = 1_000_000;

const KEYS: [&str; 6] = ["name", "experiments", "base", "grid", "zip", "list"];

/// What a file holds: one config, or a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The sweep's name; none for a single config.
    pub sweep: Option<String>,
    /// The experiments, in the order of the file.
    pub experiments: Vec<Spec>,
}

/// Reads text files, e.g. `std::fs::read_to_string`.
pub type Read<'a> = &'a dyn Fn(&Path) -> io::Result<String>;

/// Loads a config or a sweep, with keys set over what it says.
///
/// # Errors
/// Every problem of the first file that has one.
pub fn load(path: &Path, overrides: &[Override], read: Read<'_>) -> Result<Loaded, Problems> {
    let file = path.display().to_string();
    let text = read_or_say(path, read)?;
    let document = Document::parse(&file, &text)?;
    let is_sweep = KEYS.iter().skip(1).any(|key| document.table.contains_key(*key));
    if !is_sweep {
        return Ok(Loaded { sweep: None, experiments: vec![file::parse(&file, &text, overrides)?] });
    }
    let sweep = Sweep::read(&file, document)?;
    sweep.refuse_overridden_axes(&file, overrides)?;
    let mut experiments = Vec::new();
    for config in &sweep.configs {
        let config_path = path.parent().unwrap_or(Path::new("")).join(config);
        let text = read_or_say(&config_path, read)?;
        let config_file = tidy(&config_path).display().to_string();
        let plain = file::parse(&config_file, &text, &[])?.name;
        for point in sweep.points() {
            let mut all = point.overrides(&plain);
            all.extend_from_slice(overrides);
            experiments.push(file::parse(&config_file, &text, &all)?);
        }
    }
    Ok(Loaded { sweep: Some(sweep.name), experiments })
}

fn read_or_say(path: &Path, read: Read<'_>) -> Result<String, Problems> {
    let file = tidy(path).display().to_string();
    read(path).map_err(|error| Problems::one(&file, Place::File, format!("it cannot be read: {error}")))
}

/// `configs/sweeps/../a.toml` → `configs/a.toml`, for messages.
fn tidy(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        let can_step_up = matches!(out.components().next_back(), Some(std::path::Component::Normal(_)));
        if part == std::path::Component::ParentDir && can_step_up {
            out.pop();
        } else {
            out.push(part);
        }
    }
    out
}

/// A key that varies and its values.
type Axis = (String, Vec<Value>);

/// A sweep file, read.
struct Sweep {
    name: String,
    configs: Vec<PathBuf>,
    grid: Vec<Axis>,
    zip: Vec<Axis>,
    list: Vec<Table>,
}

/// One choice of values.
struct Point {
    /// Set by `[[list]]`, which may name the experiment itself.
    listed: Vec<(String, Value)>,
    /// Set by `[grid]` and `[zip]`.
    varied: Vec<(String, Value)>,
}

impl Sweep {
    fn read(file: &str, document: Document) -> Result<Sweep, Problems> {
        let mut found = Vec::new();
        let line = |key: &str| document.lines.get(key).map_or(Place::File, |&l| Place::Line(l));
        let mut note = |key: &str, message: String| found.push((line(key), message));

        for key in document.table.keys().filter(|key| !KEYS.contains(&key.as_str())) {
            note(key, format!("unknown key `{key}` in a sweep{}", suggestion(key, KEYS)));
        }
        let name = match document.table.get("name") {
            Some(Value::String(name)) if is_name(name) => name.clone(),
            Some(other) => {
                note("name", format!("name {NAME_RULE}, found {other}"));
                String::new()
            }
            None => {
                note("name", "name is missing; name the sweep, e.g. name = \"cifar10\"".into());
                String::new()
            }
        };
        let configs = match (document.table.get("experiments"), document.table.get("base")) {
            (None, Some(Value::String(base))) => vec![base.into()],
            (Some(Value::Array(paths)), None) if !paths.is_empty() && paths.iter().all(Value::is_str) => {
                paths.iter().filter_map(Value::as_str).map(PathBuf::from).collect()
            }
            (Some(_), Some(_)) => {
                note("base", "a sweep has either `base` or `experiments`, not both".into());
                Vec::new()
            }
            (None, None) => {
                note(
                    "base",
                    "neither `base` (a config) nor `experiments` (a list of configs) is there".into(),
                );
                Vec::new()
            }
            (Some(_), None) => {
                note(
                    "experiments",
                    "experiments is a list of config files, e.g. [\"../condensenet-50.toml\"]".into(),
                );
                Vec::new()
            }
            (None, Some(_)) => {
                note("base", "base is a config file, e.g. base = \"../condensenet-50.toml\"".into());
                Vec::new()
            }
        };
        let mut axes = |section: &str| match axes(document.table.get(section)) {
            Ok(axes) => axes,
            Err(message) => {
                note(section, format!("[{section}] {message}"));
                Vec::new()
            }
        };
        let (grid, zip) = (axes("grid"), axes("zip"));
        let list = match document.table.get("list") {
            None => Vec::new(),
            Some(Value::Array(entries)) if entries.iter().all(Value::is_table) => {
                entries.iter().filter_map(Value::as_table).cloned().collect()
            }
            Some(_) => {
                note("list", "list is written [[list]], one a choice, with the keys it sets".into());
                Vec::new()
            }
        };
        let lengths: Vec<usize> = zip.iter().map(|(_, values)| values.len()).collect();
        if lengths.windows(2).any(|w| w[0] != w[1]) {
            let said: Vec<String> =
                zip.iter().map(|(key, values)| format!("{key} has {}", values.len())).collect();
            note("zip", format!("[zip] needs lists of one length; {}", said.join(", ")));
        }
        let sweep = Sweep { name, configs, grid, zip, list };
        let count = sweep.count();
        if count.is_none_or(|n| n > MAX_EXPERIMENTS) {
            note("grid", format!("makes more than {MAX_EXPERIMENTS} experiments; split the sweep"));
        }
        if found.is_empty() {
            return Ok(sweep);
        }
        found.sort();
        Err(Problems { file: file.to_owned(), found })
    }

    fn count(&self) -> Option<usize> {
        let zipped = self.zip.first().map_or(1, |(_, values)| values.len());
        let factors =
            self.grid.iter().map(|(_, values)| values.len()).chain([self.list.len().max(1), zipped]);
        factors.chain([self.configs.len()]).try_fold(1usize, usize::checked_mul)
    }

    /// `--set` on a key that the sweep varies would undo the sweep.
    fn refuse_overridden_axes(&self, file: &str, overrides: &[Override]) -> Result<(), Problems> {
        let varies = |key: &str| self.grid.iter().chain(&self.zip).any(|(axis, _)| axis == key);
        match overrides.iter().find(|o| varies(&o.key)) {
            None => Ok(()),
            Some(o) => {
                let message = "the sweep varies this key; submit the config itself, or edit the sweep";
                Err(Problems::one(file, Place::Override(o.text.clone()), message))
            }
        }
    }

    /// Every choice of values: lists outermost, then zip, then grid with its last axis fastest.
    fn points(&self) -> Vec<Point> {
        let lists: Vec<Vec<(String, Value)>> = match self.list.is_empty() {
            true => vec![Vec::new()],
            false => self.list.iter().map(|entry| flatten(entry, "")).collect(),
        };
        let steps = self.zip.first().map_or(1, |(_, values)| values.len());
        let mut points = Vec::new();
        for listed in &lists {
            for step in 0..steps {
                let zipped =
                    self.zip.iter().map(|(key, values)| (key.clone(), values[step].clone())).collect();
                for varied in combinations(zipped, &self.grid) {
                    points.push(Point { listed: listed.clone(), varied });
                }
            }
        }
        points
    }
}

impl Point {
    /// The keys to set over the config called `plain`, with the experiment's own name.
    fn overrides(&self, plain: &str) -> Vec<Override> {
        let own_name = self.listed.iter().find(|(key, _)| key == "name").and_then(|(_, v)| v.as_str());
        let mut name = own_name.unwrap_or(plain).to_owned();
        let listed = self.listed.iter().filter(|_| own_name.is_none());
        for (key, value) in listed.chain(&self.varied).filter(|(key, _)| key != "train.seed" && key != "name")
        {
            let short = key.rsplit('.').next().unwrap_or(key);
            name.push_str(&format!("-{short}={}", plain_text(value)));
        }
        let values = self.listed.iter().chain(&self.varied).filter(|(key, _)| key != "name");
        let mut all: Vec<Override> = values.map(|(k, v)| Override::new(k.clone(), v.clone())).collect();
        all.push(Override::new("name", Value::String(name)));
        all
    }
}

/// A value as part of a name: what a name may not hold becomes `_`.
fn plain_text(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(plain_text).collect::<Vec<_>>().join("-"),
        other => other.to_string(),
    };
    text.chars().map(|c| if in_names(c) { c } else { '_' }).collect()
}

/// `"train.seed" = [0, 1]` and `train.seed = [0, 1]` alike: dotted keys and their lists.
fn axes(section: Option<&Value>) -> Result<Vec<Axis>, String> {
    let Some(section) = section else { return Ok(Vec::new()) };
    let table = section.as_table().ok_or("is a section of keys and lists of values")?;
    flatten(table, "")
        .into_iter()
        .map(|(key, values)| match values {
            Value::Array(values) if !values.is_empty() => Ok((key, values)),
            other => Err(format!("needs a list of values for {key}, found {other}")),
        })
        .collect()
}

fn flatten(table: &Table, prefix: &str) -> Vec<(String, Value)> {
    let mut out = Vec::new();
    for (key, value) in table {
        let dotted = format!("{prefix}{key}");
        match value {
            Value::Table(inner) => out.extend(flatten(inner, &format!("{dotted}."))),
            value => out.push((dotted, value.clone())),
        }
    }
    out
}

fn combinations(start: Vec<(String, Value)>, axes: &[Axis]) -> Vec<Vec<(String, Value)>> {
    axes.iter().fold(vec![start], |points, (key, values)| {
        let with = |point: &Vec<(String, Value)>, value: &Value| {
            let mut point = point.clone();
            point.push((key.clone(), value.clone()));
            point
        };
        points.iter().flat_map(|point| values.iter().map(move |value| with(point, value))).collect()
    })
}
