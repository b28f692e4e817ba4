//! All of a CondenseNet between its first convolution and its classifier, forward and backward.

use crate::features::{Features, Shape};
use crate::groups::Group;
use crate::head;
use crate::norm::{Affine, Moments, Norm, Sums, Upstream, parameter_gradients};
use crate::pointwise::{self, Dropout, Incoming, Pointwise};
use crate::spatial::{self, Spatial};
use crate::threads::Threads;
use crate::tile::room;

/// Where the parameters of a batch norm lie among all parameters of the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NormPlace {
    /// Of the first γ.
    pub weight: usize,
    /// Of the first β.
    pub bias: usize,
    /// Channels.
    pub channels: usize,
}

impl NormPlace {
    fn of(self, parameters: &[f32]) -> Norm<'_> {
        Norm {
            weight: &parameters[self.weight..][..self.channels],
            bias: &parameters[self.bias..][..self.channels],
        }
    }
}

/// A dense layer: batch norm, ReLU, 1×1 convolution, batch norm, ReLU, 3×3 convolution, whose maps join the features.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The first batch norm.
    pub norm_1: NormPlace,
    /// Where the weights [outputs, inputs] of the 1×1 convolution begin.
    pub conv_1: usize,
    /// Its groups.
    pub groups: Vec<Group>,
    /// The second batch norm.
    pub norm_2: NormPlace,
    /// Where the weights of the 3×3 convolution begin.
    pub conv_2: usize,
    /// The 3×3 convolution.
    pub spatial: Spatial,
}

/// A layer, and what it remembers of a step.
#[derive(Debug)]
struct Dense {
    layer: Layer,
    pointwise: Pointwise,
    affine_1: Affine,
    affine_2: Affine,
    moments_2: Vec<Moments>,
    /// What the 1×1 convolution gave.
    middle: Vec<f32>,
}

/// What a forward pass is for.
#[derive(Debug, Clone, Copy)]
pub enum Pass<'a> {
    /// Batch norms use the batch's statistics; one dropout mask a layer, if there are any.
    Train(&'a [Dropout<'a>]),
    /// Batch norms use these statistics: those of each layer's two, then those of the last.
    Evaluate(&'a [Vec<Moments>]),
}

/// The trunk.
#[derive(Debug)]
pub struct Trunk {
    threads: Threads,
    /// By dense block.
    blocks: Vec<Vec<Dense>>,
    features: Vec<Features>,
    last_norm: NormPlace,
    last_affine: Affine,
    pooled: Vec<f32>,
    entering: Vec<f32>,
    coming_back: Vec<f32>,
    pointwise_scratch: Vec<pointwise::Scratch>,
    spatial_scratch: Vec<spatial::Scratch>,
}

impl Trunk {
    /// Of these dense blocks, between which maps are halved.
    pub fn new(threads: Threads, blocks: Vec<Vec<Layer>>, last_norm: NormPlace) -> Trunk {
        let features = blocks.iter().map(|_| Features::default()).collect();
        let scratch = threads.count();
        let dense = |layer: Layer| Dense {
            pointwise: Pointwise::new(layer.norm_1.channels, layer.norm_2.channels, layer.groups.clone()),
            layer,
            affine_1: Affine::default(),
            affine_2: Affine::default(),
            moments_2: Vec::new(),
            middle: Vec::new(),
        };
        let blocks = blocks.into_iter().map(|layers| layers.into_iter().map(dense).collect()).collect();
        Trunk {
            threads,
            blocks,
            features,
            last_norm,
            last_affine: Affine::default(),
            pooled: Vec::new(),
            entering: Vec::new(),
            coming_back: Vec::new(),
            pointwise_scratch: std::iter::repeat_with(Default::default).take(scratch).collect(),
            spatial_scratch: std::iter::repeat_with(Default::default).take(scratch).collect(),
        }
    }

    /// Changes the groups of the 1×1 convolutions, one entry a layer.
    pub fn regroup(&mut self, groups: Vec<Vec<Group>>) {
        for (dense, groups) in self.blocks.iter_mut().flatten().zip(groups) {
            dense.pointwise = Pointwise::new(dense.pointwise.inputs(), dense.pointwise.outputs(), groups);
        }
    }

