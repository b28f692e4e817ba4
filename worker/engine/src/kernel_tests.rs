//! Each kernel against plain loops, on every instruction set that this CPU has.

use cnx_proto::random::{Purpose, Stream};

use crate::Instructions;
use crate::buffer::Buffer;
use crate::instructions::{Core, Vectors};
use crate::layout::{Along, BEHIND, Layout};
use crate::network::{Group, Layer, Norm, Pointwise, Spatial, Stem};
use crate::place::Place;
use crate::pointwise::planes::Piece;
use crate::{packed, pointwise, pool, spatial, stem};

/// Shape of a dense layer.
#[derive(Debug, Clone, Copy)]
struct Shape {
    size: usize,
    channels: usize,
    /// Of the 1×1: groups, inputs and outputs of each.
    groups: usize,
    inputs: usize,
    outputs: usize,
    /// Of the 3×3: groups, and outputs of each.
    groups_3x3: usize,
    outputs_3x3: usize,
}

fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut stream = Stream::new(seed, Purpose::Weights, [0, 0]);
    (0..count).map(|_| stream.normal() as f32).collect()
}

fn layer(shape: Shape) -> Layer {
    let Shape { channels, groups, inputs, outputs, groups_3x3, outputs_3x3, .. } = shape;
    let group = |g: usize| Group {
        inputs: (0..inputs).map(|k| (k * 5 + g) % channels).collect(),
        norm: Norm { scale: random(g as u64, inputs), shift: random(g as u64 + 100, inputs) },
        outputs: (0..outputs).map(|k| k * groups + g).collect(),
        weights: random(g as u64 + 200, inputs * outputs),
        bias: random(g as u64 + 300, outputs),
    };
    let middle = groups * outputs;
    Layer {
        pointwise: Pointwise { groups: (0..groups).map(group).collect(), outputs: middle },
        spatial: Spatial {
            groups: groups_3x3,
            inputs: middle,
            outputs: groups_3x3 * outputs_3x3,
            weights: random(400, outputs_3x3 * middle * 9),
        },
    }
}

/// [channels, size, size] of the middle.
fn plain_pointwise(conv: &Pointwise, features: &[f32], area: usize) -> Vec<f64> {
    let mut to = vec![0.0; conv.outputs * area];
    for group in &conv.groups {
        for (row, &output) in group.outputs.iter().enumerate() {
            for p in 0..area {
                let mut sum = f64::from(group.bias[row]);
                for (k, &input) in group.inputs.iter().enumerate() {
                    let x = f64::from(features[input * area + p]);
                    let x = (f64::from(group.norm.scale[k]) * x + f64::from(group.norm.shift[k])).max(0.0);
                    sum += f64::from(group.weights[row * group.inputs.len() + k]) * x;
                }
                to[output * area + p] = sum.max(0.0);
            }
        }
    }
    to
}

/// [outputs, size, size]
fn plain_spatial(conv: &Spatial, middle: &[f64], size: usize) -> Vec<f64> {
    let (inputs, outputs) = (conv.inputs / conv.groups, conv.outputs / conv.groups);
    let mut to = vec![0.0; conv.outputs * size * size];
    for (i, to) in to.iter_mut().enumerate() {
        let (output, y, x) = (i / (size * size), i / size % size, i % size);
        for input in 0..inputs {
            for tap in 0..9 {
                let (y, x) = (y + tap / 3, x + tap % 3);
                if (1..=size).contains(&y) && (1..=size).contains(&x) {
                    let channel = output / outputs * inputs + input;
                    let weight = f64::from(conv.weights[(output * inputs + input) * 9 + tap]);
                    *to += weight * middle[(channel * size + y - 1) * size + x - 1];
                }
            }
        }
    }
    to
}

fn close(found: f32, expected: f64, largest: f64) -> bool {
    (f64::from(found) - expected).abs() < 1e-5 * largest
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(1e-3f64, |most, x| most.max(x.abs()))
}

fn vectors() -> Vec<Vectors> {
    Instructions::ALL.into_iter().filter_map(|instructions| Vectors::of(instructions).ok()).collect()
}

