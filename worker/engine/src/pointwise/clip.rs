//! Batch norm and ReLU as a clip: relu(a·x + b) = a·max(x, −b/a) + b where a > 0, and a·min(x, −b/a) + b where a < 0. The factor goes into
//! the weights of the convolution that follows, what is added into its bias; all that is left of it is a maximum or a minimum.

use crate::network;

/// Past this, −b/a is not told apart from infinity: no feature comes so far.
const FAR: f32 = 1e30;

/// The inputs of a group, those with a maximum before those with a minimum.
#[derive(Debug)]
pub(crate) struct Clips {
    /// Channels.
    pub inputs: Vec<usize>,
    /// What each is held against.
    pub limits: Vec<f32>,
    /// How many have a maximum.
    pub rising: usize,
}

/// A group's weights with what its clips leave to be done.
#[derive(Debug)]
pub(crate) struct Folded {
    /// [outputs, inputs], the inputs in the order of the clips.
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
}

impl Clips {
    pub fn new(group: &network::Group) -> (Clips, Folded) {
        let clips: Vec<Clip> =
            group.norm.scale.iter().zip(&group.norm.shift).map(|(&a, &b)| Clip::new(a, b)).collect();
        let (mut order, falling): (Vec<usize>, Vec<usize>) =
            (0..clips.len()).partition(|&input| !clips[input].falling);
        let rising = order.len();
        order.extend(falling);
        let width = clips.len();
        let row = |output: usize| &group.weights[output * width..][..width];
        let outputs = 0..group.bias.len();
        let weights = outputs
            .clone()
            .flat_map(|o| order.iter().map(move |&i| (i, row(o)[i])))
            .map(|(i, weight)| (f64::from(weight) * f64::from(clips[i].factor)) as f32);
        let bias = |o: usize| {
            let added = row(o).iter().zip(&clips).map(|(&w, clip)| f64::from(w) * f64::from(clip.added));
            (f64::from(group.bias[o]) + added.sum::<f64>()) as f32
        };
        let folded = Folded { weights: weights.collect(), bias: outputs.map(bias).collect() };
        let inputs = order.iter().map(|&i| group.inputs[i]).collect();
        (Clips { inputs, limits: order.iter().map(|&i| clips[i].limit).collect(), rising }, folded)
    }
}

/// factor·clip(x) + added
struct Clip {
    falling: bool,
    limit: f32,
    factor: f32,
    added: f32,
}

impl Clip {
    /// relu(a·x + b)
    fn new(a: f32, b: f32) -> Clip {
        let limit = (-f64::from(b) / f64::from(a)) as f32;
        // What no feature can switch on, or off.
        let constant = Clip { falling: false, limit: 0.0, factor: 0.0, added: b.max(0.0) };
        match a {
            0.0 => constant,
            _ if limit.abs() < FAR => Clip { falling: a < 0.0, limit, factor: a, added: b },
            _ if b < 0.0 => constant,
            _ => Clip { falling: a < 0.0, limit: if a < 0.0 { FAR } else { -FAR }, factor: a, added: b },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clip_is_batch_norm_and_relu() {
        let numbers = [0.0, 1e-38, 1e-20, 0.3, 1.0, 17.0];
        let numbers: Vec<f32> = numbers.into_iter().flat_map(|x| [x, -x]).collect();
        for &a in &numbers {
            for &b in &numbers {
                for &x in &numbers {
                    let Clip { falling, limit, factor, added } = Clip::new(a, b);
                    let clipped = if falling { x.min(limit) } else { x.max(limit) };
                    let found = f64::from(factor) * f64::from(clipped) + f64::from(added);
                    let expected = (f64::from(a) * f64::from(x) + f64::from(b)).max(0.0);
                    // A limit below the smallest float is 0.
                    let most = 2e-7 * f64::from(b).abs() + 1e-40;
                    assert!((found - expected).abs() <= most, "{a} {b} {x}: {found} for {expected}");
                }
            }
        }
    }
}