    /// From the maps [images, channels, height, width] that enter the first block to the pooled features
    /// [images, channels of the last block].
    pub fn forward(&mut self, parameters: &[f32], entering: &[f32], shape: Shape, pass: Pass<'_>) -> &[f32] {
        self.resize(shape);
        self.enter(entering, shape);
        let mut number = 0;
        for block in 0..self.blocks.len() {
            if block > 0 {
                let (before, after) = self.features.split_at_mut(block);
                head::halve(&self.threads, &before[block - 1], &mut after[0]);
            }
            for layer in 0..self.blocks[block].len() {
                self.layer_forward(block, layer, number, parameters, pass);
                number += 1;
            }
        }
        let Trunk { threads, features, last_norm, last_affine, pooled, .. } = self;
        let Some(features) = features.last() else { return &[] };
        let moments = match pass {
            Pass::Train(_) => &features.moments,
            Pass::Evaluate(moments) => &moments[2 * number],
        };
        *last_affine = Affine::new(last_norm.of(parameters), moments);
        let pooled = room(pooled, features.shape.images * features.shape.channels);
        head::pool(threads, features, last_affine, pooled);
        pooled
    }

    /// From the gradient of the pooled features to that of all parameters here, and that of the maps that entered.
    pub fn backward(
        &mut self,
        parameters: &[f32],
        pooled: &[f32],
        dropouts: &[Dropout<'_>],
        gradient: &mut [f32],
    ) -> &[f32] {
        self.features.iter_mut().for_each(Features::clear_gradient);
        let (last_norm, weight) = (self.last_norm, self.last_norm.of(parameters).weight);
        if let Some(features) = self.features.last_mut() {
            let sums = head::unpool(&self.threads, features, &self.last_affine, weight, pooled);
            write_norm(gradient, last_norm, &sums, &features.moments);
        }
        let mut number = self.blocks.iter().map(Vec::len).sum::<usize>();
        for block in (0..self.blocks.len()).rev() {
            for layer in (0..self.blocks[block].len()).rev() {
                number -= 1;
                self.layer_backward(block, layer, dropouts.get(number).copied(), parameters, gradient);
            }
            if block > 0 {
                let (before, after) = self.features.split_at_mut(block);
                head::unhalve(&self.threads, &after[0], &mut before[block - 1]);
            }
        }
        self.leave()
    }

    /// The batch's statistics, as batch norms of the last forward pass saw them: of each layer's two, then of the last; with
    /// how many pixels they are over.
    pub fn statistics(&self) -> Vec<(&[Moments], f64)> {
        let mut statistics = Vec::new();
        for (block, features) in self.blocks.iter().zip(&self.features) {
            let count = features.shape.count();
            for dense in block {
                statistics.push((&features.moments[..dense.layer.norm_1.channels], count));
                statistics.push((dense.moments_2.as_slice(), count));
            }
        }
        if let Some(features) = self.features.last() {
            statistics.push((features.moments.as_slice(), features.shape.count()));
        }
        statistics
    }

    fn resize(&mut self, entering: Shape) {
        let mut shape = entering;
        for (i, (block, features)) in self.blocks.iter().zip(&mut self.features).enumerate() {
            if i > 0 {
                (shape.height, shape.width) = (shape.height / 2, shape.width / 2);
            }
            shape.channels += block.iter().map(|dense| dense.layer.spatial.outputs).sum::<usize>();
            features.resize(shape);
        }
    }

    /// Copies what enters in front of the first block's features.
    fn enter(&mut self, entering: &[f32], shape: Shape) {
        let Some(features) = self.features.first_mut() else { return };
        let image = features.shape.image();
        let mut sums = vec![Sums::default(); shape.channels];
        for (to, from) in features.values.chunks_exact_mut(image).zip(entering.chunks_exact(shape.image())) {
            to[..from.len()].copy_from_slice(from);
            for (sums, plane) in sums.iter_mut().zip(from.chunks_exact(shape.pixels())) {
                sums.add(plane.iter().sum(), plane.iter().map(|x| x * x).sum());
            }
        }
        features.note(0, &sums);
        self.entering.resize(shape.floats(), 0.0);
    }

    /// The gradient of what entered.
    fn leave(&mut self) -> &[f32] {
        let Some(features) = self.features.first() else { return &[] };
        let (image, pixels) = (features.shape.image(), features.shape.pixels());
        let channels = self.entering.len() / (features.shape.images * pixels).max(1);
        let upstream = features.upstream(0, channels);
        let images = features.values.chunks_exact(image).zip(features.gradient.chunks_exact(image));
        for (to, (values, gradients)) in self.entering.chunks_exact_mut(channels * pixels).zip(images) {
            let planes = values.chunks_exact(pixels).zip(gradients.chunks_exact(pixels));
            for (channel, (to, (values, gradients))) in to.chunks_exact_mut(pixels).zip(planes).enumerate() {
                let [direct, own, mean, constant] =
                    [&upstream.direct, &upstream.own, &upstream.mean, &upstream.constant]
                        .map(|of| of[channel]);
                for (to, (x, gradient)) in to.iter_mut().zip(values.iter().zip(gradients)) {
                    *to = direct * gradient + own * (x - mean) + constant;
                }
            }
        }
        &self.entering
    }

    fn layer_forward(
        &mut self,
        block: usize,
        layer: usize,
        number: usize,
        parameters: &[f32],
        pass: Pass<'_>,
    ) {
        let Trunk { threads, blocks, features, pointwise_scratch, spatial_scratch, .. } = self;
        let (dense, features) = (&mut blocks[block][layer], &mut features[block]);
        let Layer { norm_1, conv_1, norm_2, conv_2, spatial, .. } = dense.layer;
        let (moments_1, dropout) = match pass {
            Pass::Train(dropouts) => (&features.moments[..norm_1.channels], dropouts.get(number).copied()),
            Pass::Evaluate(moments) => (moments[2 * number].as_slice(), None),
        };
        dense.affine_1 = Affine::new(norm_1.of(parameters), moments_1);
        dense.pointwise.set_weights(&parameters[conv_1..][..norm_1.channels * norm_2.channels]);
        let middle =
            room(&mut dense.middle, features.shape.images * norm_2.channels * features.shape.pixels());
        let sums =
            dense.pointwise.forward(threads, features, &dense.affine_1, dropout, middle, pointwise_scratch);

        let count = features.shape.count();
        dense.moments_2 = match pass {
            Pass::Train(_) => sums.iter().map(|&sums| Moments::of(sums, count)).collect(),
            Pass::Evaluate(moments) => moments[2 * number + 1].clone(),
        };
        dense.affine_2 = Affine::new(norm_2.of(parameters), &dense.moments_2);
        let weights = &parameters[conv_2..][..spatial.weights()];
        spatial.forward(
            threads,
            middle,
            &dense.affine_2,
            weights,
            features,
            norm_1.channels,
            spatial_scratch,
        );
    }

    fn layer_backward(
        &mut self,
        block: usize,
        layer: usize,
        dropout: Option<Dropout<'_>>,
        parameters: &[f32],
        gradient: &mut [f32],
    ) {
        let Trunk { threads, blocks, features, pointwise_scratch, spatial_scratch, coming_back, .. } = self;
        let (dense, features) = (&blocks[block][layer], &mut features[block]);
        let Layer { norm_1, conv_1, norm_2, conv_2, spatial, .. } = dense.layer;
        let floats = features.shape.images * norm_2.channels * features.shape.pixels();
        let middle = &dense.middle[..floats];
        let dz = room(coming_back, floats);
        let weights = &parameters[conv_2..][..spatial.weights()];
        let weight_gradient = &mut gradient[conv_2..][..spatial.weights()];
        let first = norm_1.channels;
        let affine = &dense.affine_2;
        let sums = spatial.backward(
            threads,
            middle,
            affine,
            weights,
            features,
            first,
            dz,
            weight_gradient,
            spatial_scratch,
        );
        write_norm(gradient, norm_2, &sums, &dense.moments_2);

        let count = features.shape.count();
        let weights = norm_2.of(parameters).weight.iter().map(|&weight| f64::from(weight));
        let upstream = Upstream::through(weights, &dense.moments_2, &sums, count);
        let incoming = Incoming { output: middle, gradient: dz, upstream: &upstream };
        let weight_gradient = &mut gradient[conv_1..][..norm_1.channels * norm_2.channels];
        let norm_weights = norm_1.of(parameters).weight;
        let (pointwise, affine) = (&dense.pointwise, &dense.affine_1);
        let sums = pointwise.backward(
            threads,
            features,
            affine,
            norm_weights,
            dropout,
            incoming,
            weight_gradient,
            pointwise_scratch,
        );
        write_norm(gradient, norm_1, &sums, &features.moments);
    }
}

fn write_norm(gradient: &mut [f32], place: NormPlace, sums: &[Sums], moments: &[Moments]) {
    for (i, (weight, bias)) in parameter_gradients(sums, moments).enumerate().take(place.channels) {
        (gradient[place.weight + i], gradient[place.bias + i]) = (weight, bias);
    }
}
