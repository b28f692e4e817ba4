//! The layers of a network as pure arithmetic: what [`crate::cost`] counts and [`crate::validate`] checks.
//!
//! The order is the forward order; names are those of the state dict.

use crate::spec::{Arch, Dataset, Model};

/// What a layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A convolution without bias, of a square kernel.
    Conv {
        /// Edge of the kernel, in pixels.
        kernel: u32,
        /// Groups of the convolution.
        groups: u32,
    },
    /// The 1×1 convolution of a learned group convolution, over all of its inputs, masked.
    LearnedGroupConv {
        /// Groups G.
        groups: u32,
        /// Condense factor C.
        condense_factor: u32,
    },
    /// Batch normalisation: scale and shift a channel.
    BatchNorm,
    /// max(x, 0).
    Relu,
    /// Average pooling over a square of this edge, without overlap.
    AvgPool {
        /// Edge of the square, in pixels.
        kernel: u32,
    },
    /// Fully connected, with a bias.
    Linear,
}

/// One layer: a map of `in_channels` × `in_size`² to one of `out_channels` × `out_size`².
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Its name in the state dict.
    pub name: String,
    /// What it computes.
    pub kind: Kind,
    /// Channels that enter.
    pub in_channels: u64,
    /// Channels that leave.
    pub out_channels: u64,
    /// Height and width of what enters, in pixels.
    pub in_size: u64,
    /// Height and width of what leaves, in pixels.
    pub out_size: u64,
}

/// Channels that a DenseNet's transition leaves of `channels`: `reduction` of them, rounded up, made divisible by
/// the groups of its convolution.
pub fn transition_channels(channels: u64, reduction: f64, groups: u32) -> u64 {
    let kept = (channels as f64 * reduction).ceil() as u64;
    kept.next_multiple_of(u64::from(groups.max(1)))
}

/// The layers of a network on a dataset, in forward order. Needs as many growth rates as stages; of lists of
/// different lengths, the shorter one counts.
pub fn layers(model: &Model, dataset: Dataset) -> Vec<Layer> {
    let mut net = Builder { layers: Vec::new(), channels: 3, size: u64::from(dataset.image_size()) };
    let first_growth = model.growth.first().copied().unwrap_or(0);
    let stride = if dataset == Dataset::ImageNet { 2 } else { 1 };
    net.conv("features.init_conv", Kind::Conv { kernel: 3, groups: 1 }, 2 * u64::from(first_growth), stride);

    let blocks = model.stages.len().min(model.growth.len());
    for (i, (&stage, &growth)) in model.stages.iter().zip(model.growth.iter()).enumerate() {
        for j in 1..=stage {
            net.dense_layer(&format!("features.denseblock_{}.denselayer_{j}", i + 1), model, growth);
        }
        if i + 1 < blocks {
            net.transition(&format!("features.transition_{}", i + 1), model);
        }
    }

    net.push("features.norm_last", Kind::BatchNorm, net.channels, net.size);
    net.push("features.relu_last", Kind::Relu, net.channels, net.size);
    net.push("features.pool_last", Kind::AvgPool { kernel: net.size as u32 }, net.channels, 1);
    net.push("classifier", Kind::Linear, u64::from(dataset.classes()), 1);
    net.layers
}

/// The layers after conversion (paper, section 3.2): each learned group convolution has become a group convolution
/// over the inputs that its groups kept, gathered before its batch norm, and the classifier keeps half of its inputs.
pub fn converted(layers: &[Layer]) -> Vec<Layer> {
    let mut out = layers.to_vec();
    for i in 0..out.len() {
        match out[i].kind {
            Kind::LearnedGroupConv { groups, condense_factor } => {
                let gathered = gathered_channels(out[i].in_channels, groups, condense_factor);
                out[i].kind = Kind::Conv { kernel: 1, groups };
                out[i].in_channels = gathered;
                // Its own batch norm and ReLU, the two layers before it, now see the gathered inputs.
                for before in &mut out[i.saturating_sub(2)..i] {
                    (before.in_channels, before.out_channels) = (gathered, gathered);
                }
            }
            Kind::Linear => out[i].in_channels /= 2,
            _ => {}
        }
    }
    out
}

/// Inputs of a converted 1×1 convolution: each of G groups kept 1/C of `in_channels`.
pub fn gathered_channels(in_channels: u64, groups: u32, condense_factor: u32) -> u64 {
    u64::from(groups) * (in_channels / u64::from(condense_factor.max(1)))
}

/// Follows the map's shape while layers are added.
struct Builder {
    layers: Vec<Layer>,
    channels: u64,
    size: u64,
}

impl Builder {
    fn push(&mut self, name: &str, kind: Kind, out_channels: u64, out_size: u64) {
        self.layers.push(Layer {
            name: name.to_owned(),
            kind,
            in_channels: self.channels,
            out_channels,
            in_size: self.size,
            out_size,
        });
        self.channels = out_channels;
        self.size = out_size;
    }

    fn conv(&mut self, name: &str, kind: Kind, out_channels: u64, stride: u64) {
        self.push(name, kind, out_channels, self.size.div_ceil(stride));
    }

    /// Batch norm, ReLU, convolution: the unit that the networks are made of.
    fn norm_relu_conv(&mut self, name: &str, kind: Kind, out_channels: u64) {
        self.push(&format!("{name}.norm"), Kind::BatchNorm, self.channels, self.size);
        self.push(&format!("{name}.relu"), Kind::Relu, self.channels, self.size);
        self.conv(&format!("{name}.conv"), kind, out_channels, 1);
    }

    /// A dense layer adds `growth` channels to those that enter it.
    fn dense_layer(&mut self, name: &str, model: &Model, growth: u32) {
        let entering = self.channels;
        let bottleneck = u64::from(model.bottleneck) * u64::from(growth);
        self.norm_relu_conv(&format!("{name}.conv_1"), one_by_one(model), bottleneck);
        let spatial = Kind::Conv { kernel: 3, groups: model.group_3x3 };
        self.norm_relu_conv(&format!("{name}.conv_2"), spatial, u64::from(growth));
        self.channels += entering;
    }

    /// Between two blocks the map is halved; DenseNets also reduce its channels.
    fn transition(&mut self, name: &str, model: &Model) {
        if model.arch != Arch::CondenseNet {
            let kept = transition_channels(self.channels, model.reduction, model.group_1x1);
            self.norm_relu_conv(&format!("{name}.conv"), one_by_one(model), kept);
        }
        self.push(&format!("{name}.pool"), Kind::AvgPool { kernel: 2 }, self.channels, self.size / 2);
    }
}

fn one_by_one(model: &Model) -> Kind {
    if model.arch.condenses() {
        Kind::LearnedGroupConv { groups: model.group_1x1, condense_factor: model.condense_factor }
    } else {
        Kind::Conv { kernel: 1, groups: model.group_1x1 }
    }
}
