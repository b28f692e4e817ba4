//! The network as plain loops in double precision, layer by layer: what the fast path is held against.

use cnx_formats::{Array, StateDict};
use cnx_proto::Spec;
use cnx_proto::architecture::{self, Form, Layer, Op};

/// What is added to a variance before its root is taken.
const EPSILON: f64 = 1e-5;

/// The logits of one image [3, size, size]. `state` must be of the spec's network; what is missing counts as 0.
pub fn logits(spec: &Spec, state: &StateDict, image: &[f32]) -> Vec<f64> {
    let form = Form::of(state.tensors.keys().map(String::as_str));
    let layers = architecture::layers(&spec.model, spec.data.dataset, form);
    let mut maps: Vec<Vec<f64>> = Vec::with_capacity(layers.len());
    for layer in &layers {
        let get = |name: &str| {
            state.tensors.get(&format!("{}.{name}", layer.name)).map(Array::to_f64).unwrap_or_default()
        };
        let inputs: Vec<&[f64]> = layer.inputs.iter().map(|&i| maps[i].as_slice()).collect();
        let map = match inputs.as_slice() {
            [] => image.iter().map(|&x| f64::from(x)).collect(),
            inputs => apply(layer, inputs, &get),
        };
        maps.push(map);
    }
    maps.pop().unwrap_or_default()
}

/// What a layer makes of its inputs, [channels, size, size] each.
fn apply(layer: &Layer, inputs: &[&[f64]], get: &dyn Fn(&str) -> Vec<f64>) -> Vec<f64> {
    let x = inputs[0];
    let plane = (layer.in_size * layer.in_size) as usize;
    match layer.op {
        Op::Input | Op::Dropout { .. } | Op::Flatten => x.to_vec(),
        Op::Conv { kernel, stride, groups, bias } => {
            let bias = if bias { get("bias") } else { Vec::new() };
            let square =
                Square { kernel: kernel as usize, stride: stride as usize, padding: kernel as usize / 2 };
            convolution(layer, x, &get("weight"), &bias, square, groups as usize)
        }
        Op::LearnedGroupConv { .. } => {
            let mask = get("_mask");
            let weights: Vec<f64> = get("conv.weight").iter().zip(&mask).map(|(w, m)| w * m).collect();
            convolution(layer, x, &weights, &[], Square { kernel: 1, stride: 1, padding: 0 }, 1)
        }
        Op::BatchNorm => {
            let [weight, bias, mean, var] = ["weight", "bias", "running_mean", "running_var"].map(get);
            let value = |(i, &x): (usize, &f64)| {
                let c = i / plane;
                (x - mean[c]) / (var[c] + EPSILON).sqrt() * weight[c] + bias[c]
            };
            x.iter().enumerate().map(value).collect()
        }
        Op::Relu => x.iter().map(|x| x.max(0.0)).collect(),
        Op::MaxPool { kernel, stride, padding } => {
            pool(layer, x, kernel, stride, padding, |taps| taps.iter().copied().fold(f64::MIN, f64::max))
        }
        Op::AvgPool { kernel, stride, padding } => {
            let area = f64::from(kernel * kernel);
            pool(layer, x, kernel, stride, padding, |taps| taps.iter().sum::<f64>() / area)
        }
        Op::GlobalAvgPool => {
            x.chunks(plane).map(|plane| plane.iter().sum::<f64>() / plane.len() as f64).collect()
        }
        Op::Gather => get("index").iter().flat_map(|&i| &x[i as usize * plane..][..plane]).copied().collect(),
        Op::Shuffle { groups } => {
            let (groups, channels) = (groups as usize, layer.in_channels as usize);
            let from = |c: usize| c % groups * (channels / groups) + c / groups;
            (0..channels).flat_map(|c| &x[from(c) * plane..][..plane]).copied().collect()
        }
        Op::Concat => inputs.concat(),
        Op::Add => inputs[0].iter().zip(inputs[1]).map(|(a, b)| a + b).collect(),
        Op::Linear => {
            let (weight, bias) = (get("weight"), get("bias"));
            let rows = weight.chunks(layer.in_channels as usize).zip(&bias);
            rows.map(|(row, bias)| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>() + bias).collect()
        }
    }
}

/// A square that moves over a map.
#[derive(Clone, Copy)]
struct Square {
    kernel: usize,
    stride: usize,
    padding: usize,
}

impl Square {
    /// The pixels of a map of `size`² below the square of output (y, x), as (place in the square, place in the map).
    fn taps(self, size: usize, y: usize, x: usize) -> impl Iterator<Item = (usize, usize)> {
        let Square { kernel, stride, padding } = self;
        (0..kernel * kernel).filter_map(move |tap| {
            let y = (y * stride + tap / kernel).checked_sub(padding).filter(|&y| y < size)?;
            let x = (x * stride + tap % kernel).checked_sub(padding).filter(|&x| x < size)?;
            Some((tap, y * size + x))
        })
    }
}

fn convolution(
    layer: &Layer,
    x: &[f64],
    weights: &[f64],
    bias: &[f64],
    square: Square,
    groups: usize,
) -> Vec<f64> {
    let [inputs, outputs, size, out] =
        [layer.in_channels, layer.out_channels, layer.in_size, layer.out_size].map(|n| n as usize);
    let (each, area) = (inputs / groups, square.kernel * square.kernel);
    let mut result = vec![0.0; outputs * out * out];
    for (output, result) in result.chunks_exact_mut(out * out).enumerate() {
        let first = output / (outputs / groups) * each;
        for (i, result) in result.iter_mut().enumerate() {
            *result = bias.get(output).copied().unwrap_or(0.0);
            for (tap, at) in square.taps(size, i / out, i % out) {
                for input in 0..each {
                    *result +=
                        weights[(output * each + input) * area + tap] * x[(first + input) * size * size + at];
                }
            }
        }
    }
    result
}

fn pool(
    layer: &Layer,
    x: &[f64],
    kernel: u32,
    stride: u32,
    padding: u32,
    of: impl Fn(&[f64]) -> f64,
) -> Vec<f64> {
    let square = Square { kernel: kernel as usize, stride: stride as usize, padding: padding as usize };
    let (size, out) = (layer.in_size as usize, layer.out_size as usize);
    let planes = x.chunks(size * size);
    let value = |plane: &[f64], i: usize| {
        of(&square.taps(size, i / out, i % out).map(|(_, at)| plane[at]).collect::<Vec<_>>())
    };
    planes.flat_map(|plane| (0..out * out).map(move |i| value(plane, i))).collect()
}
