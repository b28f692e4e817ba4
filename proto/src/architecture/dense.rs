//! CondenseNet (paper, figure 2 and 4), DenseNet-BC, and DenseNet with learned group convolutions (section 4.3): a first
//! convolution, dense blocks with transitions between them, a last batch norm, global average pooling, a classifier.
//!
//! A CondenseNet's growth doubles from block to block, and its transitions only halve the map, so that every layer sees all
//! layers before it, across blocks; a DenseNet's also reduce the channels.

use super::build::{Map, Net};
use super::{Form, Layer};
use crate::spec::{Arch, Dataset, Model};

pub(super) fn layers(model: &Model, dataset: Dataset, form: Form) -> Vec<Layer> {
    let (net, images) = Net::new(dataset);
    let mut dense = Dense { net, model, converted: form == Form::Converted && model.arch.condenses() };

    let first_growth = model.growth.first().copied().unwrap_or(0);
    let stride = if dataset == Dataset::ImageNet { 2 } else { 1 };
    let mut x = dense.net.conv("features.init_conv", images, 3, 2 * u64::from(first_growth), stride, 1);
    let blocks = model.stages.len().min(model.growth.len());
    for (i, (&stage, &growth)) in model.stages.iter().zip(model.growth.iter()).enumerate() {
        for j in 1..=stage {
            x = dense.layer(&format!("features.denseblock_{}.denselayer_{j}", i + 1), x, growth);
        }
        if i + 1 < blocks {
            x = dense.transition(&format!("features.transition_{}", i + 1), x);
        }
    }

    x = dense.net.batch_norm("features.norm_last", x);
    x = dense.net.relu("features.relu_last", x);
    x = dense.net.global_avg_pool("features.pool_last", x);
    dense.classifier(x, u64::from(dataset.classes()));
    dense.net.finish()
}

struct Dense<'a> {
    net: Net,
    model: &'a Model,
    converted: bool,
}

impl Dense<'_> {
    /// Adds `growth` channels to those that enter: a 1×1 convolution to bottleneck × growth channels, then a 3×3 convolution.
    fn layer(&mut self, name: &str, x: Map, growth: u32) -> Map {
        let bottleneck = u64::from(self.model.bottleneck) * u64::from(growth);
        let middle = self.one_by_one(&format!("{name}.conv_1"), x, bottleneck);

        let name_2 = format!("{name}.conv_2");
        let normed = self.net.batch_norm(&format!("{name_2}.norm"), middle);
        let active = self.net.relu(&format!("{name_2}.relu"), normed);
        let groups = self.model.group_3x3;
        let new = self.net.conv(&format!("{name_2}.conv"), active, 3, u64::from(growth), 1, groups);
        self.net.concat(name, x, new)
    }

    /// Batch norm, ReLU, 1×1 convolution: a plain one in a DenseNet, a learned group convolution in the others; converted,
    /// that gathers first, has groups, and ends in a shuffle.
    fn one_by_one(&mut self, name: &str, x: Map, channels: u64) -> Map {
        let Model { group_1x1: groups, condense_factor, .. } = *self.model;
        let [norm, relu, dropout, conv, shuffle] =
            ["norm", "relu", "dropout", "conv", "shuffle"].map(|part| format!("{name}.{part}"));
        let entering = if self.converted {
            self.net.gather(name, x, gathered_channels(x.channels, groups, condense_factor))
        } else {
            x
        };
        let normed = self.net.batch_norm(&norm, entering);
        let active = self.net.relu(&relu, normed);
        if self.converted {
            let out = self.net.conv(&conv, active, 1, channels, 1, groups);
            return self.net.shuffle(&shuffle, out, groups);
        }
        let active = self.net.dropout(&dropout, active, self.model.dropout);
        if self.model.arch.condenses() {
            self.net.learned_group_conv(name, active, channels, groups, condense_factor)
        } else {
            self.net.conv(&conv, active, 1, channels, 1, groups)
        }
    }

    /// Between two blocks the map is halved; DenseNets also reduce its channels.
    fn transition(&mut self, name: &str, mut x: Map) -> Map {
        if self.model.arch != Arch::CondenseNet {
            let kept = transition_channels(x.channels, self.model.reduction, self.model.group_1x1);
            x = self.one_by_one(&format!("{name}.conv"), x, kept);
        }
        self.net.avg_pool(&format!("{name}.pool"), x, 2, 2, 0)
    }

    /// Converted, it sees the half of the features with the largest weights.
    fn classifier(&mut self, x: Map, classes: u64) -> Map {
        if !self.converted {
            return self.net.linear("classifier", x, classes);
        }
        let kept = self.net.gather("classifier", x, x.channels / 2);
        self.net.linear("classifier.linear", kept, classes)
    }
}

/// Channels that a DenseNet's transition leaves of `channels`: `reduction` of them, rounded up, made divisible by
/// the groups of its convolution.
pub fn transition_channels(channels: u64, reduction: f64, groups: u32) -> u64 {
    let kept = (channels as f64 * reduction).ceil() as u64;
    kept.next_multiple_of(u64::from(groups.max(1)))
}

/// Inputs of a converted 1×1 convolution: each of G groups kept 1/C of `in_channels`.
pub fn gathered_channels(in_channels: u64, groups: u32, condense_factor: u32) -> u64 {
    u64::from(groups) * (in_channels / u64::from(condense_factor.max(1)))
}
