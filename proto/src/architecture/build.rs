//! Follows channels and sizes while layers are added.

use super::{Layer, Op};
use crate::spec::Dataset;

/// What a layer gives: a map of `channels` × `size`².
#[derive(Debug, Clone, Copy)]
pub(super) struct Map {
    layer: usize,
    pub channels: u64,
    pub size: u64,
}

/// A network while it is built.
pub(super) struct Net {
    layers: Vec<Layer>,
    dropouts: u32,
}

impl Net {
    /// A network that sees the images of a dataset.
    pub fn new(dataset: Dataset) -> (Net, Map) {
        let mut net = Net { layers: Vec::new(), dropouts: 0 };
        let size = u64::from(dataset.image_size());
        let images = net.push("images", Op::Input, &[], (3, size), (3, size));
        (net, images)
    }

    /// Its layers, the last of which gives the logits.
    pub fn finish(self) -> Vec<Layer> {
        self.layers
    }

    /// A convolution without bias.
    pub fn conv(&mut self, name: &str, x: Map, kernel: u32, channels: u64, stride: u32, groups: u32) -> Map {
        self.spatial(name, Op::Conv { kernel, stride, groups, bias: false }, x, channels)
    }

    /// A convolution with a bias, that keeps the size of the map.
    pub fn conv_with_bias(&mut self, name: &str, x: Map, kernel: u32, channels: u64) -> Map {
        self.spatial(name, Op::Conv { kernel, stride: 1, groups: 1, bias: true }, x, channels)
    }

    /// A convolution without bias, batch norm.
    pub fn conv_norm(&mut self, names: [&str; 2], x: Map, kernel: u32, channels: u64, stride: u32) -> Map {
        let x = self.conv(names[0], x, kernel, channels, stride, 1);
        self.batch_norm(names[1], x)
    }

    pub fn learned_group_conv(
        &mut self,
        name: &str,
        x: Map,
        channels: u64,
        groups: u32,
        condense_factor: u32,
    ) -> Map {
        let op = Op::LearnedGroupConv { groups, condense_factor };
        self.push(name, op, &[x], (x.channels, x.size), (channels, x.size))
    }

    pub fn batch_norm(&mut self, name: &str, x: Map) -> Map {
        self.same(name, Op::BatchNorm, x)
    }

    pub fn relu(&mut self, name: &str, x: Map) -> Map {
        self.same(name, Op::Relu, x)
    }

    /// Dropout, where the probability is not 0.
    pub fn dropout(&mut self, name: &str, x: Map, probability: f64) -> Map {
        if probability == 0.0 {
            return x;
        }
        self.dropouts += 1;
        self.same(name, Op::Dropout { number: self.dropouts }, x)
    }

    pub fn max_pool(&mut self, name: &str, x: Map, kernel: u32, stride: u32, padding: u32) -> Map {
        self.spatial(name, Op::MaxPool { kernel, stride, padding }, x, x.channels)
    }

    pub fn avg_pool(&mut self, name: &str, x: Map, kernel: u32, stride: u32, padding: u32) -> Map {
        self.spatial(name, Op::AvgPool { kernel, stride, padding }, x, x.channels)
    }

    pub fn global_avg_pool(&mut self, name: &str, x: Map) -> Map {
        self.push(name, Op::GlobalAvgPool, &[x], (x.channels, x.size), (x.channels, 1))
    }

    pub fn flatten(&mut self, name: &str, x: Map) -> Map {
        self.push(name, Op::Flatten, &[x], (x.channels, x.size), (x.channels * x.size * x.size, 1))
    }

    pub fn gather(&mut self, name: &str, x: Map, channels: u64) -> Map {
        self.push(name, Op::Gather, &[x], (x.channels, x.size), (channels, x.size))
    }

    pub fn shuffle(&mut self, name: &str, x: Map, groups: u32) -> Map {
        self.same(name, Op::Shuffle { groups }, x)
    }

    pub fn concat(&mut self, name: &str, a: Map, b: Map) -> Map {
        let together = (a.channels + b.channels, a.size);
        self.push(name, Op::Concat, &[a, b], together, together)
    }

    pub fn add(&mut self, name: &str, a: Map, b: Map) -> Map {
        let each = (a.channels, a.size);
        self.push(name, Op::Add, &[a, b], each, each)
    }

    pub fn linear(&mut self, name: &str, x: Map, channels: u64) -> Map {
        self.push(name, Op::Linear, &[x], (x.channels, x.size), (channels, 1))
    }

    /// A layer that keeps channels and size.
    fn same(&mut self, name: &str, op: Op, x: Map) -> Map {
        self.push(name, op, &[x], (x.channels, x.size), (x.channels, x.size))
    }

    /// A layer that moves a square over the map.
    fn spatial(&mut self, name: &str, op: Op, x: Map, channels: u64) -> Map {
        let (kernel, stride, padding) = match op {
            Op::Conv { kernel, stride, .. } => (kernel, stride, kernel / 2),
            Op::MaxPool { kernel, stride, padding } | Op::AvgPool { kernel, stride, padding } => {
                (kernel, stride, padding)
            }
            _ => (1, 1, 0),
        };
        let room = (x.size + 2 * u64::from(padding)).checked_sub(u64::from(kernel));
        let size = room.map_or(0, |room| room / u64::from(stride) + 1);
        self.push(name, op, &[x], (x.channels, x.size), (channels, size))
    }

    fn push(&mut self, name: &str, op: Op, inputs: &[Map], entering: (u64, u64), leaving: (u64, u64)) -> Map {
        let layer = self.layers.len();
        self.layers.push(Layer {
            name: name.to_owned(),
            op,
            inputs: inputs.iter().map(|map| map.layer).collect(),
            in_channels: entering.0,
            out_channels: leaving.0,
            in_size: entering.1,
            out_size: leaving.1,
        });
        Map { layer, channels: leaving.0, size: leaving.1 }
    }
}
