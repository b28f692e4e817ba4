//! The worker of cnx. The only crate that links libtorch.
//!
//! A map, in the order of an attempt:
//!
//! - [`commands`]: what `cnx-worker run`, `evaluate`, `convert`, `latency` and `device` do
//! - [`pipeline`]: one attempt on one screen: data → model → train → evaluate → convert → evaluate
//! - [`data`]: CIFAR and the generated set; order, augmentation, batches
//! - [`model`]: CondenseNet, DenseNet, learned group convolutions
//! - [`train`]: the loop; [`step`]: its step by libtorch; [`cpu_step`]: the same on CPUs by cnx-kernels; [`device_step`]: the same
//!   from data on the device, a graph on GPUs; [`meter`], [`condensing`], [`learning_rate`] (pure), [`optimizer`]
//! - [`native`]: what libtorch can and tch has no binding for
//! - [`evaluate`], [`convert`]; [`latency`]: how long a network takes for an image
//! - [`record`], [`checkpoint`], [`tensor_file`], [`artifacts`]: what is saved, as what, where; [`saver`]: by whom;
//!   [`model_file`]: a model that is given; [`paths`]: which files a spec may name
//! - [`agent`]: the other process: attaches to the coordinator and supervises one child a lease
//! - [`reporter`]: what the attempt tells the agent; [`stop`]: what the agent tells it; [`frame`], [`failure`]

pub mod agent;
pub mod artifacts;
pub mod checkpoint;
pub mod commands;
pub mod condensing;
pub mod convert;
pub mod cpu_step;
pub mod data;
pub mod device;
pub mod device_step;
pub mod evaluate;
pub mod failure;
pub mod frame;
pub mod latency;
pub mod learning_rate;
pub mod meter;
pub mod model;
pub mod model_file;
pub mod native;
pub mod optimizer;
pub mod paths;
pub mod pipeline;
pub mod record;
pub mod reporter;
pub mod saver;
pub mod step;
pub mod stop;
pub mod tensor_file;
pub mod train;

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
