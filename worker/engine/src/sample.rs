//! Networks of random weights, for benchmarks and tests: batch norms of every sign, now and then a scale of 0.

use std::collections::BTreeMap;

use cnx_formats::{Array, StateDict};
use cnx_proto::Spec;
use cnx_proto::architecture::{self, Form, Layer, Op, TensorInfo};
use cnx_proto::random::{Purpose, Stream, name_coordinates};

/// A state dict of a spec's network. In the large form it is condensed to the end.
pub fn state(spec: &Spec, form: Form, seed: u64) -> StateDict {
    let layers = architecture::layers(&spec.model, spec.data.dataset, form);
    let mut tensors = BTreeMap::new();
    for layer in &layers {
        for info in layer.tensors() {
            let mut random = Stream::new(seed, Purpose::Weights, name_coordinates(&info.name));
            let array = array(spec, layer, &info, &mut random);
            tensors.extend(array.map(|array| (info.name, array)));
        }
    }
    StateDict { tensors, spec_json: Some(spec.to_json()) }
}

/// So many images of a network, normalised.
pub fn images(spec: &Spec, count: usize, seed: u64) -> Vec<f32> {
    let size = spec.data.dataset.image_size() as usize;
    let mut random = Stream::new(seed, Purpose::Synthetic, [0, 0]);
    (0..count * 3 * size * size).map(|_| random.normal() as f32).collect()
}

fn array(spec: &Spec, layer: &Layer, info: &TensorInfo, random: &mut Stream) -> Option<Array> {
    let shape: Vec<usize> = info.shape.iter().map(|&n| n as usize).collect();
    let count: usize = shape.iter().product();
    let part = info.name.rsplit('.').next().unwrap_or_default();
    if !info.real {
        let index = if part == "index" { index(spec, layer, random) } else { vec![0; count] };
        return Array::from_i64(shape, &index).ok();
    }
    let (groups, factor) = (spec.model.group_1x1 as usize, spec.model.condense_factor as usize);
    let norm = layer.op == Op::BatchNorm;
    let values: Vec<f32> = match part {
        "weight" if norm => (0..count)
            .map(|_| match random.below(20) {
                0 => 0.0,
                1 | 2 => -random.between(0.5, 1.5) as f32,
                _ => random.between(0.5, 1.5) as f32,
            })
            .collect(),
        "bias" => (0..count).map(|_| 0.5 * random.normal() as f32).collect(),
        "running_mean" => (0..count).map(|_| 0.3 * random.normal() as f32).collect(),
        "running_var" => (0..count).map(|_| random.between(0.5, 2.0) as f32).collect(),
        "_mask" => mask(shape[0], shape[1], groups, factor, random),
        "_count" => vec![(layer.in_channels as usize / factor * (factor - 1)) as f32],
        "_stage" => vec![(factor - 1) as f32],
        _ => {
            let inputs: usize = shape.iter().skip(1).product();
            let deviation = (2.0 / inputs.max(1) as f64).sqrt();
            (0..count).map(|_| (deviation * random.normal()) as f32).collect()
        }
    };
    Array::from_f32(shape, &values).ok()
}

/// So many of the numbers below `of`, ascending.
fn chosen(count: usize, of: usize, random: &mut Stream) -> Vec<i64> {
    let mut all: Vec<i64> = (0..of as i64).collect();
    random.shuffle(&mut all);
    all.truncate(count);
    all.sort_unstable();
    all
}

fn index(spec: &Spec, layer: &Layer, random: &mut Stream) -> Vec<i64> {
    let (inputs, outputs) = (layer.in_channels as usize, layer.out_channels as usize);
    let groups = if layer.name == "classifier" { 1 } else { spec.model.group_1x1 as usize };
    (0..groups).flat_map(|_| chosen(outputs / groups, inputs, random)).collect()
}

/// Row o is of group o mod `groups`; each group keeps its share of the inputs.
fn mask(outputs: usize, inputs: usize, groups: usize, factor: usize, random: &mut Stream) -> Vec<f32> {
    let kept: Vec<Vec<i64>> = (0..groups).map(|_| chosen(inputs / factor, inputs, random)).collect();
    let mut mask = vec![0.0; outputs * inputs];
    for (output, row) in mask.chunks_exact_mut(inputs).enumerate() {
        kept[output % groups].iter().for_each(|&input| row[input as usize] = 1.0);
    }
    mask
}
