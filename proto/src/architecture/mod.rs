//! The networks as pure arithmetic: a list of layers in forward order, each with its name in the state dict, what it
//! computes and what it sees. All else derives from it: [`crate::cost`] counts it, [`crate::validate`] checks it, the worker
//! runs it, exports write it.
//!
//! Each family of networks is a file that reads like its paper's figure: `dense.rs` (CondenseNet, DenseNet, DenseNet-LGC), and
//! those that the paper compares with.

mod build;
mod dense;
mod mobilenet;
mod resnet;
mod shufflenet;
mod tensors;
mod vgg;

use std::fmt;

use crate::spec::{Arch, Dataset, Model};
pub use dense::{gathered_channels, transition_channels};
pub use tensors::{BATCHES_TRACKED, Init, Role, TensorInfo};

/// As trained, or as deployed. Only networks with learned group convolutions differ in the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Learned group convolutions under their masks.
    Large,
    /// Group convolutions over gathered inputs (paper, section 3.2).
    Converted,
}

impl Form {
    /// The form of the network whose state dict has these names.
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Form {
        let converted = names.into_iter().any(|name| name == "classifier.index");
        if converted { Form::Converted } else { Form::Large }
    }

    /// Its name on screen.
    pub fn as_str(self) -> &'static str {
        match self {
            Form::Large => "large",
            Form::Converted => "converted",
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What a layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// The normalised images.
    Input,
    /// A convolution of a square kernel; the padding is half of the kernel, rounded down.
    Conv {
        /// Edge of the kernel, in pixels.
        kernel: u32,
        /// Pixels from one output to the next.
        stride: u32,
        /// Groups of the convolution.
        groups: u32,
        /// Whether it adds a bias.
        bias: bool,
    },
    /// The 1×1 convolution of a learned group convolution, over all of its inputs, masked.
    LearnedGroupConv {
        /// Groups G.
        groups: u32,
        /// Condense factor C.
        condense_factor: u32,
    },
    /// Batch normalisation: scale and shift a channel. eps 1e-5, momentum 0.1.
    BatchNorm,
    /// max(x, 0).
    Relu,
    /// Sets elements to 0 in training, with the probability of the spec.
    Dropout {
        /// Its number among the network's, from 1.
        number: u32,
    },
    /// The largest of a square.
    MaxPool {
        /// Edge of the square, in pixels.
        kernel: u32,
        /// Pixels from one square to the next.
        stride: u32,
        /// Pixels around the map that never are the largest.
        padding: u32,
    },
    /// The mean of a square.
    AvgPool {
        /// Edge of the square, in pixels.
        kernel: u32,
        /// Pixels from one square to the next.
        stride: u32,
        /// Pixels around the map, counted as 0.
        padding: u32,
    },
    /// The mean of each channel.
    GlobalAvgPool,
    /// A channel for each element, channels slowest.
    Flatten,
    /// The channels that the buffer `index` names, in its order.
    Gather,
    /// Channel shuffle: channel k·G + g takes what was channel g·(channels/G) + k.
    Shuffle {
        /// Groups G.
        groups: u32,
    },
    /// The channels of all inputs, one after another.
    Concat,
    /// The sum of two inputs.
    Add,
    /// Fully connected, with a bias.
    Linear,
}

/// One layer: from maps of `in_channels` × `in_size`² to one of `out_channels` × `out_size`².
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The path of its module: what its tensors' names begin with. No two layers share one.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// The layers that it sees, by their place in the list.
    pub inputs: Vec<usize>,
    /// Channels that enter, of all inputs together; of a sum, those of each.
    pub in_channels: u64,
    /// Channels that leave.
    pub out_channels: u64,
    /// Height and width of what enters, in pixels.
    pub in_size: u64,
    /// Height and width of what leaves, in pixels.
    pub out_size: u64,
}

/// The layers of a network on a dataset, in forward order: the first is the input, the last gives the logits. Needs as
/// many growth rates as stages; of lists of different lengths, the shorter one counts.
pub fn layers(model: &Model, dataset: Dataset, form: Form) -> Vec<Layer> {
    match model.arch {
        Arch::CondenseNet | Arch::DenseNet | Arch::DenseNetLgc => dense::layers(model, dataset, form),
        Arch::Vgg16 => vgg::layers(model, dataset),
        Arch::ResNet18 => resnet::layers(dataset),
        Arch::MobileNet => mobilenet::layers(dataset),
        Arch::ShuffleNet => shufflenet::layers(dataset),
    }
}

/// The tensors of a network, in forward order: its state dict.
pub fn state_dict(model: &Model, dataset: Dataset, form: Form) -> Vec<TensorInfo> {
    layers(model, dataset, form).iter().flat_map(Layer::tensors).collect()
}
