//! The tensors of a network: what a state dict holds. Names, shapes and initial values are those that
//! [`cnx_proto::architecture`] gives each layer.

use std::collections::BTreeMap;

use cnx_proto::architecture::{BATCHES_TRACKED, Form, Init, Layer, Role, TensorInfo};
use cnx_proto::random::{Purpose, Stream, name_coordinates};
use cnx_proto::v1::FailureClass;
use tch::{Device, Kind, Tensor};

use crate::failure::{Failure, Result};

/// A named tensor. It shares its storage with the module that uses it.
#[derive(Debug)]
pub struct Entry {
    /// Its name in the state dict.
    pub name: String,
    /// The tensor.
    pub tensor: Tensor,
    /// Whether it is trained.
    pub role: Role,
}

/// All tensors of a network, in the order in which its modules were made.
#[derive(Debug)]
pub struct State {
    /// The tensors.
    pub entries: Vec<Entry>,
    /// Training steps seen. While a network is trained, every batch norm has seen the same, so all of them share this tensor,
    /// and a step counts once. Of a converted network, those of the converted convolutions have seen none.
    batches_tracked: Tensor,
    form: Form,
    device: Device,
    kind: Kind,
    seed: u64,
}

impl State {
    /// A state without tensors yet, on a device, whose initial values are those of a seed.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(device: Device, kind: Kind, seed: u64, form: Form) -> Result<State> {
        let batches_tracked = Tensor::f_zeros([0; 0], (Kind::Int64, device))?;
        Ok(State { entries: Vec::new(), batches_tracked, form, device, kind, seed })
    }

    /// Adds the tensors of a layer, with their initial values.
    ///
    /// # Errors
    /// When libtorch fails.
    pub(super) fn add(&mut self, layer: &Layer) -> Result<Tensors> {
        let mut tensors = Vec::new();
        for info in layer.tensors() {
            let tensor = self.tensor(&info)?;
            tensors.push((info.name.clone(), tensor.shallow_clone()));
            self.entries.push(Entry { name: info.name, tensor, role: info.role });
        }
        Ok(Tensors { layer: layer.name.clone(), tensors })
    }

    fn tensor(&self, info: &TensorInfo) -> Result<Tensor> {
        let shape: Vec<i64> = info.shape.iter().map(|&n| n as i64).collect();
        if self.form == Form::Large && info.name.ends_with(BATCHES_TRACKED) {
            return Ok(self.batches_tracked.shallow_clone());
        }
        if !info.real {
            return Ok(Tensor::f_zeros(&shape, (Kind::Int64, self.device))?);
        }
        let tensor = initial(info, &shape, self)?;
        Ok(if info.role == Role::Parameter { tensor.f_set_requires_grad(true)? } else { tensor })
    }

    /// Where the tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The kind of all that is computed with.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The trained tensors.
    pub fn parameters(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.role == Role::Parameter)
    }

    /// Counts a training step for all batch norms.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn count_batch(&mut self) -> Result<()> {
        let _ = self.batches_tracked.f_add_scalar_(1)?;
        Ok(())
    }

    /// Copies of all tensors, by name.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn snapshot(&self) -> Result<BTreeMap<String, Tensor>> {
        let copy = |entry: &Entry| Ok((entry.name.clone(), entry.tensor.f_detach_copy()?));
        self.entries.iter().map(copy).collect()
    }

    /// Sets every tensor from those of a state dict; names it has besides are left alone.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape; DIVERGED when one holds what is not a finite number.
    pub fn load(&mut self, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
        for entry in &mut self.entries {
            let Some(source) = tensors.get(&entry.name) else {
                let message = format!("the file has no tensor {}: it is of another network", entry.name);
                return Err(Failure::bad_spec(message));
            };
            let (found, expected) = (source.size(), entry.tensor.size());
            if found != expected {
                let name = &entry.name;
                let message = format!("{name} has shape {found:?} in the file, {expected:?} in this network");
                return Err(Failure::bad_spec(message));
            }
            let bad = source.numel() as i64 - source.f_isfinite()?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
            if bad > 0 {
                let name = &entry.name;
                let of = source.numel();
                return Err(Failure::new(
                    FailureClass::Diverged,
                    format!(
                        "{name} holds NaN or infinity in {bad} of its {of} elements: the training that made it diverged, or \
                         the file is damaged"
                    ),
                ));
            }
            tch::no_grad(|| entry.tensor.f_copy_(source))?;
        }
        Ok(())
    }
}

/// The tensors of one layer, for its module to take.
#[derive(Debug)]
pub(super) struct Tensors {
    layer: String,
    tensors: Vec<(String, Tensor)>,
}

impl Tensors {
    /// The tensor of this name below the layer's.
    pub fn take(&mut self, name: &str) -> Result<Tensor> {
        let full = format!("{}.{name}", self.layer);
        let found = self.tensors.iter().position(|(name, _)| *name == full);
        let found = found.ok_or_else(|| Failure::internal(format!("the network has no tensor {full}")))?;
        Ok(self.tensors.swap_remove(found).1)
    }
}

/// Elements that are drawn at a time: VGG-16 has a tensor of a hundred million.
const CHUNK: i64 = 1 << 20;

/// Drawn on the host in double precision: a parameter's start depends on seed and name, not on the device.
fn initial(info: &TensorInfo, shape: &[i64], state: &State) -> Result<Tensor> {
    let options = (state.kind, state.device);
    if let Init::Constant(value) = info.init {
        return Ok(Tensor::f_full(shape, value, options)?);
    }
    let mut random = Stream::new(state.seed, Purpose::Weights, name_coordinates(&info.name));
    let mut draw = || match info.init {
        Init::Constant(value) => value,
        Init::Normal(deviation) => deviation * random.normal(),
        Init::Uniform(bound) => random.between(-bound, bound),
    };
    let count = shape.iter().product::<i64>();
    let tensor = Tensor::f_empty([count], options)?;
    for start in (0..count).step_by(CHUNK as usize) {
        let length = CHUNK.min(count - start);
        let values: Vec<f64> = (0..length).map(|_| draw()).collect();
        tensor.f_narrow(0, start, length)?.f_copy_(&Tensor::f_from_slice(&values)?)?;
    }
    Ok(tensor.f_view(shape)?)
}

/// The values of a tensor, on the host.
///
/// # Errors
/// When libtorch fails.
pub fn to_host(tensor: &Tensor) -> Result<Vec<f64>> {
    let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?.f_contiguous()?;
    let mut values = vec![0.0; tensor.numel()];
    let count = values.len();
    tensor.f_copy_data(&mut values, count)?;
    Ok(values)
}
