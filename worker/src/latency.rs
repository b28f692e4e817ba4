//! How long a network takes for one image on this machine's CPU: by libtorch, or by the engine without it.

use std::num::NonZeroUsize;

use cnx_engine::latency;
use cnx_formats::safetensors;
use cnx_proto::Spec;
use cnx_proto::spec::Engine;
use cnx_proto::v1::Latency;
use tch::{Device, Tensor};

use crate::failure::{Failure, Result};
use crate::model::{Form, Mode, Network};
use crate::tensor_file;

/// Times the network of a spec with random weights, converted where it converts, on the engine that the spec names.
///
/// # Errors
/// When the engine fails.
pub fn measure(spec: &Spec, threads: u32) -> Result<Latency> {
    let threads = NonZeroUsize::new(threads as usize).unwrap_or(NonZeroUsize::MIN);
    match spec.run.engine {
        Engine::Native => Ok(latency::native(spec, threads)?),
        Engine::Libtorch => libtorch(spec, threads),
    }
}

/// In the form that is deployed. What has nothing to convert keeps its initial values: copies of VGG-16's weights would be most of
/// the memory that is told.
fn network(spec: &Spec) -> Result<Network> {
    if !spec.model.arch.condenses() {
        return Network::new(spec, Form::Large, Device::Cpu);
    }
    let (form, state) = latency::network(spec);
    let bytes = safetensors::write(&state).map_err(Failure::internal)?;
    let tensors = tensor_file::decode(&bytes).map_err(Failure::internal)?.tensors;
    let mut network = Network::new(spec, form, Device::Cpu)?;
    network.load(&tensors)?;
    Ok(network)
}

fn libtorch(spec: &Spec, threads: NonZeroUsize) -> Result<Latency> {
    let mut network = network(spec)?;
    let size = i64::from(spec.data.dataset.image_size());
    let image = Tensor::f_from_slice(&latency::image(spec))?.f_view([1, 3, size, size])?;
    tch::set_num_threads(threads.get() as i32);
    latency::measure(threads, || {
        let logits = tch::no_grad(|| network.forward(&image, Mode::Evaluate))?;
        std::hint::black_box(&logits);
        Ok(())
    })
}
