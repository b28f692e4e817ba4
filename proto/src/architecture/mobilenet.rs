//! 1.0 MobileNet-224 (Howard et al., 2017, table 1): depthwise 3×3 convolutions, each followed by a 1×1 convolution.

use super::Layer;
use super::build::{Map, Net};
use crate::spec::Dataset;

/// Output channels and stride of each pair.
const PAIRS: [(u64, u32); 13] = [
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
];

pub(super) fn layers(dataset: Dataset) -> Vec<Layer> {
    let (mut net, images) = Net::new(dataset);
    let mut x = net.conv("features.init.conv", images, 3, 32, 2, 1);
    x = norm_relu(&mut net, "features.init", x);
    for (number, (channels, stride)) in (1..).zip(PAIRS) {
        let [depthwise, pointwise] =
            ["depthwise", "pointwise"].map(|part| format!("features.pair_{number}.{part}"));
        x = net.conv(&format!("{depthwise}.conv"), x, 3, x.channels, stride, x.channels as u32);
        x = norm_relu(&mut net, &depthwise, x);
        x = net.conv(&format!("{pointwise}.conv"), x, 1, channels, 1, 1);
        x = norm_relu(&mut net, &pointwise, x);
    }
    x = net.global_avg_pool("features.pool_last", x);
    net.linear("classifier", x, u64::from(dataset.classes()));
    net.finish()
}

fn norm_relu(net: &mut Net, name: &str, x: Map) -> Map {
    let x = net.batch_norm(&format!("{name}.norm"), x);
    net.relu(&format!("{name}.relu"), x)
}
