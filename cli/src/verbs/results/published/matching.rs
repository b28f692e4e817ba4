//! Which experiments stand behind which figure of a published table: those that do what its config says, whatever they are
//! called. What does nearly the same is not mixed in, but named.

use std::collections::BTreeMap;

use cnx_proto::Spec;
use cnx_proto::spec::Engine;
use cnx_proto::v1::{ResultRow, State};
use serde_json::{Value, json};

use super::tables::{Line, Table};
use crate::verbs::results::rows::{Row, row};

/// A table's lines, each with what was measured: a row a place, none where no experiment was submitted.
pub struct Filled {
    pub table: Table,
    pub measured: Vec<Vec<Option<Row>>>,
    /// Of each line, seconds an image: the faster of the engines, each as its newest job measured it.
    pub times: Vec<Option<f64>>,
    pub near_misses: Vec<NearMiss>,
    /// Experiments whose specs this version cannot read.
    pub unreadable: usize,
}

/// Finished experiments of a published network on its dataset that were not carried out as the row's config says.
#[derive(Debug, PartialEq)]
pub struct NearMiss {
    pub ids: Vec<u64>,
    /// The line whose experiment they resemble.
    pub label: &'static str,
    pub dataset: String,
    pub differences: Vec<Difference>,
}

/// A key of the spec that is not as in the row's config; null where the key is unset.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    pub key: String,
    pub found: Value,
    pub expected: Value,
}

impl std::fmt::Display for Difference {
    /// `train.epochs 10 (expected 300)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let words = |value: &Value| match value {
            Value::Null => "unset".to_owned(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        write!(f, "{} {} (expected {})", self.key, words(&self.found), words(&self.expected))
    }
}

/// Puts each experiment where it belongs. What was cancelled is not wanted any more and stands nowhere.
pub fn fill(table: Table, results: &[ResultRow]) -> Filled {
    let places = table.places.len();
    let cells: Vec<(usize, usize, Decisive)> = table
        .lines
        .iter()
        .enumerate()
        .flat_map(|(l, line)| line.specs.iter().enumerate().map(move |(p, spec)| (l, p, Decisive::of(spec))))
        .collect();
    let mut members: BTreeMap<(usize, usize), Vec<(Spec, &ResultRow)>> = BTreeMap::new();
    let (mut near_misses, mut unreadable, mut timed) = (Vec::new(), 0, BTreeMap::new());
    for result in results.iter().filter(|r| r.state() != State::Cancelled) {
        let Ok(spec) = serde_json::from_str::<Spec>(&result.spec_json) else {
            unreadable += 1;
            continue;
        };
        if let Some((key, one)) = time(&table, &spec, result) {
            let newest = timed.entry(key).or_insert(one);
            if one.0 > newest.0 {
                *newest = one;
            }
        }
        if !spec.measures() {
            continue;
        }
        let decisive = Decisive::of(&spec);
        let same_network = cells.iter().filter(|(.., cell)| cell.is_network_of(&decisive));
        let nearest = same_network
            .map(|(l, p, cell)| (*l, *p, decisive.differences(cell)))
            .min_by_key(|(.., differences)| differences.len());
        match nearest {
            Some((l, p, differences)) if differences.is_empty() => {
                members.entry((l, p)).or_default().push((spec, result));
            }
            Some((l, _, differences)) if result.state() == State::Succeeded => {
                let (label, dataset) = (table.lines[l].label, spec.data.dataset.to_string());
                note(&mut near_misses, NearMiss { ids: vec![result.id], label, dataset, differences });
            }
            _ => {}
        }
    }
    let mut cell = |l: usize, p: usize| members.remove(&(l, p)).and_then(row);
    let measured = (0..table.lines.len()).map(|l| (0..places).map(|p| cell(l, p)).collect()).collect();
    let times_of = |l: usize| timed.iter().filter(move |((line, _), _)| *line == l).map(|(_, &(_, s))| s);
    let times = (0..table.lines.len()).map(|l| times_of(l).min_by(f64::total_cmp)).collect();
    Filled { table, measured, times, near_misses, unreadable }
}

/// Of a job that timed a line's network: the line and the engine; its ID, so that the newest one stays, and seconds an image.
fn time(table: &Table, spec: &Spec, result: &ResultRow) -> Option<((usize, Engine), (u64, f64))> {
    let latency = result.figures.as_ref()?.latency.filter(|latency| latency.median_s.is_finite())?;
    let same =
        |line: &Line| line.specs.iter().any(|s| s.model == spec.model && s.data.dataset == spec.data.dataset);
    let line = table.lines.iter().position(same)?;
    Some(((line, spec.run.engine), (result.id, latency.median_s)))
}

/// Those with the same differences are named together.
fn note(all: &mut Vec<NearMiss>, one: NearMiss) {
    let same = |other: &&mut NearMiss| {
        (other.label, &other.dataset, &other.differences) == (one.label, &one.dataset, &one.differences)
    };
    match all.iter_mut().find(same) {
        Some(other) => other.ids.extend(one.ids),
        None => all.push(one),
    }
}

/// All that decides the figures but the seed, by dotted key. Which steps an attempt takes is left out: evaluated is
/// evaluated, whether the model was converted afterwards or not.
struct Decisive(BTreeMap<String, Value>);

impl Decisive {
    fn of(spec: &Spec) -> Decisive {
        let sections = json!({ "model": spec.model, "data": spec.data, "train": spec.train });
        let mut keys = BTreeMap::new();
        for (section, inner) in sections.as_object().into_iter().flatten() {
            for (key, value) in inner.as_object().into_iter().flatten() {
                keys.insert(format!("{section}.{key}"), value.clone());
            }
        }
        for of_no_weight in ["data.root", "data.workers", "train.seed"] {
            keys.remove(of_no_weight);
        }
        // Of a model that was given nothing says that it was trained as its spec has it.
        if spec.is_job() {
            keys.insert("run.from".to_owned(), json!("a file"));
        }
        Decisive(keys)
    }

    /// Whether both are the same network, as far as its name in the paper says, on the same dataset.
    fn is_network_of(&self, other: &Decisive) -> bool {
        ["model.arch", "model.stages", "model.growth", "data.dataset"]
            .iter()
            .all(|&k| self.get(k) == other.get(k))
    }

    fn get(&self, key: &str) -> Value {
        self.0.get(key).cloned().unwrap_or_default()
    }

    fn differences(&self, expected: &Decisive) -> Vec<Difference> {
        let mut keys: Vec<&String> = self.0.keys().chain(expected.0.keys()).collect();
        keys.sort();
        keys.dedup();
        let difference =
            |key: &String| Difference { key: key.clone(), found: self.get(key), expected: expected.get(key) };
        keys.into_iter().map(difference).filter(|d| d.found != d.expected).collect()
    }
}
