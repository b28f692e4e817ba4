//! What the values of a state dict must keep to: masks that are condensed evenly, indices that are within range.

use std::collections::{BTreeMap, BTreeSet};

use cnx_proto::Spec;
use cnx_proto::architecture::{self, Form, Layer, Op};

use super::{Condensing, Fault, Problem};
use crate::{Array, Dtype, StateDict};

/// Elements that are infinite or no numbers.
pub(super) fn not_finite(array: &Array) -> usize {
    match array.dtype() {
        Dtype::F32 => {
            array.bytes().as_chunks().0.iter().filter(|&&x| !f32::from_le_bytes(x).is_finite()).count()
        }
        Dtype::F64 => {
            array.bytes().as_chunks().0.iter().filter(|&&x| !f64::from_le_bytes(x).is_finite()).count()
        }
        Dtype::I64 | Dtype::U8 => 0,
    }
}

/// Checks the masks and indices of all layers, and finds the condensing stage that they share. Layers whose tensors are
/// missing or misshapen are passed over: that is told already.
pub(super) fn layers(state: &StateDict, spec: &Spec, form: Form) -> (Option<Condensing>, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut stages: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for layer in architecture::layers(&spec.model, spec.data.dataset, form) {
        let complete = layer
            .tensors()
            .iter()
            .all(|info| state.tensors.get(&info.name).is_some_and(|array| super::shape(array) == info.shape));
        if !complete {
            continue;
        }
        let found = match layer.op {
            Op::LearnedGroupConv { groups, condense_factor } => {
                Mask::of(state, &layer, groups, condense_factor).stage().map(Some)
            }
            Op::Gather => index(state, &layer, spec.model.group_1x1).map(|()| None),
            _ => Ok(None),
        };
        match found {
            Ok(Some(stage)) => stages.entry(stage).or_default().push(layer.name),
            Ok(None) => {}
            Err(what) => problems.push(Problem { name: layer.name, fault: Fault::Value(what) }),
        }
    }
    let last = spec.model.condense_factor.saturating_sub(1);
    let condensing = match stages.len() {
        1 if problems.is_empty() => stages.keys().next().map(|&stage| Condensing { stage, last }),
        0 | 1 => None,
        _ => {
            problems.extend(stragglers(&stages));
            None
        }
    };
    (condensing, problems)
}

/// The layers that are at another stage than most.
fn stragglers(stages: &BTreeMap<u32, Vec<String>>) -> Vec<Problem> {
    let Some((most, at_most)) = stages.iter().max_by_key(|(_, layers)| layers.len()) else {
        return Vec::new();
    };
    let others = stages.iter().filter(|(stage, _)| *stage != most);
    let of = |(stage, layers): (&u32, &Vec<String>)| {
        let n = at_most.len();
        let what = format!(
            "it is at condensing stage {stage}, {n} others at {most}: a model condenses all of its layers at once"
        );
        layers
            .iter()
            .map(|name| Problem { name: name.clone(), fault: Fault::Value(what.clone()) })
            .collect::<Vec<_>>()
    };
    others.flat_map(of).collect()
}

/// The mask of a learned group convolution and what is said of it.
struct Mask {
    mask: Vec<f64>,
    count: f64,
    stage: f64,
    inputs: usize,
    groups: usize,
    condense_factor: u32,
}

impl Mask {
    fn of(state: &StateDict, layer: &Layer, groups: u32, condense_factor: u32) -> Mask {
        let get = |name: &str| {
            state.tensors.get(&format!("{}.{name}", layer.name)).map(Array::to_f64).unwrap_or_default()
        };
        let single = |name: &str| get(name).first().copied().unwrap_or(f64::NAN);
        Mask {
            mask: get("_mask"),
            count: single("_count"),
            stage: single("_stage"),
            inputs: layer.in_channels as usize,
            groups: groups.max(1) as usize,
            condense_factor: condense_factor.max(1),
        }
    }

    /// The condensing stage, on which mask, count and stage agree.
    fn stage(&self) -> Result<u32, String> {
        let odd = self.mask.iter().filter(|&&x| x != 0.0 && x != 1.0).count();
        if odd > 0 {
            return Err(format!("{odd} elements of its _mask are neither 0 nor 1"));
        }
        let rows: Vec<&[f64]> = self.mask.chunks_exact(self.inputs.max(1)).collect();
        let groups = self.groups;
        if let Some(row) = (groups..rows.len()).find(|&row| rows[row] != rows[row % groups]) {
            let group = row % groups;
            return Err(format!(
                "rows {group} and {row} of its _mask differ, though both are of group {group} of {groups}"
            ));
        }
        let dropped = |row: &&[f64]| row.iter().filter(|&&x| x == 0.0).count();
        let counts: BTreeSet<usize> = rows.iter().take(groups).map(dropped).collect();
        let (Some(&least), Some(&dropped)) = (counts.first(), counts.last()) else { return Ok(0) };
        if least != dropped {
            return Err(format!(
                "half condensed: its groups have dropped from {least} to {dropped} inputs each"
            ));
        }
        let (inputs, factor) = (self.inputs, self.condense_factor);
        let a_stage = inputs / factor as usize;
        let stage = dropped.checked_div(a_stage).unwrap_or(0);
        if stage * a_stage != dropped || stage >= factor as usize {
            return Err(format!(
                "half condensed: each group has dropped {dropped} of {inputs} inputs, which is no multiple of {a_stage} (1/{factor}) \
                 below {inputs}"
            ));
        }
        if self.count != dropped as f64 || self.stage != stage as f64 {
            let (count, said) = (self.count, self.stage);
            return Err(format!(
                "its _mask has dropped {dropped} inputs per group (stage {stage}), but _count is {count} and _stage is {said}"
            ));
        }
        Ok(stage as u32)
    }
}

/// Checks the `index` of a layer: in range; of the classifier, each feature at most once; of a convolution, ascending within each
/// group, as inputs that a group has kept are counted.
fn index(state: &StateDict, layer: &Layer, groups: u32) -> Result<(), String> {
    let index = state.tensors.get(&format!("{}.index", layer.name)).and_then(Array::to_i64);
    let Some(index) = index else { return Ok(()) };
    let inputs = layer.in_channels;
    if let Some(wrong) = index.iter().find(|&&i| u64::try_from(i).map_or(true, |i| i >= inputs)) {
        return Err(format!("its index names input {wrong}, of {inputs}"));
    }
    if layer.name == "classifier" {
        let distinct: BTreeSet<i64> = index.iter().copied().collect();
        return if distinct.len() == index.len() {
            Ok(())
        } else {
            Err("its index names an input twice".to_owned())
        };
    }
    let each = (index.len() / groups.max(1) as usize).max(1);
    let disordered = index.chunks(each).position(|group| group.windows(2).any(|pair| pair[0] >= pair[1]));
    match disordered {
        Some(group) => Err(format!("its index does not ascend within group {group} of {groups}")),
        None => Ok(()),
    }
}
