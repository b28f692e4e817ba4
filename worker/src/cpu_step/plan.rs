//! From a network's list of layers to the trunk that cnx-kernels computes: dense blocks with halvings between them.

use std::collections::BTreeMap;

use cnx_kernels::{Group, Layer as Dense, NormPlace, Spatial};
use cnx_proto::architecture::{Layer, Op, Role};

/// Where each parameter begins among all of them, by its name.
pub type Offsets = BTreeMap<String, usize>;

/// What the kernels compute of a network, and what is left to libtorch.
#[derive(Debug)]
pub struct Plan {
    /// The dense blocks.
    pub blocks: Vec<Vec<Dense>>,
    /// The batch norm behind them.
    pub last_norm: NormPlace,
    /// The layer that gives the maps that enter the first block.
    pub first: usize,
    /// Channels of these maps.
    pub channels: usize,
    /// Their height and width.
    pub size: usize,
    /// The name of the classifier.
    pub classifier: String,
    /// By layer of the trunk: the number of its dropout, if it has one.
    pub dropouts: Vec<Option<u32>>,
    /// By batch norm of the trunk, in the order of its statistics: its name.
    pub norms: Vec<String>,
}

/// Where the parameters of these layers begin when all of them lie one after another.
pub fn offsets(layers: &[Layer]) -> Offsets {
    let mut end = 0;
    let mut offsets = Offsets::new();
    for tensor in layers.iter().flat_map(Layer::tensors).filter(|tensor| tensor.role == Role::Parameter) {
        let start = end;
        end += tensor.shape.iter().product::<u64>() as usize;
        offsets.insert(tensor.name, start);
    }
    offsets
}

/// The plan of a network; none if it is made of anything but a first convolution, dense layers, halvings between blocks, a
/// last batch norm with global pooling, and a classifier.
pub fn plan(layers: &[Layer]) -> Option<Plan> {
    let offsets = offsets(layers);
    let [images, first, rest @ ..] = layers else { return None };
    if images.op != Op::Input || !matches!(first.op, Op::Conv { .. }) {
        return None;
    }
    let (mut blocks, mut dropouts, mut norms) = (vec![Vec::new()], Vec::new(), Vec::new());
    let mut rest = rest;
    loop {
        if let Some((dense, left)) = dense_layer(rest, &offsets) {
            blocks.last_mut()?.push(dense.layer);
            dropouts.push(dense.dropout);
            norms.extend(dense.norms);
            rest = left;
            continue;
        }
        match rest {
            [pool, left @ ..] if pool.op == (Op::AvgPool { kernel: 2, stride: 2, padding: 0 }) => {
                blocks.push(Vec::new());
                rest = left;
            }
            [norm, relu, pool, classifier] => {
                let ops = [norm.op, relu.op, pool.op, classifier.op];
                if ops != [Op::BatchNorm, Op::Relu, Op::GlobalAvgPool, Op::Linear] {
                    return None;
                }
                norms.push(norm.name.clone());
                return Some(Plan {
                    blocks,
                    last_norm: norm_place(norm, &offsets)?,
                    first: 1,
                    channels: first.out_channels as usize,
                    size: first.out_size as usize,
                    classifier: classifier.name.clone(),
                    dropouts,
                    norms,
                });
            }
            _ => return None,
        }
    }
}

struct DenseLayer {
    layer: Dense,
    dropout: Option<u32>,
    norms: [String; 2],
}

/// A dense layer in front of the list, and what follows it.
fn dense_layer<'a>(layers: &'a [Layer], offsets: &Offsets) -> Option<(DenseLayer, &'a [Layer])> {
    let [norm_1, relu, rest @ ..] = layers else { return None };
    let (dropout, rest) = match rest {
        [Layer { op: Op::Dropout { number }, .. }, rest @ ..] => (Some(*number), rest),
        _ => (None, rest),
    };
    let [conv_1, norm_2, relu_2, conv_2, concat, rest @ ..] = rest else { return None };
    let ops = [norm_1.op, relu.op, norm_2.op, relu_2.op, concat.op];
    if ops != [Op::BatchNorm, Op::Relu, Op::BatchNorm, Op::Relu, Op::Concat] {
        return None;
    }
    let (inputs, outputs) = (conv_1.in_channels as usize, conv_1.out_channels as usize);
    let (weight, groups) = match conv_1.op {
        Op::LearnedGroupConv { .. } => ("conv.weight", vec![Group::whole(inputs, outputs)]),
        Op::Conv { kernel: 1, stride: 1, groups: 1, bias: false } => {
            ("weight", vec![Group::whole(inputs, outputs)])
        }
        _ => return None,
    };
    let Op::Conv { kernel: 3, stride: 1, groups: spatial_groups, bias: false } = conv_2.op else {
        return None;
    };
    let layer = Dense {
        norm_1: norm_place(norm_1, offsets)?,
        conv_1: *offsets.get(&format!("{}.{weight}", conv_1.name))?,
        groups,
        norm_2: norm_place(norm_2, offsets)?,
        conv_2: *offsets.get(&format!("{}.weight", conv_2.name))?,
        spatial: Spatial {
            inputs: conv_2.in_channels as usize,
            outputs: conv_2.out_channels as usize,
            groups: spatial_groups as usize,
        },
    };
    let norms = [norm_1.name.clone(), norm_2.name.clone()];
    Some((DenseLayer { layer, dropout, norms }, rest))
}

fn norm_place(norm: &Layer, offsets: &Offsets) -> Option<NormPlace> {
    let place = |name: &str| offsets.get(&format!("{}.{name}", norm.name)).copied();
    Some(NormPlace { weight: place("weight")?, bias: place("bias")?, channels: norm.in_channels as usize })
}

#[cfg(test)]
mod tests {
    use cnx_proto::architecture::{Form, layers};
    use cnx_proto::recipe::recipe;
    use cnx_proto::spec::{Arch, Dataset, Model};

    use super::*;

    fn layers_of(arch: Arch, change: impl FnOnce(&mut Model)) -> Vec<Layer> {
        let mut model = recipe(arch, Dataset::Cifar10).model;
        model.stages = serde_json::from_value("2-1".into()).unwrap();
        model.growth = serde_json::from_value("8-16".into()).unwrap();
        change(&mut model);
        layers(&model, Dataset::Cifar10, Form::Large)
    }

    #[test]
    fn a_condensenet_is_blocks_of_dense_layers_with_their_parameters_one_after_another() {
        let layers = layers_of(Arch::CondenseNet, |model| model.dropout = 0.1);
        let plan = plan(&layers).unwrap();
        assert_eq!(plan.blocks.iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(plan.blocks[1][0].norm_1.channels, 16 + 2 * 8);
        assert_eq!((plan.channels, plan.size, plan.classifier.as_str()), (16, 32, "classifier"));
        assert_eq!(plan.dropouts, [Some(1), Some(2), Some(3)]);
        assert_eq!(plan.norms.len(), 2 * 3 + 1);
        // Behind the first convolution (16 × 3 × 3 × 3) lie γ and β of the first batch norm, then its 1×1 convolution.
        let first = &plan.blocks[0][0];
        assert_eq!((first.norm_1.weight, first.norm_1.bias, first.conv_1), (432, 448, 464));
    }

    #[test]
    fn a_densenet_whose_transitions_convolve_is_not_planned() {
        assert!(plan(&layers_of(Arch::DenseNet, |_| {})).is_none());
        assert!(plan(&layers_of(Arch::ResNet18, |_| {})).is_none());
    }
}
