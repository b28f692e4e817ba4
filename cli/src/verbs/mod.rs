//! The verbs, one file each.

pub mod backup;
pub mod bench;
pub mod cancel;
pub mod completions;
pub mod convert;
pub mod data;
pub mod doctor;
pub mod down;
pub mod evaluate;
pub mod explain;
pub mod export;
pub mod import;
pub mod inspect;
pub mod logs;
pub mod pause;
pub mod predict;
pub mod priority;
pub mod restore;
pub mod results;
pub mod resume;
pub mod retry;
pub mod status;
pub mod submit;
pub mod up;
pub mod wait;
pub mod workers;
