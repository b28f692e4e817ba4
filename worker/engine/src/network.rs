//! A network of dense blocks as the arithmetic that is left once batch norms are folded into what they can be folded into:
//! the second one of a layer into its 1×1 convolution; the first one stays a scale and a shift of each gathered input, since a
//! ReLU follows.

use cnx_formats::{Array, StateDict};
use cnx_proto::Spec;
use cnx_proto::architecture::Form;

/// What is added to a variance before its root is taken.
const EPSILON: f64 = 1e-5;

/// A network.
#[derive(Debug)]
pub(crate) struct Network {
    /// Edge of an image, in pixels.
    pub size: usize,
    pub stem: Stem,
    pub blocks: Vec<Block>,
    /// The last batch norm.
    pub last: Norm,
    pub classifier: Classifier,
}

/// The first convolution, 3×3 over the 3 colours.
#[derive(Debug)]
pub(crate) struct Stem {
    /// [outputs, 3, 3, 3]
    pub weights: Vec<f32>,
    pub outputs: usize,
    pub stride: usize,
}

/// A dense block, and what follows before the map is halved.
#[derive(Debug)]
pub(crate) struct Block {
    /// Edge of its maps, in pixels.
    pub size: usize,
    pub layers: Vec<Layer>,
    /// The convolution of a DenseNet's transition.
    pub transition: Option<Pointwise>,
}

/// A dense layer: 1×1, ReLU, 3×3.
#[derive(Debug)]
pub(crate) struct Layer {
    pub pointwise: Pointwise,
    pub spatial: Spatial,
}

/// Batch norm, ReLU, 1×1 convolution.
#[derive(Debug)]
pub(crate) struct Pointwise {
    pub groups: Vec<Group>,
    pub outputs: usize,
}

/// Some outputs of a 1×1 convolution, and the inputs that they see.
#[derive(Debug)]
pub(crate) struct Group {
    /// Channels.
    pub inputs: Vec<usize>,
    /// Of each input.
    pub norm: Norm,
    /// The channels that they are once they are shuffled.
    pub outputs: Vec<usize>,
    /// [outputs, inputs]
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

/// A batch norm: scale·x + shift.
#[derive(Debug, Clone, Default)]
pub(crate) struct Norm {
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
}

/// A 3×3 convolution.
#[derive(Debug)]
pub(crate) struct Spatial {
    pub groups: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// [outputs, inputs / groups, 3, 3]
    pub weights: Vec<f32>,
}

/// Fully connected, over some of the channels.
#[derive(Debug)]
pub(crate) struct Classifier {
    /// Channels.
    pub inputs: Vec<usize>,
    /// [classes, inputs]
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Network {
    /// From a state dict that was checked against the spec.
    pub fn new(spec: &Spec, state: &StateDict) -> Network {
        let form = Form::of(state.tensors.keys().map(String::as_str));
        let reader = Reader { spec, state, form };
        let size = spec.data.dataset.image_size() as usize;
        let weights = reader.floats("features.init_conv.weight");
        let stride = if spec.data.dataset == cnx_proto::spec::Dataset::ImageNet { 2 } else { 1 };
        let stem = Stem { outputs: weights.len() / 27, weights, stride };
        let (mut channels, mut edge) = (stem.outputs, (size - 1) / stride + 1);
        let mut blocks = Vec::new();
        let stages = &spec.model.stages;
        for (i, &stage) in stages.iter().enumerate() {
            let mut layers = Vec::new();
            for j in 1..=stage {
                let layer = reader.layer(&format!("features.denseblock_{}.denselayer_{j}", i + 1), channels);
                channels += layer.spatial.outputs;
                layers.push(layer);
            }
            let transition = format!("features.transition_{}.conv", i + 1);
            let transition = reader.has(&transition).then(|| reader.pointwise(&transition, channels, None));
            blocks.push(Block { size: edge, layers, transition });
            if let Some(Block { transition: Some(transition), .. }) = blocks.last() {
                channels = transition.outputs;
            }
            edge /= 2;
        }
        let [scale, shift] = reader.norm("features.norm_last");
        let last = Norm { scale: narrow(&scale), shift: narrow(&shift) };
        Network { size, stem, blocks, last, classifier: reader.classifier(channels) }
    }

    /// Logits of an image.
    pub fn classes(&self) -> usize {
        self.classifier.bias.len()
    }
}

/// Reads a state dict of a spec's network.
struct Reader<'a> {
    spec: &'a Spec,
    state: &'a StateDict,
    form: Form,
}

impl Reader<'_> {
    /// Whether the network has a layer of this name.
    fn has(&self, layer: &str) -> bool {
        let convolution = format!("{layer}.conv.weight");
        self.state.tensors.contains_key(&convolution)
    }

