//! The learning rate of a step: pure.

use cnx_proto::spec::{Schedule, Train};

/// The learning rate of `step` (from 0) in a training of `steps` steps, an epoch being `steps_per_epoch` of them.
pub fn learning_rate(train: &Train, step: u64, steps_per_epoch: u64) -> f64 {
    let epoch = step / steps_per_epoch.max(1);
    let epochs = u64::from(train.epochs);
    let steps = epochs * steps_per_epoch;
    match train.schedule {
        Schedule::Cosine => {
            let progress = step as f64 / steps.max(1) as f64;
            0.5 * train.lr * (1.0 + (std::f64::consts::PI * progress).cos())
        }
        // Compared as integers: 0.75 of the epochs need not be a whole number.
        Schedule::Multistep if 4 * epoch >= 3 * epochs => train.lr * 0.01,
        Schedule::Multistep if 2 * epoch >= epochs => train.lr * 0.1,
        Schedule::Multistep => train.lr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cnx_proto::recipe::recipe;
    use cnx_proto::spec::{Arch, Dataset};
    use proptest::prelude::*;

    fn train(schedule: Schedule, epochs: u32) -> Train {
        Train { schedule, epochs, ..recipe(Arch::CondenseNet, Dataset::Cifar10).train }
    }

    #[test]
    fn multistep_falls_at_half_and_three_quarters_of_the_epochs() {
        let train = train(Schedule::Multistep, 4);
        let rates: Vec<f64> = (0..8).map(|step| learning_rate(&train, step, 2)).collect();
        assert_eq!(rates, [0.1, 0.1, 0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1, 0.1 * 0.01, 0.1 * 0.01]);
    }

    proptest! {
        #[test]
        fn cosine_starts_at_lr_falls_every_step_and_ends_above_0(epochs in 1u32..50, per_epoch in 1u64..50) {
            let train = train(Schedule::Cosine, epochs);
            let rates: Vec<f64> =
                (0..u64::from(epochs) * per_epoch).map(|step| learning_rate(&train, step, per_epoch)).collect();
            prop_assert_eq!(rates[0], train.lr);
            prop_assert!(rates.windows(2).all(|w| w[1] < w[0]));
            prop_assert!(rates.iter().all(|&rate| rate > 0.0));
        }
    }
}
