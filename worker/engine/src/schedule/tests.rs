//! Every row of every plane is somebody's, once.

use std::collections::HashSet;
use std::ops::Range;

use cnx_proto::architecture::Form;
use cnx_proto::spec::{Arch, Dataset};

use crate::instructions::Vectors;
use crate::layout::Along;
use crate::network::Network;
use crate::packed::{self, Packed};
use crate::sample;
use crate::schedule::{Schedule, rows};

fn packed(arch: Arch, dataset: Dataset, stages: &[u32], growth: &[u32]) -> Packed {
    let mut spec = cnx_proto::recipe::recipe(arch, dataset);
    spec.model.stages = cnx_proto::dashed::Dashed(stages.to_vec());
    spec.model.growth = cnx_proto::dashed::Dashed(growth.to_vec());
    let state = sample::state(&spec, Form::Converted, 1);
    Packed::new(&Network::new(&spec, &state), Vectors::Portable.core())
}

fn block(along: Along, size: usize) -> packed::Block {
    packed::Block { size, along, middle: 1, layers: Vec::new(), transition: None }
}

#[test]
fn threads_share_the_rows_of_large_maps_in_twos_that_become_their_rows_of_the_next() {
    let blocks = |size: usize| [size, size / 2, size / 4, size / 8].map(|size| block(Along::Plane, size));
    for (size, threads, expected) in
        [(112, 1, 0), (112, 2, 3), (112, 3, 2), (112, 8, 1), (112, 9, 0), (32, 2, 1), (57, 2, 2), (115, 3, 2)]
    {
        let shares = rows::shares(&blocks(size), threads);
        assert_eq!(shares.len(), expected, "{size} {threads}");
        for (i, share) in shares.iter().enumerate() {
            let all: Vec<usize> = share.iter().cloned().flatten().collect();
            assert_eq!(all, (0..size >> i).collect::<Vec<_>>());
            assert!(share.iter().all(|rows| rows.start.is_multiple_of(2)));
            let halves: Vec<Range<usize>> = share.iter().map(|rows| rows.start / 2..rows.end / 2).collect();
            if let Some(next) = shares.get(i + 1) {
                assert_eq!(&halves, next);
            }
        }
    }
    let small = [block(Along::Plane, 112), block(Along::Squares(16), 56), block(Along::Plane, 28)];
    assert_eq!(rows::shares(&small, 2).len(), 1, "vectors of outputs want whole maps");
    assert!(rows::shares(&[block(Along::Rows, 112)], 2).is_empty(), "so does the classifier");
}

#[test]
fn every_row_of_what_enters_a_block_is_halved_once() {
    let networks = [
        packed(Arch::CondenseNet, Dataset::ImageNet, &[1, 2, 1, 1, 1], &[8, 16, 8, 16, 8]),
        packed(Arch::CondenseNet, Dataset::Cifar10, &[2, 1, 1], &[8, 16, 8]),
        packed(Arch::DenseNetLgc, Dataset::Cifar10, &[2, 2, 2], &[12, 12, 12]),
    ];
    for packed in &networks {
        for threads in [1, 2, 3, 5, 8] {
            let Schedule { blocks, .. } = Schedule::new(packed, threads);
            for pair in blocks.windows(2) {
                let [from, into] = pair else { unreachable!() };
                let whole = 0..into.layout.size;
                let mut seen = HashSet::new();
                let all = from.halves.iter().flat_map(|part| part.iter().enumerate());
                for (thread, half) in all.flat_map(|(t, halves)| halves.iter().map(move |half| (t, half))) {
                    // Where threads share rows, a plane has the same number everywhere.
                    let whose = if into.rows.is_empty() { thread } else { 0 };
                    let first = into.rows.get(thread).unwrap_or(&whole).start;
                    for plane in half.to..half.to + half.planes.len() {
                        for row in half.rows.clone() {
                            let new = seen.insert((whose, plane, first + row));
                            assert!(new, "{threads} threads: {half:?}");
                        }
                    }
                }
                let made = match &from.transition {
                    Some(transition) => transition.places.len(),
                    None => from.places.len(),
                };
                assert_eq!(seen.len(), made * whole.len());
            }
        }
    }
}
