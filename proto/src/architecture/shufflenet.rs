//! ShuffleNet 1× with g = 3 groups (Zhang et al., 2018, table 1 and figure 2): grouped 1×1 convolutions with a channel shuffle
//! between them, around a depthwise 3×3 convolution.

use super::Layer;
use super::build::{Map, Net};
use crate::spec::Dataset;

const GROUPS: u32 = 3;

/// Output channels and units of the stages 2, 3 and 4.
const STAGES: [(u64, u32); 3] = [(240, 4), (480, 8), (960, 4)];

pub(super) fn layers(dataset: Dataset) -> Vec<Layer> {
    let (mut net, images) = Net::new(dataset);
    let mut x = net.conv_norm(["features.init.conv", "features.init.norm"], images, 3, 24, 2);
    x = net.relu("features.init.relu", x);
    x = net.max_pool("features.init.pool", x, 3, 2, 1);
    for (stage, (channels, units)) in (2..).zip(STAGES) {
        for number in 1..=units {
            // The first inputs are too few to be divided.
            let groups = if (stage, number) == (2, 1) { 1 } else { GROUPS };
            x = unit(&mut net, &format!("features.stage_{stage}.unit_{number}"), x, channels, groups);
        }
    }
    x = net.global_avg_pool("features.pool_last", x);
    net.linear("classifier", x, u64::from(dataset.classes()));
    net.finish()
}

/// A unit that changes the channels halves the map, and appends to what entered (pooled) instead of adding.
fn unit(net: &mut Net, name: &str, x: Map, channels: u64, first_groups: u32) -> Map {
    let at = |part: &str| format!("{name}.{part}");
    let halves = x.channels != channels;
    let (middle, new) = (channels / 4, if halves { channels - x.channels } else { channels });

    let mut y = net.conv(&at("reduce.conv"), x, 1, middle, 1, first_groups);
    y = net.batch_norm(&at("reduce.norm"), y);
    y = net.relu(&at("reduce.relu"), y);
    y = net.shuffle(&at("shuffle"), y, GROUPS);
    y = net.conv(&at("depthwise.conv"), y, 3, middle, if halves { 2 } else { 1 }, middle as u32);
    y = net.batch_norm(&at("depthwise.norm"), y);
    y = net.conv(&at("expand.conv"), y, 1, new, 1, GROUPS);
    y = net.batch_norm(&at("expand.norm"), y);

    let joined = if halves {
        let pooled = net.avg_pool(&at("pool"), x, 3, 2, 1);
        net.concat(&at("concat"), pooled, y)
    } else {
        net.add(&at("add"), x, y)
    };
    net.relu(&at("relu"), joined)
}