/// Runs the 1×1 and the 3×3 of a layer, band by band, and compares both.
fn hold(shape: Shape, along: Along, threads: usize) {
    let layer = layer(shape);
    let (size, area) = (shape.size, shape.size * shape.size);
    let image = random(7, shape.channels * area);
    let expected_middle = plain_pointwise(&layer.pointwise, &image, area);
    let expected = plain_spatial(&layer.spatial, &expected_middle, size);
    let (largest_middle, largest_output) = (largest(&expected_middle), largest(&expected));
    for (vectors, beside) in vectors().into_iter().flat_map(|vectors| [(vectors, false), (vectors, true)]) {
        // Of either maker.
        let core = Core { beside, ..vectors.core() };
        let blocks = matches!(along, Along::Channels(_) | Along::Squares(_));
        if along == Along::Rows && size < core.lanes || blocks && core.lanes == 1 {
            continue;
        }
        // Many threads have small bands.
        let layout = Layout::new(along, size, layer.pointwise.outputs * 8, core, threads);
        let mut features = vec![0.0; shape.channels * layout.plane + BEHIND];
        for (plane, image) in features.chunks_exact_mut(layout.plane).zip(image.chunks_exact(area)) {
            for (y, row) in image.chunks_exact(size).enumerate() {
                plane[y * layout.stride..][..size].copy_from_slice(row);
            }
        }
        let places: Vec<Place> = (0..shape.channels).map(|c| Place::new(0, c * layout.plane)).collect();
        let packed = packed::Layer::new(&layer, along, core);
        let mut to = vec![f32::NAN; layer.spatial.outputs * layout.plane];
        let mut panel = Buffer::default();
        let at_pixel = |place: Place, y: usize, x: usize| match along {
            Along::Channels(_) | Along::Squares(_) => {
                place.offset as usize + ((y + 1) * layout.middle_stride + x + 1) * along.side()
            }
            _ => place.offset as usize + layout.lead + (y + 1) * layout.middle_stride + layout.margin + x,
        };
        let check_middle = |middle: &[f32], places: &[Place], rows: std::ops::Range<usize>| {
            for (channel, &place) in places.iter().enumerate() {
                for (y, x) in rows.clone().flat_map(|y| (0..size).map(move |x| (y, x))) {
                    let found = middle[at_pixel(place, y - rows.start, x)];
                    let expected = expected_middle[(channel * size + y) * size + x];
                    assert!(
                        close(found, expected, largest_middle),
                        "middle {channel} {y} {x}: {found} for {expected}; {vectors:?} {along:?} {shape:?}"
                    );
                }
            }
        };
        match &packed {
            packed::Layer::Planes(conv, conv_3x3) => {
                let middle_places: Vec<Place> =
                    conv.order.iter().map(|&number| Place::new(0, number * layout.middle_plane)).collect();
                let mut middle = vec![0.0; layer.pointwise.outputs * layout.middle_plane];
                let mut done = 0;
                for band in layout.bands(size) {
                    let rows = done..(band.end + 1).min(size);
                    done = rows.end;
                    let first = rows.start + 1 - band.start;
                    vectors.run(pointwise::planes::Band {
                        conv,
                        units: 0..conv.units.len(),
                        pieces: &[Piece { features: &[&features], rows, first }],
                        places: &places,
                        layout: &layout,
                        carried: band.start > 0,
                        last: band.end == size,
                        to: &mut middle,
                        panel: &mut panel,
                    });
                    check_middle(&middle, &middle_places, band.clone());
                    vectors.run(spatial::planes::Work {
                        conv: conv_3x3,
                        units: 0..conv_3x3.units.len(),
                        middle: &[&middle],
                        places: &middle_places,
                        layout: &layout,
                        rows: band,
                        to: &mut to,
                    });
                }
            }
            packed::Layer::Blocks(conv, conv_3x3) => {
                let place = |&(block, at): &(usize, usize)| Place::new(0, block * layout.middle_plane + at);
                let middle_places: Vec<Place> = conv.order.iter().map(place).collect();
                let blocks: usize = conv.units.iter().map(|unit| unit.blocks).sum();
                let mut middle = vec![0.0; blocks * layout.middle_plane];
                vectors.run(pointwise::channels::Work {
                    conv,
                    units: 0..conv.units.len(),
                    features: &[&features],
                    places: &places,
                    layout: &layout,
                    pixels: &layout.pixels(),
                    to: &mut middle,
                    panel: &mut panel,
                });
                check_middle(&middle, &middle_places, 0..size);
                vectors.run(spatial::blocks::Work {
                    conv: conv_3x3,
                    units: 0..conv_3x3.units.len(),
                    middle: &[&middle],
                    places: &middle_places,
                    layout: &layout,
                    to: &mut to,
                    scratch: &mut panel,
                });
            }
        }
        for (output, plane) in to.chunks_exact(layout.plane).enumerate() {
            for (y, x) in (0..size).flat_map(|y| (0..size).map(move |x| (y, x))) {
                let found = plane[y * layout.stride + x];
                let expected_value = expected[(output * size + y) * size + x];
                assert!(
                    close(found, expected_value, largest_output),
                    "output {output} {y} {x}: {found} for {expected_value}; {vectors:?} {along:?} {shape:?}"
                );
            }
        }
    }
}

#[test]
fn vectors_along_planes_and_rows_make_the_sums_of_plain_loops() {
    let shapes = [(1, 3, 1, 1), (4, 7, 4, 2), (9, 16, 2, 3), (8, 20, 1, 13), (3, 1, 3, 4), (12, 5, 4, 8)];
    // The largest has vectors in the middle of a row on every CPU, and as many rows as the largest tile of few registers.
    for size in [1, 2, 7, 14, 16, 19, 40] {
        for (outputs, inputs, groups, outputs_3x3) in shapes {
            let shape =
                Shape { size, channels: 23, groups, inputs, outputs, groups_3x3: groups, outputs_3x3 };
            for along in [Along::Plane, Along::Rows, Along::Pairs] {
                hold(shape, along, 1);
            }
        }
    }
}

