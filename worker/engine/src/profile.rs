//! Where the time of an image goes: each step of a pass is timed while [`of`] runs, on its thread only.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// A step of a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// The first convolution.
    Stem,
    /// Batch norm, ReLU and 1×1 convolution of the dense layers of a block, counted from 1.
    Pointwise(usize),
    /// Their 3×3 convolutions.
    Spatial(usize),
    /// What follows a block: pooling, and the convolution of a DenseNet's transition.
    Transition(usize),
    /// The last batch norm, pooling and classifier.
    Head,
    /// Until the other threads have come as far.
    Waiting,
}

/// The time of each step.
pub type Profile = BTreeMap<Step, Duration>;

thread_local! {
    static PROFILE: RefCell<Option<Profile>> = const { RefCell::new(None) };
}

/// What the steps that this thread takes meanwhile cost.
pub fn of(work: impl FnOnce()) -> Profile {
    PROFILE.set(Some(Profile::new()));
    work();
    PROFILE.take().unwrap_or_default()
}

/// Takes a step, which is timed if somebody asked for it.
pub(crate) fn step<T>(step: Step, work: impl FnOnce() -> T) -> T {
    if PROFILE.with_borrow(Option::is_none) {
        return work();
    }
    let start = Instant::now();
    let result = work();
    let taken = start.elapsed();
    PROFILE.with_borrow_mut(|profile| {
        if let Some(profile) = profile {
            *profile.entry(step).or_default() += taken;
        }
    });
    result
}
