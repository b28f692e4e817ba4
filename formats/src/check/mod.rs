//! Whether a state dict is of the network of a spec: every name, shape and type, and what its values must keep to. All that
//! is wrong is told at once.
//!
//! Start at [`check`]; `values.rs` looks into the tensors, `hints.rs` guesses which key of the spec is another, `words.rs` is how a
//! person reads it.

mod hints;
mod values;
mod words;

use std::collections::BTreeSet;

use cnx_proto::Spec;
use cnx_proto::architecture::{self, BATCHES_TRACKED, Form, Role, TensorInfo};

use crate::{Array, Dtype, StateDict};
pub use hints::Hint;
pub use words::Listed;

/// What a check finds.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The form of the network that the names are of.
    pub form: Form,
    /// Tensors of the network.
    pub tensors: usize,
    /// Trained numbers of the network, whether masked or not.
    pub parameters: u64,
    /// How far the learned group convolutions are condensed; none where there are none, or where they contradict each
    /// other.
    pub condensing: Option<Condensing>,
    /// All that is wrong: with the tensors of the network, in forward order; tensors that it does not have; whole layers.
    /// Empty where the state dict fits.
    pub problems: Vec<Problem>,
    /// Keys of the spec that seem to be others, judged by the file.
    pub hints: Vec<Hint>,
}

/// A condensing stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condensing {
    /// The stage that has been reached, from 0.
    pub stage: u32,
    /// The last stage, C − 1: condensing is over.
    pub last: u32,
}

/// Something that is wrong with a tensor or a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The name of the tensor, or of the layer.
    pub name: String,
    /// What it is.
    pub fault: Fault,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The network has it, the file does not.
    Missing {
        /// Its shape.
        expected: Vec<u64>,
    },
    /// The file has it, the network does not.
    Unexpected {
        /// Its shape.
        found: Vec<u64>,
    },
    /// It has another shape.
    Shape {
        /// That of the network.
        expected: Vec<u64>,
        /// That of the file.
        found: Vec<u64>,
    },
    /// Real numbers where whole ones belong, or the other way round.
    Type {
        /// Whether the network's are real.
        expected_real: bool,
        /// The file's.
        found: Dtype,
    },
    /// Elements that are infinite or no numbers.
    NotFinite {
        /// How many.
        count: usize,
        /// Of how many.
        of: usize,
    },
    /// Values that cannot be: a negative variance, a half condensed mask, an index out of range.
    Value(String),
}

/// Checks a state dict against a spec.
pub fn check(state: &StateDict, spec: &Spec) -> Report {
    let form = Form::of(state.tensors.keys().map(String::as_str));
    let expected = architecture::state_dict(&spec.model, spec.data.dataset, form);
    let mut problems = Vec::new();
    for info in &expected {
        let faults = match state.tensors.get(&info.name) {
            Some(array) => compare(info, array),
            None => vec![Fault::Missing { expected: info.shape.clone() }],
        };
        problems.extend(faults.into_iter().map(|fault| Problem { name: info.name.clone(), fault }));
    }
    let names: BTreeSet<&str> = expected.iter().map(|info| info.name.as_str()).collect();
    for (name, array) in state.tensors.iter().filter(|(name, _)| !names.contains(name.as_str())) {
        problems.push(Problem { name: name.clone(), fault: Fault::Unexpected { found: shape(array) } });
    }
    let (condensing, contradictions) = values::layers(state, spec, form);
    problems.extend(contradictions);
    let hints = if problems.is_empty() { Vec::new() } else { hints::hints(state, spec, form) };
    let parameters = expected.iter().filter(|info| info.role == Role::Parameter);
    let parameters = parameters.map(|info| info.shape.iter().product::<u64>()).sum();
    Report { form, tensors: expected.len(), parameters, condensing, problems, hints }
}

/// Adds what torch before 0.4.1 did not save: the count of training steps of each batch norm, as 0, which nothing but its
/// own statistics in further training looks at. Returns how many were added.
pub fn add_missing_counts(state: &mut StateDict, spec: &Spec) -> usize {
    let form = Form::of(state.tensors.keys().map(String::as_str));
    let mut added = 0;
    for info in architecture::state_dict(&spec.model, spec.data.dataset, form) {
        let is_count = info.name.rsplit('.').next() == Some(BATCHES_TRACKED);
        if is_count
            && !state.tensors.contains_key(&info.name)
            && let Ok(zero) = Array::from_i64(Vec::new(), &[0])
        {
            state.tensors.insert(info.name, zero);
            added += 1;
        }
    }
    added
}

fn compare(info: &TensorInfo, array: &Array) -> Vec<Fault> {
    let mut faults = Vec::new();
    let found = shape(array);
    if found != info.shape {
        faults.push(Fault::Shape { expected: info.shape.clone(), found });
    }
    // The books of a learned group convolution are real numbers by habit only.
    let either = ["_mask", "_count", "_stage"].iter().any(|book| info.name.ends_with(&format!(".{book}")));
    if array.dtype().is_real() != info.real && !either {
        faults.push(Fault::Type { expected_real: info.real, found: array.dtype() });
    }
    let count = values::not_finite(array);
    if count > 0 {
        faults.push(Fault::NotFinite { count, of: array.len() });
    }
    if info.name.ends_with(".running_var") && array.to_f64().iter().any(|&x| x < 0.0) {
        faults.push(Fault::Value("a variance is negative".to_owned()));
    }
    faults
}

fn shape(array: &Array) -> Vec<u64> {
    array.shape().iter().map(|&n| n as u64).collect()
}
