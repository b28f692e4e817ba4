//! When learned group convolutions drop inputs, and which (paper, section 3.1): pure, on the host.
//!
//! With condense factor C, training has C − 1 condensing stages in its first half; each drops a C-th of a layer's inputs from
//! every group, so that 1/C of them is left. Everything is computed from integer step counts.

/// The condensing stage (0 … C − 1) in force at `step` (from 0) of `steps`.
pub fn stage(step: u64, steps: u64, condense_factor: u32) -> u32 {
    let last = u64::from(condense_factor.max(1)) - 1;
    let reached = 2 * u128::from(step) * u128::from(last) / u128::from(steps.max(1));
    reached.min(u128::from(last)) as u32
}

/// Inputs that each group of a layer of `in_channels` has dropped at a stage.
pub fn dropped(stage: u32, in_channels: usize, condense_factor: u32) -> usize {
    stage as usize * (in_channels / condense_factor.max(1) as usize)
}

/// Drops, in each group, the inputs of least summed |weight| among those that remain, until `dropped` are gone.
///
/// `weight` and `mask` are [outputs, inputs], row by row; output o belongs to group o mod G. A jump over several
/// stages thus drops what all of them would have dropped, and leaves no mask half done.
pub fn drop_weakest(weight: &[f64], mask: &mut [f64], inputs: usize, groups: usize, dropped: usize) {
    for group in 0..groups {
        let rows = || (group * inputs..weight.len()).step_by(groups * inputs);
        let strength = |input: usize| rows().map(|row| weight[row + input].abs()).sum::<f64>();
        let mut remaining: Vec<(f64, usize)> = (0..inputs)
            .filter(|input| rows().next().is_some_and(|row| mask[row + input] != 0.0))
            .map(|input| (strength(input), input))
            .collect();
        remaining.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let more = dropped.saturating_sub(inputs - remaining.len());
        for &(_, input) in remaining.iter().take(more) {
            rows().for_each(|row| mask[row + input] = 0.0);
        }
    }
}

/// The inputs that each group kept, ascending, or none if the groups do not all keep the same number or rows of a
/// group differ.
pub fn surviving(mask: &[f64], inputs: usize, groups: usize) -> Option<Vec<Vec<usize>>> {
    let row = |output: usize| -> Vec<usize> {
        (0..inputs).filter(|input| mask[output * inputs + input] != 0.0).collect()
    };
    let kept: Vec<Vec<usize>> = (0..groups).map(row).collect();
    let same_count = kept.windows(2).all(|w| w[0].len() == w[1].len());
    let same_rows = (0..mask.len() / inputs.max(1)).all(|output| row(output) == kept[output % groups]);
    (same_count && same_rows).then_some(kept)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_paper_s_300_epochs_condense_at_50_100_and_150() {
        let steps = 300 * 782;
        let stage_at = |epoch: u64| stage(epoch * 782, steps, 4);
        assert_eq!([0, 49, 50, 99, 100, 149, 150, 299].map(stage_at), [0, 0, 1, 1, 2, 2, 3, 3]);
    }

    #[test]
    fn the_weakest_go_first_and_the_gone_stay_gone() {
        // Two groups of one output each over four inputs.
        let mut weight = [4.0, -3.0, 2.0, 1.0, 1.0, 2.0, -3.0, 4.0];
        let mut mask = [1.0; 8];
        drop_weakest(&weight, &mut mask, 4, 2, 1);
        assert_eq!(mask, [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0]);
        weight[3] = 100.0;
        drop_weakest(&weight, &mut mask, 4, 2, 2);
        assert_eq!(mask, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        assert_eq!(surviving(&mask, 4, 2), Some(vec![vec![0, 1], vec![2, 3]]));
    }

    proptest! {
        #[test]
        fn stages_never_fall_and_all_come_in_the_first_half(steps in 1u64..2000, c in 1u32..17) {
            let stages: Vec<u32> = (0..steps).map(|step| stage(step, steps, c)).collect();
            prop_assert!(stages.windows(2).all(|w| w[0] <= w[1]));
            prop_assert_eq!(stages[0], 0);
            prop_assert!(stages.iter().skip(steps.div_ceil(2) as usize).all(|&s| s == c - 1));
        }

        #[test]
        fn a_jump_drops_as_many_as_single_stages(
            weight in prop::collection::vec(-1.0..1.0, 8 * 12), c in prop::sample::select(vec![2u32, 3, 4, 6]),
            groups in prop::sample::select(vec![1usize, 2, 4, 8]),
        ) {
            let (mut slow, mut fast) = (vec![1.0; weight.len()], vec![1.0; weight.len()]);
            for stage in 0..c {
                drop_weakest(&weight, &mut slow, 12, groups, dropped(stage, 12, c));
            }
            drop_weakest(&weight, &mut fast, 12, groups, dropped(c - 1, 12, c));
            prop_assert_eq!(&slow, &fast);
            let kept = surviving(&fast, 12, groups).unwrap();
            prop_assert!(kept.iter().all(|inputs| inputs.len() == 12 / c as usize));
        }
    }
}
