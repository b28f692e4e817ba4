//! ResNet-18 (He et al., 2016): four stages of two basic blocks. Names are torchvision's.

use super::Layer;
use super::build::{Map, Net};
use crate::spec::Dataset;

pub(super) fn layers(dataset: Dataset) -> Vec<Layer> {
    let (mut net, images) = Net::new(dataset);
    let mut x = net.conv_norm(["conv1", "bn1"], images, 7, 64, 2);
    x = net.relu("relu", x);
    x = net.max_pool("maxpool", x, 3, 2, 1);
    for (stage, channels) in (1..).zip([64, 128, 256, 512]) {
        let stride = if stage == 1 { 1 } else { 2 };
        x = block(&mut net, &format!("layer{stage}.0"), x, channels, stride);
        x = block(&mut net, &format!("layer{stage}.1"), x, channels, 1);
    }
    x = net.global_avg_pool("avgpool", x);
    net.linear("fc", x, u64::from(dataset.classes()));
    net.finish()
}

/// Two 3×3 convolutions, added to what entered.
fn block(net: &mut Net, name: &str, x: Map, channels: u64, stride: u32) -> Map {
    let at = |part: &str| format!("{name}.{part}");
    let mut new = net.conv_norm([&at("conv1"), &at("bn1")], x, 3, channels, stride);
    new = net.relu(&at("relu1"), new);
    new = net.conv_norm([&at("conv2"), &at("bn2")], new, 3, channels, 1);
    let shortcut = if (x.channels, stride) == (channels, 1) {
        x
    } else {
        net.conv_norm([&at("downsample.0"), &at("downsample.1")], x, 1, channels, stride)
    };
    let sum = net.add(&at("add"), new, shortcut);
    net.relu(&at("relu2"), sum)
}
