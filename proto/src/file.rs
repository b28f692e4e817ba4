//! The file form of a spec: TOML. Everything unsaid is the paper's ([`crate::recipe`]); everything wrong is said at
//! once, with its line.

use std::collections::BTreeMap;
use std::str::FromStr;

use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

use crate::problems::{Place, Problems, nearest, suggestion};
use crate::recipe::recipe;
use crate::spec::{Arch, Data, Dataset, Key, Model, Published, Resources, Run, Spec, Train};
use crate::validate;

/// The sections of a spec file and their keys.
const SECTIONS: &[(&str, &[Key])] = &[
    ("model", Model::KEYS),
    ("data", Data::KEYS),
    ("train", Train::KEYS),
    ("run", Run::KEYS),
    ("resources", Resources::KEYS),
    ("published", Published::KEYS),
];

/// A key that is set over what the file says: `train.seed=3`.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// Section and key, e.g. `train.seed`, or `name`.
    pub key: String,
    /// Its new value.
    pub value: Value,
    /// As it was written, for messages.
    pub text: String,
}

impl Override {
    /// Sets `key` to `value`.
    pub fn new(key: impl Into<String>, value: Value) -> Override {
        let key = key.into();
        let text = format!("{key}={value}");
        Override { key, value, text }
    }
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Override, String> {
        let (key, value) = text
            .split_once('=')
            .ok_or_else(|| format!("expected KEY=VALUE, e.g. train.seed=3, found {text:?}"))?;
        // A TOML value where it reads as one, else plain text: nobody wants to quote in a shell. What reads as a
        // date is stages ("2024-01-02").
        let parsed = format!("v = {value}").parse::<Table>().ok().and_then(|mut t| t.remove("v"));
        let value = match parsed {
            Some(parsed) if !parsed.is_datetime() => parsed,
            _ => Value::String(value.to_owned()),
        };
        Ok(Override { key: key.trim().to_owned(), value, text: text.to_owned() })
    }
}

/// A TOML document and the line of each of its keys (dotted, e.g. `model.stages`).
pub(crate) struct Document {
    pub table: Table,
    pub lines: BTreeMap<String, usize>,
}

impl Document {
    pub fn parse(file: &str, text: &str) -> Result<Document, Problems> {
        let at = |offset: usize| 1 + text.bytes().take(offset).filter(|&b| b == b'\n').count();
        let syntax = |error: toml::de::Error| {
            let place = error.span().map_or(Place::File, |span| Place::Line(at(span.start)));
            Problems::one(file, place, format!("not TOML: {}", error.message()))
        };
        let spanned = DeTable::parse(text).map_err(syntax)?;
        let mut lines = BTreeMap::new();
        note_lines(spanned.get_ref(), "", &at, &mut lines);
        Ok(Document { table: text.parse().map_err(syntax)?, lines })
    }
}

fn note_lines(
    table: &DeTable<'_>,
    prefix: &str,
    at: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (key, value) in table {
        let dotted = format!("{prefix}{}", key.get_ref());
        lines.insert(dotted.clone(), at(Spanned::span(key).start));
        if let DeValue::Table(inner) = value.get_ref() {
            note_lines(inner, &format!("{dotted}."), at, lines);
        }
    }
}

/// Reads a spec file.
///
/// # Errors
/// Every problem of the file, with its line.
pub fn parse(file: &str, text: &str, overrides: &[Override]) -> Result<Spec, Problems> {
    Reading::start(file, text, overrides)?.finish()
}

/// A spec file while it is read.
struct Reading<'a> {
    file: &'a str,
    table: Table,
    /// Where each key was set.
    places: BTreeMap<String, Place>,
    found: Vec<(Place, String)>,
    /// Keys that have a problem already; what follows from it is not said again.
    doubtful: Vec<String>,
}

impl<'a> Reading<'a> {
    fn start(file: &'a str, text: &str, overrides: &[Override]) -> Result<Self, Problems> {
        let Document { mut table, lines } = Document::parse(file, text)?;
        let mut places: BTreeMap<String, Place> =
            lines.into_iter().map(|(k, l)| (k, Place::Line(l))).collect();
        forget_published_of_another_dataset(&mut table, overrides);
        for o in overrides {
            set(&mut table, &o.key, o.value.clone())
                .map_err(|message| Problems::one(file, Place::Override(o.text.clone()), message))?;
            places.insert(o.key.clone(), Place::Override(o.text.clone()));
        }
        Ok(Reading { file, table, places, found: Vec::new(), doubtful: Vec::new() })
    }

    fn finish(mut self) -> Result<Spec, Problems> {
        self.check_keys();
        let spec = self.fill_in();
        if let Some(spec) = &spec {
            for problem in validate::problems(spec) {
                if !self.doubtful.contains(&problem.key) {
                    self.note(&problem.key.clone(), problem.to_string());
                }
            }
        }
        match spec {
            Some(spec) if self.found.is_empty() => Ok(spec),
            _ => {
                self.found.sort();
                self.found.dedup();
                Err(Problems { file: self.file.to_owned(), found: self.found })
            }
        }
    }