#[test]
fn bands_of_rows_make_the_sums_of_whole_maps() {
    let shape =
        Shape { size: 57, channels: 9, groups: 2, inputs: 3, outputs: 40, groups_3x3: 2, outputs_3x3: 2 };
    for along in [Along::Plane, Along::Rows, Along::Pairs] {
        let core = Vectors::Portable.core();
        assert!(Layout::new(along, 57, 640, core, 1).bands(57).count() > 2);
        hold(shape, along, 1);
    }
}

#[test]
fn vectors_of_outputs_make_the_sums_of_plain_loops() {
    for size in [1, 2, 7, 8, 9, 14, 28] {
        for (groups, inputs, outputs, groups_3x3, outputs_3x3) in [
            (1, 5, 16, 1, 16),
            (3, 150, 32, 2, 32),
            (4, 300, 48, 4, 48),
            (2, 1, 80, 1, 32),
            (2, 37, 128, 2, 16),
            (4, 30, 32, 4, 8),
            (1, 5, 35, 1, 8),
        ] {
            let shape = Shape { size, channels: 311, groups, inputs, outputs, groups_3x3, outputs_3x3 };
            for side in [4, 8, 16] {
                hold(shape, Along::Channels(side), 1);
                hold(shape, Along::Squares(side), 1);
            }
        }
    }
}

#[test]
fn the_first_convolution_makes_the_sums_of_plain_loops() {
    for (size, stride, outputs) in [(32, 1, 3), (30, 2, 16), (9, 1, 10), (64, 2, 9)] {
        let weights = random(1, outputs * 27);
        let image = random(2, 3 * size * size);
        let network = Stem { weights: weights.clone(), outputs, stride };
        let out = (size - 1) / stride + 1;
        for vectors in vectors() {
            let core = vectors.core();
            let layout = Layout::new(Along::Plane, out, 1, core, 1);
            let packed = stem::Stem::new(&network, size, core.lanes);
            let mut laid_out = vec![0.0; packed.floats()];
            vectors.run(stem::LayOut { stem: &packed, image: &image, to: &mut laid_out });
            let mut to = vec![0.0; outputs * layout.plane];
            vectors.run(stem::Work {
                stem: &packed,
                units: 0..packed.units(),
                rows: 0..out,
                image: &laid_out,
                layout: &layout,
                to: &mut to,
            });
            for i in 0..outputs * out * out {
                let (output, y, x) = (i / (out * out), i / out % out, i % out);
                let mut expected = 0.0;
                for tap in 0..27 {
                    let (colour, y, x) = (tap / 9, y * stride + tap / 3 % 3, x * stride + tap % 3);
                    if (1..=size).contains(&y) && (1..=size).contains(&x) {
                        let pixel = image[(colour * size + y - 1) * size + x - 1];
                        expected += f64::from(weights[output * 27 + tap]) * f64::from(pixel);
                    }
                }
                let found = to[output * layout.plane + y * layout.stride + x];
                assert!(close(found, expected, 10.0), "{found} for {expected}; {vectors:?} {size} {stride}");
            }
        }
    }
}

#[test]
fn halving_takes_the_means_of_squares_and_leaves_out_an_odd_edge() {
    let alongs = [Along::Plane, Along::Rows, Along::Channels(8), Along::Squares(16)];
    let sizes = [2, 5, 8, 14, 16, 28, 32, 33, 56, 112];
    for (size, along) in sizes.into_iter().flat_map(|size| alongs.map(|along| (size, along))) {
        for vectors in vectors() {
            let core = vectors.core();
            let from = Layout::new(along, size, 1, core, 1);
            let into = Layout::new(Along::Plane, size / 2, 1, core, 1);
            let planes = random(3, 2 * from.plane);
            let mut to = vec![f32::NAN; 2 * into.plane];
            // From the lower half, the first rows make those of the lower half.
            let middle = size / 4;
            for (first, rows) in [(0, 0..middle), (middle, middle..size / 2)] {
                let mut own = vec![0.0; planes.len()];
                own.copy_from_slice(&planes);
                for plane in own.chunks_exact_mut(from.plane) {
                    plane.rotate_left(2 * first * from.stride);
                }
                vectors.run(pool::Work { planes: &own, from: &from, into: &into, rows, to: &mut to });
            }
            for (channel, y, x) in
                (0..2).flat_map(|c| (0..size / 2).flat_map(move |y| (0..size / 2).map(move |x| (c, y, x))))
            {
                let at = |y: usize, x: usize| f64::from(planes[channel * from.plane + y * from.stride + x]);
                let square =
                    at(2 * y, 2 * x) + at(2 * y, 2 * x + 1) + at(2 * y + 1, 2 * x) + at(2 * y + 1, 2 * x + 1);
                assert!(close(to[channel * into.plane + y * into.stride + x], square / 4.0, 10.0));
            }
        }
    }
}
