//! VGG-16 (Simonyan and Zisserman, 2015, configuration D): 3×3 convolutions with biases, five poolings, three fully connected
//! layers. Names are torchvision's.

use super::Layer;
use super::build::Net;
use crate::spec::{Dataset, Model};

/// Channels of the convolutions, a list a resolution.
const CHANNELS: [&[u64]; 5] = [&[64, 64], &[128, 128], &[256, 256, 256], &[512, 512, 512], &[512, 512, 512]];

pub(super) fn layers(model: &Model, dataset: Dataset) -> Vec<Layer> {
    let (mut net, mut x) = Net::new(dataset);
    let mut features = (0..).map(|number| format!("features.{number}"));
    let mut name = move || features.next().unwrap_or_default();
    for resolution in CHANNELS {
        for &channels in resolution {
            x = net.conv_with_bias(&name(), x, 3, channels);
            x = net.relu(&name(), x);
        }
        x = net.max_pool(&name(), x, 2, 2, 0);
    }
    x = net.flatten("flatten", x);
    for first in [0, 3] {
        x = net.linear(&format!("classifier.{first}"), x, 4096);
        x = net.relu(&format!("classifier.{}", first + 1), x);
        x = net.dropout(&format!("classifier.{}", first + 2), x, model.dropout);
    }
    net.linear("classifier.6", x, u64::from(dataset.classes()));
    net.finish()
}
