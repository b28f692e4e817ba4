//! Experiments and the published tables that they fill in.

use cnx_proto::file::{Override, parse};
use cnx_proto::spec::Engine;
use cnx_proto::v1::{Errors, Figures, Latency, ResultRow, State};
use proptest::prelude::*;

use super::matching::{Filled, fill};
use super::tables::{Name, table};
use super::{fields, text};
use crate::verbs::results::rows::tests::example;

const CONFIG_86: &str = include_str!("../../../../../configs/condensenet-86.toml");
const CONFIG_G8: &str = include_str!("../../../../../configs/imagenet/condensenet-74-g8.toml");

/// A finished experiment of that config with something set over it; `errors` are the top-1 error and a tenth of it.
fn done(id: u64, config: &str, set: &[&str], error: f64) -> ResultRow {
    let set: Vec<Override> = set.iter().map(|text| text.parse().unwrap()).collect();
    let spec = parse("test.toml", config, &set).unwrap();
    let errors = |e: f64| Errors { loss: 0.5, top1_error: e, top5_error: e / 10.0, images: 10_000 };
    ResultRow {
        id,
        name: spec.name.clone(),
        state: State::Succeeded as i32,
        spec_json: spec.to_json(),
        spec_hash: spec.hash(),
        figures: Some(Figures {
            r#final: Some(errors(error)),
            converted: Some(errors(error + 0.02)),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn filled(name: Name, results: &[ResultRow]) -> Filled {
    fill(table(name).unwrap(), results)
}

/// The experiments behind each measured figure: (line, place, IDs).
fn counted(filled: &Filled) -> Vec<(&'static str, usize, Vec<u64>)> {
    let lines = filled.table.lines.iter().zip(&filled.measured);
    let cells = lines.flat_map(|(line, rows)| rows.iter().enumerate().map(|(p, row)| (line.label, p, row)));
    cells.filter_map(|(label, p, row)| Some((label, p, row.as_ref()?.provenance.ids.clone()))).collect()
}

#[test]
fn what_an_experiment_does_decides_not_its_name_nor_where_its_data_lie() {
    let results = [
        done(
            1,
            CONFIG_86,
            &["name=mine", "data.root=/elsewhere", "data.workers=7", "resources.threads=3"],
            5.0,
        ),
        done(2, CONFIG_86, &["train.seed=8", r#"run.steps=["train","evaluate"]"#], 5.2),
        done(3, CONFIG_86, &["name=other", "data.dataset=cifar100"], 24.0),
    ];
    let filled = filled(Name::Cifar, &results);
    assert_eq!(counted(&filled), [("CondenseNet-86", 0, vec![1, 2]), ("CondenseNet-86", 1, vec![3])]);
    assert!(filled.near_misses.is_empty());
}

#[test]
fn what_was_done_otherwise_is_named_and_not_counted() {
    let results = [
        done(4, CONFIG_86, &["train.epochs=10"], 9.0),
        done(5, CONFIG_86, &["train.epochs=10", "train.seed=1"], 9.0),
        done(6, CONFIG_86, &["train.precision=float64", "data.train_images=5000"], 9.0),
        done(7, CONFIG_86, &["model.stages=2-2-2"], 9.0),
        ResultRow { state: State::Running as i32, ..done(8, CONFIG_86, &["train.batch_size=32"], 9.0) },
    ];
    let filled = filled(Name::Cifar, &results);
    assert_eq!(counted(&filled), []);
    let said: Vec<String> = filled.near_misses.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "Not counted: 4, 5 (CondenseNet-86 on cifar10): train.epochs 10 (expected 300).",
            "Not counted: 6 (CondenseNet-86 on cifar10): data.train_images 5000 (expected unset), \
             train.precision float64 (expected float32).",
        ]
    );
}

#[test]
fn a_model_that_was_given_is_evaluated_but_no_training_as_published() {
    let job = |id: u64, step: &str| {
        let steps = format!("run.steps=[\"{step}\"]");
        let hash = format!("run.from_sha256={}", "ab".repeat(32));
        done(id, CONFIG_86, &[&steps, "run.from=/models/mine.safetensors", &hash], 5.0)
    };
    let filled = filled(Name::Cifar, &[job(3, "evaluate"), job(4, "convert")]);
    assert_eq!(counted(&filled), []);
    let said: Vec<String> = filled.near_misses.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["Not counted: 3 (CondenseNet-86 on cifar10): run.from a file (expected unset)."]);
}

#[test]
fn rows_of_one_network_are_told_apart_by_what_they_differ_in() {
    let results = [
        done(1, CONFIG_G8, &[], 29.4),
        done(2, CONFIG_G8, &["model.condense_factor=4", "model.group_1x1=4"], 27.0),
    ];
    let filled = filled(Name::Imagenet, &results);
    assert_eq!(counted(&filled), [("CondenseNet-74 (C=G=8)", 0, vec![1])]);
    // Nearer to C = G = 4, from which it differs in one key.
    assert_eq!(
        filled.near_misses[0].to_string(),
        "Not counted: 2 (CondenseNet-74 (C=G=4) on imagenet): model.group_3x3 8 (expected 4)."
    );
}

#[test]
fn an_experiment_that_was_evaluated_counts_before_a_newer_one_that_was_not() {
    let mut only_trained = done(9, CONFIG_86, &[r#"run.steps=["train"]"#], 1.0);
    only_trained.figures = Some(Figures::default());
    assert_eq!(
        counted(&filled(Name::Cifar, &[done(1, CONFIG_86, &[], 5.0), only_trained])),
        [("CondenseNet-86", 0, vec![1])]
    );
}

#[test]
fn cancelled_experiments_stand_nowhere_and_unreadable_ones_are_counted() {
    let cancelled =
        ResultRow { state: State::Cancelled as i32, ..done(1, CONFIG_86, &["train.epochs=10"], 5.0) };
    let unreadable = ResultRow { spec_json: "{}".into(), ..done(2, CONFIG_86, &[], 5.0) };
    let filled = filled(Name::Cifar, &[cancelled, unreadable]);
    assert_eq!((counted(&filled), filled.near_misses.len(), filled.unreadable), (vec![], 0, 1));
}

#[test]
fn people_see_the_papers_rows_with_measured_beside_published() {
    let mut results = example();
    results.push(done(7, CONFIG_86, &["data.dataset=cifar100"], 23.5));
    results.push(done(8, CONFIG_86, &["train.epochs=10"], 9.0));
    let text = text::people(&filled(Name::Cifar, &results), false, None);
    assert_eq!(
        anstream::adapter::strip_str(&text).to_string(),
        "\
CondenseNet on CIFAR, top-1 error %   (mean ± deviation over n seeds)

  Model             FLOPs  Params  CIFAR-10     paper      Δ    n  converted    CIFAR-100  paper      Δ  n  converted
  CondenseNet-50    28.6M   0.22M  6.31 ± 0.09   6.22  +0.09    3  6.33 ± 0.09  –
  CondenseNet-74    51.9M   0.41M  5.30          5.28  +0.02  1/2  5.32         –
  CondenseNet-86    65.8M   0.52M  running       5.06         0/1               23.50      23.64  -0.14  1  23.52
  CondenseNet-98    81.3M   0.65M  –             4.83                           –
  CondenseNet-110   98.2M   0.79M  –             4.63                           –
  CondenseNet-122  116.7M   0.95M  –             4.48                           –
  CondenseNet-182  512.7M   4.22M  –             3.76                           –          18.47

  – was not measured; Δ is the error after the last epoch − the paper's.
  FLOPs and Params are those before conversion, with the classifier of CIFAR-10.
  CondenseNet-182 trains for 600 epochs, the others for 300.
  Not counted: 8 (CondenseNet-86 on cifar10): train.epochs 10 (expected 300).
"
    );
}

#[test]
fn a_terminal_of_80_columns_keeps_the_errors_whole() {
    let mut results = example();
    results.push(done(7, CONFIG_86, &["data.dataset=cifar100"], 23.5));
    results.push(done(8, CONFIG_86, &["data.dataset=cifar100", "train.seed=1"], 23.7));
    results.push(done(9, CONFIG_G8, &[], 29.4));
    let narrow = |name: Name| {
        let text = text::people(&filled(name, &results), false, Some(80));
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80) && !text.contains('…'), "{text}");
        text
    };
    let cifar = narrow(Name::Cifar);
    for whole in ["CondenseNet-182 ", "28.6M", "6.31 ± 0.09", "23.60 ± 0.14", "+0.09"] {
        assert!(cifar.contains(whole), "{whole}: {cifar}");
    }
    assert!(narrow(Name::Imagenet).contains("CondenseNet-74 (C=G=8)  274.2M"));
    assert!(narrow(Name::Inference).contains("VGG-16                  15346.6M"));
}

#[test]
fn the_csv_has_a_line_a_row_of_the_paper_and_its_columns_are_fixed() {
    let csv = |results: &[ResultRow]| {
        String::from_utf8(fields::csv(&filled(Name::Cifar, results), false).unwrap()).unwrap()
    };
    let text = csv(&example());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(
        lines[0],
        "model,flops,published_flops,params,published_params,cifar10_top1_error,cifar10_top1_error_std,\
         cifar10_published_top1_error,cifar10_top1_delta_to_published,cifar10_converted_top1_error,\
         cifar10_converted_top1_error_std,cifar10_seeds,cifar10_n,cifar100_top1_error,cifar100_top1_error_std,\
         cifar100_published_top1_error,cifar100_top1_delta_to_published,cifar100_converted_top1_error,\
         cifar100_converted_top1_error_std,cifar100_seeds,cifar100_n"
    );
    let costs = "CondenseNet-50,28641834,28600000,216506,220000";
    assert_eq!(lines[1], format!("{costs},6.31,0.09,6.22,0.09,6.33,0.09,0 1 2,3,,,,,,,,0"));
    assert_eq!(lines[7], "CondenseNet-182,512671594,513000000,4221946,4200000,,,3.76,,,,,0,,,18.47,,,,,0");
    assert_eq!(csv(&[]).lines().next(), Some(lines[0]));
}

#[test]
fn json_has_the_columns_of_the_csv_and_null_for_what_is_missing() {
    let rows = fields::json(&filled(Name::Imagenet, &[done(1, CONFIG_G8, &[], 29.4)]), false);
    assert_eq!(rows[0]["top1_error"], serde_json::Value::Null);
    assert_eq!((&rows[1]["top5_error"], &rows[1]["published_top5_error"]), (&2.94.into(), &10.0.into()));
    assert_eq!((&rows[1]["top1_delta_to_published"], &rows[1]["n"]), (&0.4.into(), &1.into()));
}

#[test]
fn markdown_is_a_table_with_its_notes_below() {
    let text = text::markdown(&filled(Name::Imagenet, &[done(1, CONFIG_G8, &[], 29.4)]), true);
    let expected = "| CondenseNet-74 (C=G=8) | 274.2M | 2.94M | 29.40 | 29.00 | +0.40 | 1 | 29.42 | 2.94 | 10.00 | -7.06 | 1 | 2.94 |";
    assert_eq!(text.lines().nth(3), Some(expected));
    assert!(text.lines().take(4).all(|line| line.matches('|').count() == 14), "{text}");
    assert!(text.contains("```\n  CondenseNet-74 (C=G=8) on imagenet\n    group_hash "), "{text}");
}

#[test]
fn provenance_adds_columns_to_each_place() {
    let bytes = fields::csv(&filled(Name::Cifar, &example()), true).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let header = text.lines().next().unwrap();
    assert!(
        header.contains(",cifar10_n,cifar10_group_hash,") && header.ends_with(",cifar100_attempts"),
        "{header}"
    );
    assert!(text.lines().nth(1).unwrap().contains(",1 2 3,1 1 1,"), "{text}");
}

#[test]
fn the_table_of_inference_has_times_and_no_parameters() {
    let filled = filled(Name::Inference, &[done(1, CONFIG_G8, &[], 29.4)]);
    let text = anstream::adapter::strip_str(&text::people(&filled, false, None)).to_string();
    let expected = "
  Model                      FLOPs  Top-1  paper      Δ  n  converted  Time(s)  paper
  VGG-16                  15346.6M  –      28.50                       –          354
  ResNet-18                1818.2M  –      30.20                       –         8.14
  1.0 MobileNet-224         568.7M  –      29.40                       –         1.96
  CondenseNet-74 (C=G=4)    529.3M  –      26.20                       –         1.89
  CondenseNet-74 (C=G=8)    274.2M  29.40  29.00  +0.40  1  29.42      –         0.99
";
    assert!(text.contains(expected), "{text}");
    let csv = String::from_utf8(fields::csv(&filled, false).unwrap()).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert!(
        lines[0].starts_with("model,flops,published_flops,top1_error,")
            && lines[0].ends_with(",time_s,published_time_s")
    );
    assert_eq!(lines[1], "VGG-16,15346630656,15300000000,,,28.50,,,,,0,,354");
    assert_eq!(lines[5], "CondenseNet-74 (C=G=8),274233480,274000000,29.40,,29.00,0.40,29.42,,0,1,,0.99");
}

proptest! {
    /// Whatever is submitted in whatever order, the same experiments make the same table.
    #[test]
    fn the_order_of_submission_does_not_matter(order in Just((0..6).collect::<Vec<usize>>()).prop_shuffle()) {
        let original = example();
        let shuffled: Vec<ResultRow> =
            order.iter().enumerate().map(|(i, &o)| ResultRow { id: i as u64 + 1, ..original[o].clone() }).collect();
        let csv = |results: &[ResultRow]| fields::csv(&filled(Name::Cifar, results), false).unwrap();
        prop_assert_eq!(csv(&original), csv(&shuffled));
    }

    /// An experiment that differs in anything that decides its figures is in no mean.
    #[test]
    fn only_what_was_published_is_averaged(epochs in 1u32..1000, batch in 1u32..512, lr in 0.001f64..1.0) {
        let set = [format!("train.epochs={epochs}"), format!("train.batch_size={batch}"), format!("train.lr={lr}")];
        let result = done(1, CONFIG_86, &set.each_ref().map(String::as_str), 5.0);
        let filled = filled(Name::Cifar, &[result]);
        let as_published = epochs == 300 && batch == 64 && lr == 0.1;
        prop_assert_eq!(counted(&filled).len(), usize::from(as_published));
        prop_assert_eq!(filled.near_misses.len(), usize::from(!as_published));
    }
}

/// A finished job that timed that config's network.
fn timed(id: u64, config: &str, engine: Engine, seconds: f64) -> ResultRow {
    let spec = parse("test.toml", config, &[]).unwrap().latency_job(engine, 1);
    let latency = Some(Latency { median_s: seconds, ..Latency::default() });
    ResultRow {
        spec_json: spec.to_json(),
        figures: Some(Figures { latency, ..Figures::default() }),
        ..done(id, config, &[], 0.0)
    }
}

#[test]
fn times_are_those_of_the_newest_job_on_the_faster_engine() {
    let results = [
        timed(4, CONFIG_G8, Engine::Native, 0.005),
        timed(3, CONFIG_G8, Engine::Native, 0.001),
        timed(5, CONFIG_G8, Engine::Libtorch, 0.04),
        timed(6, CONFIG_86, Engine::Native, 0.002),
        timed(7, CONFIG_G8, Engine::Native, f64::NAN),
    ];
    let filled = filled(Name::Inference, &results);
    assert_eq!(filled.times, [None, None, None, None, Some(0.005)]);
    assert!(filled.near_misses.is_empty() && counted(&filled).is_empty());
    let text = anstream::adapter::strip_str(&text::people(&filled, false, None)).to_string();
    assert!(text.lines().any(|line| line.contains("(C=G=8)") && line.contains("  0.0050  ")), "{text}");
    let csv = String::from_utf8(fields::csv(&filled, false).unwrap()).unwrap();
    assert!(csv.lines().last().unwrap().ends_with(",0.005,0.99"), "{csv}");
}
