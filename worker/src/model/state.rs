//! The tensors of a network and their names: what a state dict holds.
//!
//! Names derive from the tree of modules, written once, where each module is made: a [`Scope`] knows the path so far.

use std::collections::BTreeMap;

use cnx_proto::random::{Purpose, Stream, name_coordinates};
use tch::{Device, Kind, Tensor};

use crate::failure::{Failure, Result};

/// Whether a tensor is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Trained by gradient descent.
    Parameter,
    /// Kept beside: masks, statistics, counts.
    Buffer,
}

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

/// How a parameter starts.
#[derive(Debug, Clone, Copy)]
pub enum Init {
    /// Every element this.
    Constant(f64),
    /// Normal, of mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform between minus and plus this.
    Uniform(f64),
}

/// All tensors of a network, in the order in which its modules were made.
#[derive(Debug)]
pub struct State {
    /// The tensors.
    pub entries: Vec<Entry>,
    /// Training steps seen. Every batch norm has seen the same, so all of them share this tensor, and a step counts once.
    batches_tracked: Tensor,
    device: Device,
    kind: Kind,
    seed: u64,
}

impl State {
    /// A state without tensors yet, on a device, whose initial values are those of a seed.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn new(device: Device, kind: Kind, seed: u64) -> Result<State> {
        let batches_tracked = Tensor::f_zeros([0; 0], (Kind::Int64, device))?;
        Ok(State { entries: Vec::new(), batches_tracked, device, kind, seed })
    }

    /// The root of the tree of modules.
    pub fn root(&mut self) -> Scope<'_> {
        Scope { state: self, path: String::new() }
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
    /// When a tensor is missing or has another shape.
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
            tch::no_grad(|| entry.tensor.f_copy_(source))?;
        }
        Ok(())
    }
}

/// A place in the tree of modules.
#[derive(Debug)]
pub struct Scope<'a> {
    state: &'a mut State,
    path: String,
}

impl Scope<'_> {
    /// A module below this one.
    pub fn at(&mut self, name: &str) -> Scope<'_> {
        let path = self.name_of(name);
        Scope { state: self.state, path }
    }

    /// The name of this module in the state dict.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A new parameter of this module.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn parameter(&mut self, name: &str, shape: &[i64], init: Init) -> Result<Tensor> {
        let name = self.name_of(name);
        let tensor = initial(&name, shape, init, self.state)?.f_set_requires_grad(true)?;
        self.state.entries.push(Entry { name, tensor: tensor.shallow_clone(), role: Role::Parameter });
        Ok(tensor)
    }

    /// A new buffer of this module, every element `value`.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn buffer(&mut self, name: &str, shape: &[i64], value: f64) -> Result<Tensor> {
        let tensor = Tensor::f_full(shape, value, (self.state.kind, self.state.device))?;
        Ok(self.register(name, tensor))
    }

    /// A new buffer of whole numbers, all 0.
    ///
    /// # Errors
    /// When libtorch fails.
    pub fn index(&mut self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let tensor = Tensor::f_zeros(shape, (Kind::Int64, self.state.device))?;
        Ok(self.register(name, tensor))
    }

    /// The buffer in which a batch norm counts its training steps.
    pub fn batches_tracked(&mut self, name: &str) -> Tensor {
        let tensor = self.state.batches_tracked.shallow_clone();
        self.register(name, tensor)
    }

    fn register(&mut self, name: &str, tensor: Tensor) -> Tensor {
        let name = self.name_of(name);
        self.state.entries.push(Entry { name, tensor: tensor.shallow_clone(), role: Role::Buffer });
        tensor
    }

    fn name_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}

/// Drawn on the host in double precision: a parameter's start depends on seed and name, not on the device.
fn initial(name: &str, shape: &[i64], init: Init, state: &State) -> Result<Tensor> {
    let mut random = Stream::new(state.seed, Purpose::Weights, name_coordinates(name));
    let count = shape.iter().product::<i64>();
    let values: Vec<f64> = (0..count)
        .map(|_| match init {
            Init::Constant(value) => value,
            Init::Normal(deviation) => deviation * random.normal(),
            Init::Uniform(bound) => random.between(-bound, bound),
        })
        .collect();
    Ok(Tensor::f_from_slice(&values)?.f_view(shape)?.f_to_kind(state.kind)?.f_to_device(state.device)?)
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
