//! Experiments drawn together into rows: a row a group of those that differ in the seed only.

use std::collections::BTreeMap;

use cnx_proto::Spec;
use cnx_proto::cost::{Cost, cost};
use cnx_proto::v1::{Errors, Figures, ResultRow, State};

/// Mean and sample standard deviation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mean {
    pub mean: f64,
    /// None of fewer than two.
    pub std: Option<f64>,
}

impl Mean {
    /// Of what was measured; none where nothing was.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Mean> {
        let values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|v| (v - mean) * (v - mean)).sum();
        (!values.is_empty())
            .then(|| Mean { mean, std: (values.len() > 1).then(|| (squares / (n - 1.0)).sqrt()) })
    }
}

/// Where the numbers of a row came from; each distinct value once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Provenance {
    pub ids: Vec<u64>,
    pub spec_hashes: Vec<String>,
    pub data_hashes: Vec<String>,
    pub commits: Vec<String>,
    pub cnx_versions: Vec<String>,
    pub libtorch_versions: Vec<String>,
    pub devices: Vec<String>,
    pub hosts: Vec<String>,
    pub threads: Vec<u32>,
    pub attempts: Vec<u32>,
}

/// A row of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Of its first experiment.
    pub spec: Spec,
    pub cost: Cost,
    /// Of the models after the last epoch.
    pub top1: Option<Mean>,
    pub top5: Option<Mean>,
    pub best_top1: Option<Mean>,
    pub converted_top1: Option<Mean>,
    pub converted_top5: Option<Mean>,
    /// Seeds whose experiment succeeded, ascending: what the means are made of.
    pub seeds: Vec<u64>,
    /// Distinct specs that were submitted, and those of them that run and failed.
    pub submitted: usize,
    pub running: usize,
    pub failed: usize,
    pub provenance: Provenance,
}

impl Row {
    /// Measured minus published, in percentage points.
    pub fn delta(&self) -> Option<f64> {
        Some(self.top1?.mean - self.spec.published.top1_error?)
    }
}

/// The rows, ordered by dataset and cost as in the paper's tables, whatever was submitted when; and how many experiments have
/// a spec that cannot be read.
pub fn rows(results: &[ResultRow]) -> (Vec<Row>, usize) {
    let mut groups: BTreeMap<String, Vec<(Spec, &ResultRow)>> = BTreeMap::new();
    let mut unreadable = 0;
    // What was cancelled is not wanted any more: it makes no row, and counts in none.
    for result in results.iter().filter(|r| r.state() != State::Cancelled) {
        match serde_json::from_str::<Spec>(&result.spec_json) {
            // A conversion makes a file, and no figures.
            Ok(spec) if !spec.measures() => {}
            Ok(spec) => groups.entry(spec.group_hash()).or_default().push((spec, result)),
            Err(_) => unreadable += 1,
        }
    }
    let mut rows: Vec<(String, Row)> =
        groups.into_iter().filter_map(|(hash, members)| Some((hash, row(members)?))).collect();
    rows.sort_by(|(a_hash, a), (b_hash, b)| {
        let key =
            |r: &Row, hash: &str| (r.spec.data.dataset, r.cost.flops, r.spec.name.clone(), hash.to_owned());
        key(a, a_hash).cmp(&key(b, b_hash))
    });
    (rows.into_iter().map(|(_, row)| row).collect(), unreadable)
}

