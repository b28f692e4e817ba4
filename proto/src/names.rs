//! Names and rules of the wire's enums: one list for rows, JSON, tables and refusals.

use std::fmt;

use crate::v1::{ArtifactKind, FailureClass, Phase, State};

/// The lower-case name of a wire enum's value, from its name in `cnx.proto`.
fn label(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_ascii_lowercase().replace('_', "-")
}

macro_rules! labelled {
    ($($kind:ident $prefix:literal;)*) => {$(
        impl $kind {
            /// The name in rows, JSON and tables, e.g. `queued`.
            pub fn label(self) -> String {
                label(self.as_str_name(), $prefix)
            }

            /// The value of that name.
            pub fn from_label(text: &str) -> Option<Self> {
                Self::from_str_name(&format!(concat!($prefix, "{}"), text.to_ascii_uppercase().replace('-', "_")))
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.label())
            }
        }
    )*};
}

labelled! {
    State "STATE_";
    FailureClass "FAILURE_CLASS_";
    Phase "PHASE_";
    ArtifactKind "ARTIFACT_KIND_";
}

impl State {
    /// Whether nothing can change it any more.
    pub fn is_final(self) -> bool {
        matches!(self, State::Succeeded | State::Failed | State::Cancelled)
    }
}

impl FailureClass {
    /// Whether another attempt may do better: true for what the surroundings did, false for what would happen again.
    pub fn retries(self) -> bool {
        use FailureClass::{Device, DiskFull, Interrupted, Signal, WorkerLost};
        matches!(self, DiskFull | Device | Signal | WorkerLost | Interrupted)
    }

    /// Whether an attempt that ended so counts against `resources.max_attempts`.
    pub fn costs_a_try(self) -> bool {
        !matches!(self, FailureClass::Interrupted | FailureClass::Dependency)
    }
}
