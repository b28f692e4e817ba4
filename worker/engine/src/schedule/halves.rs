//! What becomes of a block's features in the next.

use std::ops::Range;

use crate::place::{Place, share};
use crate::schedule::Block;

/// Some planes of a part of a block that a thread halves.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Half {
    /// The thread whose they are.
    pub from: usize,
    pub planes: Range<usize>,
    /// The number of the first in the next block.
    pub to: usize,
    /// Its rows that they become, counted from the thread's first.
    pub rows: Range<usize>,
}

impl Block {
    /// What each thread halves after each layer for a block of `size`, and of each channel that enters there, whose it is and its number.
    /// `rows`: each thread's rows of that block, if threads share them.
    pub(super) fn leaving(
        &self,
        size: usize,
        rows: Option<&[Range<usize>]>,
        threads: usize,
        entering: &[[usize; 2]],
    ) -> (Vec<Vec<Vec<Half>>>, Vec<[usize; 2]>) {
        if self.rows.is_empty() {
            return self.planes_to_planes(size, threads, entering);
        }
        let parts = self.features[0].iter().map(|floats| floats / self.layout.plane);
        match rows {
            Some(rows) => {
                let mut to = 0;
                let halves = parts.map(|count| {
                    let first = to;
                    to += count;
                    let half = |(from, rows): (usize, &Range<usize>)| {
                        vec![Half { from, planes: 0..count, to: first, rows: 0..rows.len() }]
                    };
                    rows.iter().enumerate().map(half).collect()
                });
                let halves = halves.collect();
                (halves, (0..to).map(|number| [0, number]).collect())
            }
            None => {
                let (mut to, mut entering) = (vec![0; threads], Vec::new());
                let halves = parts.map(|count| {
                    let of = |thread: usize| {
                        let (planes, first) = (share(count, thread, threads), to[thread]);
                        to[thread] += planes.len();
                        entering.extend((first..to[thread]).map(|number| [thread, number]));
                        let half = |(from, rows): (usize, &Range<usize>)| {
                            let rows = rows.start / 2..rows.end / 2;
                            Half { from, planes: planes.clone(), to: first, rows }
                        };
                        self.rows.iter().enumerate().map(half).collect()
                    };
                    (0..threads).map(of).collect()
                });
                let halves = halves.collect();
                (halves, entering)
            }
        }
    }

    /// What a thread made, it also halves, while it is still in the cache: planes keep their numbers.
    fn planes_to_planes(
        &self,
        size: usize,
        threads: usize,
        entering: &[[usize; 2]],
    ) -> (Vec<Vec<Vec<Half>>>, Vec<[usize; 2]>) {
        let half = |(from, planes): (usize, Range<usize>)| {
            vec![Half { from, to: planes.start, planes, rows: 0..size }]
        };
        let halves = |planes: Vec<Range<usize>>| planes.into_iter().enumerate().map(half).collect();
        if let Some(transition) = &self.transition {
            let all = transition.counts.iter().map(|&count| 0..count).collect();
            return (vec![halves(all)], self.numbers(&transition.places));
        }
        let count = |thread: usize| entering.iter().filter(|&&[from, _]| from == thread).count();
        let enter = (0..threads).map(|thread| 0..count(thread)).collect();
        let layers = self.layers.iter().map(|layer| layer.to.clone());
        (std::iter::once(enter).chain(layers).map(halves).collect(), self.numbers(&self.places))
    }

    fn numbers(&self, places: &[Place]) -> Vec<[usize; 2]> {
        let number = |offset: u32| offset as usize / self.layout.plane;
        places.iter().map(|place| [place.part as usize, number(place.offset)]).collect()
    }
}