/// The row of experiments that differ in nothing but the seed; none of none.
pub fn row(mut members: Vec<(Spec, &ResultRow)>) -> Option<Row> {
    members.sort_by_key(|(_, result)| result.id);
    let spec = members.first()?.0.clone();
    // Of the same seed (a retry, or forced again) the newest that was evaluated counts, else that succeeded, else the newest.
    let rank = |r: &ResultRow| {
        (r.state() == State::Succeeded, r.figures.as_ref().is_some_and(|f| f.r#final.is_some()))
    };
    let mut by_seed: BTreeMap<u64, &ResultRow> = BTreeMap::new();
    for (spec, result) in &members {
        let seen = by_seed.entry(spec.train.seed).or_insert(result);
        if rank(result) >= rank(seen) {
            *seen = result;
        }
    }
    let in_state = |state: State| by_seed.values().filter(|r| r.state() == state).count();
    let succeeded: Vec<(u64, &ResultRow)> =
        by_seed.iter().filter(|(_, r)| r.state() == State::Succeeded).map(|(&seed, &r)| (seed, r)).collect();
    let mean = |which: fn(&Figures) -> Option<&Errors>, error: fn(&Errors) -> f64| {
        Mean::of(succeeded.iter().filter_map(|(_, r)| which(r.figures.as_ref()?).map(error)))
    };
    let (top1, top5) = (|e: &Errors| e.top1_error, |e: &Errors| e.top5_error);
    Some(Row {
        cost: cost(&spec),
        top1: mean(|f| f.r#final.as_ref(), top1),
        top5: mean(|f| f.r#final.as_ref(), top5),
        best_top1: mean(|f| f.best.as_ref(), top1),
        converted_top1: mean(|f| f.converted.as_ref(), top1),
        converted_top5: mean(|f| f.converted.as_ref(), top5),
        seeds: succeeded.iter().map(|(seed, _)| *seed).collect(),
        submitted: by_seed.len(),
        running: in_state(State::Running),
        failed: in_state(State::Failed),
        provenance: provenance(&succeeded),
        spec,
    })
}

fn provenance(succeeded: &[(u64, &ResultRow)]) -> Provenance {
    let mut p = Provenance::default();
    for (_, result) in succeeded {
        p.ids.push(result.id);
        p.attempts.push(result.attempts);
        note(&mut p.spec_hashes, result.spec_hash.clone());
        if let Some(e) = &result.environment {
            note(&mut p.data_hashes, e.data_hash.clone());
            note(&mut p.commits, e.commit.clone());
            note(&mut p.cnx_versions, e.cnx_version.clone());
            note(&mut p.libtorch_versions, e.libtorch_version.clone());
            note(&mut p.devices, e.device.clone());
            note(&mut p.hosts, e.host.clone());
            note(&mut p.threads, e.threads);
        }
    }
    p
}

fn note<T: PartialEq + ToString>(list: &mut Vec<T>, value: T) {
    if !list.contains(&value) && !value.to_string().is_empty() {
        list.push(value);
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use cnx_proto::v1::Environment;
    use proptest::prelude::*;

    /// An experiment of the model called `name`, with `wrong` of 10,000 test images misclassified.
    pub fn result(id: u64, name: &str, stages: &str, seed: u64, wrong: Option<u64>) -> ResultRow {
        let text = format!(
            "name = \"{name}\"\n[model]\narch = \"condensenet\"\nstages = \"{stages}\"\ngrowth = \"8-16-32\"\n\
             [data]\ndataset = \"cifar10\"\n[train]\nseed = {seed}\n[published]\ntop1_error = 6.22\n"
        );
        let spec = cnx_proto::file::parse("test.toml", &text, &[]).unwrap();
        let errors = |wrong: u64| Errors {
            loss: 0.5,
            top1_error: wrong as f64 / 100.0,
            top5_error: wrong as f64 / 1000.0,
            images: 10_000,
        };
        let figures = wrong.map(|wrong| Figures {
            r#final: Some(errors(wrong)),
            best: Some(errors(wrong - 1)),
            best_epoch: 299,
            converted: Some(errors(wrong + 2)),
            latency: None,
        });
        let state = if figures.is_some() { State::Succeeded } else { State::Running };
        let environment = Environment { commit: "abc".into(), device: "cpu".into(), ..Default::default() };
        ResultRow {
            id,
            name: name.into(),
            state: state as i32,
            spec_json: spec.to_json(),
            spec_hash: spec.hash(),
            figures,
            environment: Some(environment),
            attempts: 1,
            epochs_done: 300,
            sweeps: vec!["cifar10".into()],
        }
    }

    /// Three seeds done, two of three done, none.
    pub fn example() -> Vec<ResultRow> {
        vec![
            result(1, "condensenet-50", "8-8-8", 0, Some(622)),
            result(2, "condensenet-50", "8-8-8", 1, Some(631)),
            result(3, "condensenet-50", "8-8-8", 2, Some(640)),
            result(4, "condensenet-74", "12-12-12", 0, Some(530)),
            result(5, "condensenet-74", "12-12-12", 1, None),
            result(6, "condensenet-86", "14-14-14", 0, None),
        ]
    }

    #[test]
    fn seeds_make_a_row_with_mean_and_sample_deviation() {
        let (rows, unreadable) = rows(&example());
        assert_eq!((rows.len(), unreadable), (3, 0));
        let first = rows[0].top1.unwrap();
        assert!((first.mean - 6.31).abs() < 1e-9 && (first.std.unwrap() - 0.09).abs() < 1e-9, "{first:?}");
        assert_eq!(rows[0].seeds, [0, 1, 2]);
        assert_eq!((rows[1].seeds.len(), rows[1].submitted, rows[1].running), (1, 2, 1));
        assert_eq!(rows[1].top1.unwrap().std, None);
        assert!(rows[2].top1.is_none() && rows[2].delta().is_none());
    }

    #[test]
    fn a_repeated_seed_counts_once_the_newest_that_succeeded() {
        let mut failed = result(9, "condensenet-50", "8-8-8", 0, None);
        failed.state = State::Failed as i32;
        let results = [
            result(1, "condensenet-50", "8-8-8", 0, Some(700)),
            result(5, "condensenet-50", "8-8-8", 0, Some(622)),
            failed,
        ];
        let (rows, _) = rows(&results);
        assert_eq!(rows[0].provenance.ids, [5]);
        assert_eq!(rows[0].submitted, 1);
    }

    #[test]
    fn what_was_cancelled_makes_no_row() {
        let mut cancelled = result(2, "condensenet-50", "8-8-8", 1, None);
        cancelled.state = State::Cancelled as i32;
        let mut results = vec![result(1, "condensenet-50", "8-8-8", 0, Some(622)), cancelled];
        assert_eq!(rows(&results).0[0].submitted, 1);
        results.remove(0);
        assert!(rows(&results).0.is_empty());
    }

    #[test]
    fn a_model_that_was_given_has_a_row_of_its_own() {
        use cnx_proto::spec::Step;
        let trained = result(1, "condensenet-50", "8-8-8", 0, Some(622));
        let job = |id: u64, steps: &[Step], model: u32| {
            let spec = Spec::from_json(&trained.spec_json).unwrap();
            let spec = spec.job(steps.to_vec(), "/model".into(), format!("{model:064}"));
            ResultRow { id, spec_json: spec.to_json(), name: spec.name, ..trained.clone() }
        };
        let jobs = [
            job(2, &[Step::Evaluate], 1),
            job(3, &[Step::Evaluate], 2),
            job(4, &[Step::Evaluate], 2),
            job(5, &[Step::Convert], 1),
        ];
        let (rows, _) = rows(&[&[trained.clone()][..], &jobs].concat());
        let found: Vec<_> = rows.iter().map(|r| (r.spec.epochs(), r.provenance.ids.clone())).collect();
        assert_eq!(rows.len(), 3, "the training, and each model once: {found:?}");
        for expected in [(Some(300), vec![1]), (None, vec![2]), (None, vec![4])] {
            assert!(found.contains(&expected), "{expected:?}: {found:?}");
        }
    }

    #[test]
    fn figures_that_were_not_measured_are_none_not_zero() {
        let mut only_final = result(1, "condensenet-50", "8-8-8", 0, Some(622));
        only_final.figures = Some(Figures { converted: None, best: None, ..only_final.figures.unwrap() });
        let (rows, _) = rows(&[only_final]);
        assert!(rows[0].top1.is_some() && rows[0].converted_top1.is_none() && rows[0].best_top1.is_none());
    }

    #[test]
    fn a_spec_that_cannot_be_read_is_counted_not_dropped_in_silence() {
        let mut strange = result(1, "condensenet-50", "8-8-8", 0, Some(622));
        strange.spec_json = "{}".into();
        assert_eq!(rows(&[strange]).1, 1);
    }

    proptest! {
        #[test]
        fn the_order_of_submission_does_not_matter(order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle()) {
            let original = example();
            let shuffled: Vec<ResultRow> =
                order.iter().enumerate().map(|(i, &o)| ResultRow { id: i as u64 + 1, ..original[o].clone() }).collect();
            let csv = |results: &[ResultRow]| super::super::csv::csv(&rows(results).0, false).unwrap();
            prop_assert_eq!(csv(&original), csv(&shuffled));
        }

        #[test]
        fn a_deviation_is_that_of_the_definition(values in proptest::collection::vec(0.0..100.0f64, 2..6)) {
            let m = Mean::of(values.clone()).unwrap();
            let n = values.len() as f64;
            let pairs: f64 = values.iter().flat_map(|a| values.iter().map(move |b| (a - b) * (a - b))).sum();
            prop_assert!((m.std.unwrap().powi(2) - pairs / (2.0 * n * (n - 1.0))).abs() < 1e-6);
        }
    }
}
