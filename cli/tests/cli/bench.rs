//! `cnx bench latency`, with the real native engine and a played worker.

use serde_json::Value;

use crate::{cnx, run, script};

/// What a worker tells of each network.
const TOLD: &str = r#"{"threads": 1, "runs": 9, "median_s": 0.05, "tenth_s": 0.04, "ninetieth_s": 0.06,
    "peak_memory_bytes": 123000000, "multiply_adds_per_s": 1e11}"#;

#[test]
fn the_native_rows_are_timed_here() {
    let said = run(&mut cnx(&["bench", "latency", "--engine", "native", "--threads", "1", "--json"]));
    assert_eq!(said.code, 0, "{}", said.err);
    let told: Value = serde_json::from_str(&said.out).unwrap();
    let rows = told["rows"].as_array().unwrap();
    let models: Vec<&str> = rows.iter().map(|row| row["model"].as_str().unwrap()).collect();
    assert_eq!(models, ["CondenseNet-74 (C=G=4)", "CondenseNet-74 (C=G=8)"]);
    for row in rows {
        assert_eq!((&row["engine"], &row["threads"]), (&"native".into(), &1.into()));
        let number = |key: &str| row[key].as_f64().unwrap();
        assert!(0.0 < number("tenth_s") && number("tenth_s") <= number("median_s"), "{row}");
        assert!(number("runs") > 1.0 && (0.0..1.5).contains(&number("share_of_peak")), "{row}");
    }
}

#[test]
fn libtorchs_rows_come_from_the_worker_one_by_one() {
    let folder = tempfile::tempdir().unwrap();
    let (worker, given) = (folder.path().join("worker"), folder.path().join("given"));
    script(&worker, &format!("echo \"$@\" >> {0}; cat >> {0}; echo >> {0}; echo '{TOLD}'", given.display()));
    let bench = |form: &[&str]| {
        let arguments = [&["bench", "latency", "--engine", "libtorch", "--threads", "2"], form].concat();
        run(cnx(&arguments).env("CNX_WORKER", &worker))
    };
    let said = bench(&["--csv"]);
    assert_eq!(said.code, 0, "{}", said.err);
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(
        lines[0]
            .starts_with("model,flops,published_flops,published_top1_error,time_s,published_time_s,engine,")
    );
    assert_eq!(lines.len(), 6, "{}", said.out);
    assert!(
        lines[1]
            .starts_with("VGG-16,15346630656,15300000000,28.5,0.05,354,libtorch,1,9,0.04,0.06,123000000,")
    );
    assert!(lines[3].starts_with("1.0 MobileNet-224,"), "{}", said.out);

    let given = std::fs::read_to_string(given).unwrap();
    let asked: Vec<&str> = given.lines().collect();
    assert_eq!((asked.len(), asked[0]), (10, "latency --spec -"));
    let spec = cnx_proto::Spec::from_json(asked[9]).unwrap();
    assert!(spec.times() && spec.resources.threads == 2 && spec.model.condense_factor == 8);

    let said = bench(&[]);
    assert_eq!(said.code, 0, "{}", said.err);
    // 262 million multiply-adds in 50 ms, of a hundred thousand million a second.
    let row = said.out.lines().find(|line| line.contains("C=G=8")).unwrap();
    let cells: Vec<&str> = row.split_whitespace().skip(2).collect();
    assert_eq!(
        cells,
        ["274.2M", "29.00", "libtorch", "50.0", "40.0", "to", "60.0", "123.0", "MB", "5", "%", "0.99"]
    );
}

#[test]
fn a_worker_that_is_missing_or_fails_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let worker = folder.path().join("worker");
    let said = run(cnx(&["bench", "latency"]).env("CNX_WORKER", &worker));
    assert!(said.code == 2 && said.err.contains("`--engine native` leaves them out"), "{}", said.err);
    for (does, expected) in [("exit 3", "ended with exit status: 3"), ("echo '{}'", "told no figures")] {
        script(&worker, does);
        let said = run(cnx(&["bench", "latency", "--engine", "libtorch"]).env("CNX_WORKER", &worker));
        assert!(said.code == 1 && said.err.contains(expected) && said.err.contains("vgg-16"), "{}", said.err);
    }
}
