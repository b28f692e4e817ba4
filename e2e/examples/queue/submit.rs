//! Submitting with the real `cnx`: from its start to its end, which follows the durable acknowledgement.

use std::fs;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::cnxd::binary;
use crate::figures::{Better, Figures, quantile};
use crate::peers::Pueue;
use crate::{Cnxd, Plan};

/// Submissions of one experiment.
const SINGLES: usize = 50;

const CONFIG: &str = "name = \"tiny\"\n[model]\narch = \"condensenet\"\nstages = \"1-1-1\"\ngrowth = \"4-8-16\"\n\
    [data]\ndataset = \"synthetic\"\n";

pub async fn measure(plan: &Plan, pueue: Option<&Pueue>, sqlite: f64, figures: &mut Figures) {
    let cnxd = Cnxd::start(&plan.folder).await;
    let config = cnxd.state().join("tiny.toml");
    fs::write(&config, CONFIG).expect("written");
    let config = config.display().to_string();
    let mut times: Vec<f64> = (0..SINGLES)
        .map(|seed| {
            cnx_ms(&cnxd, &["submit", "-q", &config, "--set", &format!("train.seed={}", 10_000_000 + seed)])
        })
        .collect();
    let limit = Some(("a commit of SQLite", 1000.0 / sqlite));
    let against = pueue.map(|p| ("Pueue", p.add_ms()));
    let value = quantile(&mut times, 0.5);
    figures.add("submit one, cnx start to end, p50", value, "ms", Better::Lower, against.or(limit));

    for size in [1000, 100_000].into_iter().filter(|size| plan.rows.iter().any(|rows| rows >= size)) {
        let seeds: Vec<String> = (0..size).map(|n| n.to_string()).collect();
        let text = format!(
            "name = \"sweep-{size}\"\nbase = {config:?}\n[grid]\n\"train.seed\" = [{}]\n",
            seeds.join(",")
        );
        let file = cnxd.state().join("sweep.toml");
        fs::write(&file, text).expect("written");
        let value = cnx_ms(&cnxd, &["submit", "-q", "--force", &file.display().to_string()]);
        figures.add(&format!("submit a sweep of {size}, cnx start to end"), value, "ms", Better::Lower, None);
    }
}

fn cnx_ms(cnxd: &Cnxd, args: &[&str]) -> f64 {
    let started = Instant::now();
    let mut command = Command::new(binary("cnx"));
    let output =
        command.arg("--state").arg(cnxd.state()).args(args).stdout(Stdio::null()).output().expect("cnx runs");
    assert!(output.status.success(), "cnx {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    started.elapsed().as_secs_f64() * 1000.0
}
