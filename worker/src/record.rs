//! What a checkpoint knows besides tensors: where the training is, and its figures so far, to the bit.

use cnx_proto::v1::{EpochMetrics, Errors};
use prost::Message;

/// The tensors' companion. Random numbers have no state, so nothing of them is here.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// Epochs done.
    #[prost(uint32, tag = "1")]
    pub epochs_done: u32,
    /// Their figures.
    #[prost(message, repeated, tag = "2")]
    pub history: Vec<EpochMetrics>,
    /// The best epoch so far; 0: none yet.
    #[prost(uint32, tag = "3")]
    pub best_epoch: u32,
    /// Its errors on the test images.
    #[prost(message, optional, tag = "4")]
    pub best: Option<Errors>,
    /// The epoch after those; none: it has not begun.
    #[prost(message, optional, tag = "5")]
    pub under_way: Option<UnderWay>,
}

/// Sums over the steps of an epoch that is not done. All its steps may be: then only its evaluation is missing.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct UnderWay {
    /// Steps done.
    #[prost(uint64, tag = "1")]
    pub steps: u64,
    /// Images that they saw.
    #[prost(uint64, tag = "2")]
    pub images: u64,
    /// Σ of their cross-entropies, image by image.
    #[prost(double, tag = "3")]
    pub loss: f64,
    /// Images whose class was right.
    #[prost(double, tag = "4")]
    pub right: f64,
    /// Σ of the steps' group lasso, before λ.
    #[prost(double, tag = "5")]
    pub lasso: f64,
    /// Seconds that they took, in all attempts.
    #[prost(double, tag = "6")]
    pub train_wall_s: f64,
}

/// How far a training has come; what is further is greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Epochs done.
    pub epochs_done: u32,
    /// Steps of the next one done; 0: it has not begun.
    pub steps: u64,
}

impl Record {
    /// Where the training is.
    pub fn position(&self) -> Position {
        let steps = self.under_way.as_ref().map_or(0, |under_way| under_way.steps);
        Position { epochs_done: self.epochs_done, steps }
    }

    /// Notes an epoch; true if it is the best so far.
    pub fn add(&mut self, metrics: EpochMetrics, errors: Errors) -> bool {
        self.epochs_done = metrics.epoch;
        self.under_way = None;
        self.history.push(metrics);
        let better = self.best.as_ref().is_none_or(|best| errors.top1_error < best.top1_error);
        if better {
            (self.best_epoch, self.best) = (metrics.epoch, Some(errors));
        }
        better
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_further_is_greater() {
        let at = |epochs_done, steps| Position { epochs_done, steps };
        let ascending = [at(0, 0), at(0, 1), at(0, 782), at(1, 0), at(1, 9), at(1, 10)];
        assert!(ascending.is_sorted());
    }

    #[test]
    fn a_record_written_before_epochs_could_be_under_way_is_read() {
        #[derive(Clone, PartialEq, Message)]
        struct Old {
            #[prost(uint32, tag = "1")]
            epochs_done: u32,
            #[prost(message, repeated, tag = "2")]
            history: Vec<EpochMetrics>,
        }
        let history = vec![EpochMetrics { epoch: 1, ..EpochMetrics::default() }];
        let old = Old { epochs_done: 1, history: history.clone() };
        let read = Record::decode(old.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read, Record { epochs_done: 1, history, ..Record::default() });
        assert_eq!(read.encode_to_vec(), old.encode_to_vec());
    }
}