    /// Notes a problem at a key, or at its section, or at the file.
    fn note(&mut self, key: &str, message: String) {
        let section = key.split('.').next().unwrap_or(key);
        let place = self.places.get(key).or_else(|| self.places.get(section)).cloned().unwrap_or(Place::File);
        self.found.push((place, message));
    }

    /// Removes what is unknown or of the wrong type, and notes it.
    fn check_keys(&mut self) {
        let top_level = || SECTIONS.iter().map(|(name, _)| *name).chain(["name"]);
        for (section, value) in std::mem::take(&mut self.table) {
            if section == "name" {
                match value {
                    Value::String(_) => drop(self.table.insert(section, value)),
                    other => self.wrong("name", format!("name is a text, found {other}")),
                }
            } else if let Some((name, keys)) = SECTIONS.iter().find(|(name, _)| *name == section) {
                match value {
                    Value::Table(inner) => {
                        let checked = self.check_section(name, keys, inner);
                        self.table.insert(section, Value::Table(checked));
                    }
                    other => self.wrong(name, format!("{name} is a section, write [{name}]; found {other}")),
                }
            } else {
                let owner = SECTIONS.iter().find(|(_, keys)| keys.iter().any(|k| k.name == section));
                let hint = match owner {
                    Some((owner, _)) => format!("; it belongs in [{owner}]"),
                    None => suggestion(&section, top_level()),
                };
                self.note(&section.clone(), format!("unknown key `{section}`{hint}"));
            }
        }
    }

    fn check_section(&mut self, section: &str, keys: &[Key], table: Table) -> Table {
        let mut checked = Table::new();
        for (name, value) in table {
            let dotted = format!("{section}.{name}");
            match keys.iter().find(|key| key.name == name) {
                None => {
                    let known = || keys.iter().map(|key| key.name);
                    let hint = suggestion(&name, known());
                    // The key that was meant is then not missing as well.
                    self.doubtful.extend(nearest(&name, known()).map(|meant| format!("{section}.{meant}")));
                    self.note(&dotted, format!("unknown key `{name}` in [{section}]{hint}"));
                }
                Some(key) => match (key.check)(value.clone()) {
                    Ok(()) => drop(checked.insert(name, value)),
                    Err(message) => self.wrong(&dotted, format!("{dotted}: {message}")),
                },
            }
        }
        checked
    }

    fn wrong(&mut self, key: &str, message: String) {
        self.doubtful.push(key.to_owned());
        self.note(key, message);
    }

    /// The spec that the recipe and the checked keys make together.
    fn fill_in(&mut self) -> Option<Spec> {
        let said = |section: &str, key: &str| self.table.get(section)?.get(key)?.as_str().map(str::to_owned);
        let arch = said("model", "arch").and_then(|s| Arch::ALL.iter().copied().find(|a| a.as_str() == s));
        let dataset =
            said("data", "dataset").and_then(|s| Dataset::ALL.iter().copied().find(|d| d.as_str() == s));
        for (key, missing, example) in [
            ("model.arch", arch.is_none(), "arch = \"condensenet\""),
            ("data.dataset", dataset.is_none(), "dataset = \"cifar10\""),
        ] {
            if missing && !self.doubtful.iter().any(|d| d == key) {
                self.wrong(key, format!("{key} is missing; e.g. {example}"));
            }
        }
        let defaults = recipe(arch.unwrap_or(Arch::CondenseNet), dataset.unwrap_or(Dataset::Cifar10));
        let mut filled = Table::try_from(defaults).ok()?;
        for (section, value) in std::mem::take(&mut self.table) {
            match (filled.get_mut(&section), value) {
                (Some(Value::Table(defaults)), Value::Table(said)) => defaults.extend(said),
                (_, value) => drop(filled.insert(section, value)),
            }
        }
        match filled.try_into() {
            Ok(spec) => Some(spec),
            Err(error) => {
                self.found.push((Place::File, error.message().to_owned()));
                None
            }
        }
    }
}

/// Sets a dotted key.
fn set(table: &mut Table, dotted: &str, value: Value) -> Result<(), String> {
    match dotted.split_once('.') {
        None => {
            table.insert(dotted.to_owned(), value);
            Ok(())
        }
        Some((section, key)) => {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            match inner {
                Value::Table(inner) if !key.contains('.') => {
                    inner.insert(key.to_owned(), value);
                    Ok(())
                }
                _ => Err(format!("unknown key `{dotted}`; expected SECTION.KEY, e.g. train.seed")),
            }
        }
    }
}

/// The published figures are those of the file's dataset; on another one they would stand beside the wrong thing.
fn forget_published_of_another_dataset(table: &mut Table, overrides: &[Override]) {
    let said = table.get("data").and_then(|data| data.get("dataset"));
    if overrides.iter().any(|o| o.key == "data.dataset" && Some(&o.value) != said) {
        table.remove("published");
    }
}