    /// The numbers of a tensor; there is each one that a checked network needs.
    fn numbers(&self, name: &str) -> Vec<f64> {
        self.state.tensors.get(name).map(Array::to_f64).unwrap_or_default()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        narrow(&self.numbers(name))
    }

    fn index(&self, name: &str) -> Vec<usize> {
        self.numbers(name).iter().map(|&i| i as usize).collect()
    }

    /// Scale and shift of a batch norm.
    fn norm(&self, name: &str) -> [Vec<f64>; 2] {
        let [weight, bias, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|part| self.numbers(&format!("{name}.{part}")));
        let scale: Vec<f64> = weight.iter().zip(&variance).map(|(w, v)| w / (v + EPSILON).sqrt()).collect();
        let shift = bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
        [scale, shift]
    }

    fn layer(&self, name: &str, channels: usize) -> Layer {
        let after = self.norm(&format!("{name}.conv_2.norm"));
        let pointwise = self.pointwise(&format!("{name}.conv_1"), channels, Some(&after));
        let weights = self.floats(&format!("{name}.conv_2.conv.weight"));
        let (groups, inputs) = (self.spec.model.group_3x3 as usize, pointwise.outputs);
        let outputs = weights.len() / (inputs / groups * 9);
        Layer { pointwise, spatial: Spatial { groups, inputs, outputs, weights } }
    }

    /// A 1×1 convolution over `channels`, and the batch norm after it, if one follows.
    fn pointwise(&self, name: &str, channels: usize, after: Option<&[Vec<f64>; 2]>) -> Pointwise {
        let model = &self.spec.model;
        let weights = self.numbers(&format!("{name}.conv.weight"));
        let [scale, shift] = self.norm(&format!("{name}.norm"));
        let groups = model.group_1x1 as usize;
        let condenses = model.arch.condenses();
        let converted = condenses && self.form == Form::Converted;
        let index = self.index(&format!("{name}.index"));
        let mask = self.numbers(&format!("{name}._mask"));
        // Inputs of a row of weights.
        let width = if condenses && !converted { channels } else { scale.len() / groups };
        let outputs = weights.len() / width.max(1);
        let group = |g: usize| {
            // The rows of the group, the channels that they become, its inputs as channels, columns of the weights and of the norm.
            let rows: Vec<usize> = (0..outputs / groups)
                .map(|k| if condenses && !converted { k * groups + g } else { g * (outputs / groups) + k })
                .collect();
            let shuffled = |(k, &row): (usize, &usize)| if converted { k * groups + g } else { row };
            let seen: Vec<[usize; 3]> = if condenses && !converted {
                let kept = |&i: &usize| mask.get(g * width + i).is_some_and(|&kept| kept != 0.0);
                (0..width).filter(kept).map(|i| [i, i, i]).collect()
            } else {
                let entering = |i: usize| index.get(g * width + i).copied().unwrap_or(g * width + i);
                (0..width).map(|i| [entering(i), i, g * width + i]).collect()
            };
            let outputs: Vec<usize> = rows.iter().enumerate().map(shuffled).collect();
            let factor = |output: usize| after.map_or(1.0, |[scale, _]| scale[output]);
            let folded = rows.iter().zip(&outputs).flat_map(|(&row, &output)| {
                let weights = &weights[row * width..][..width];
                seen.iter().map(move |&[_, column, _]| (weights[column] * factor(output)) as f32)
            });
            let weights = folded.collect();
            let bias = outputs.iter().map(|&o| after.map_or(0.0, |[_, shift]| shift[o] as f32)).collect();
            let norm = Norm {
                scale: seen.iter().map(|&[_, _, n]| scale[n] as f32).collect(),
                shift: seen.iter().map(|&[_, _, n]| shift[n] as f32).collect(),
            };
            Group {
                inputs: seen.iter().map(|&[channel, ..]| channel).collect(),
                norm,
                outputs,
                weights,
                bias,
            }
        };
        Pointwise { groups: (0..groups).map(group).collect(), outputs }
    }

    fn classifier(&self, channels: usize) -> Classifier {
        let converted = self.form == Form::Converted;
        let linear = if converted { "classifier.linear" } else { "classifier" };
        Classifier {
            inputs: if converted { self.index("classifier.index") } else { (0..channels).collect() },
            weights: self.floats(&format!("{linear}.weight")),
            bias: self.floats(&format!("{linear}.bias")),
        }
    }
}

fn narrow(numbers: &[f64]) -> Vec<f32> {
    numbers.iter().map(|&x| x as f32).collect()
}
