//! The same questions at ever more rows: what is flat stays so, what is not shows.

use std::time::Instant;

use cnx_proto::v1::{ResultsRequest, StatusRequest};

use crate::agents::{Agents, News, Work};
use crate::figures::{Better, Figures, quantile};
use crate::{Cnxd, Plan};

/// How often each question is asked.
const ASKED: usize = 100;

/// Experiments that one worker runs, one after the other.
const LEASED: usize = 300;

/// Milliseconds at one depth.
struct Answers {
    status: f64,
    results: f64,
    lease: f64,
    start: f64,
}

pub async fn measure(plan: &Plan, figures: &mut Figures) {
    let mut cnxd = Cnxd::start(&plan.folder).await;
    let mut first: Option<(usize, Answers)> = None;
    let mut queued = 0;
    for &rows in &plan.rows {
        let started = Instant::now();
        cnxd.submit(queued, rows - queued).await;
        let rate = (rows - queued) as f64 / started.elapsed().as_secs_f64();
        figures.add(
            &format!("experiments queued up to {rows}, in requests of 10,000"),
            rate,
            "1/s",
            Better::Higher,
            None,
        );
        queued = rows;
        let (_, highest) = cnxd.resident_mib();
        let answers = ask(&mut cnxd).await;
        let at = |what: &str| format!("{what}, {rows} rows");
        let then = first.as_ref().map(|(rows, answers)| (format!("{rows} rows"), answers));
        for (what, of) in [
            ("status of the newest 50, p50", (|a| a.status) as fn(&Answers) -> f64),
            ("results of one experiment, p50", |a| a.results),
            ("end of one to assignment of the next, one worker, p50", |a| a.lease),
            ("start after a kill, to the first answer", |a| a.start),
        ] {
            let peer = then.as_ref().map(|(name, answers)| (name.as_str(), of(answers)));
            figures.add(&at(what), of(&answers), "ms", Better::Lower, peer);
        }
        let (resident, _) = cnxd.resident_mib();
        let aim = Some(("aim", 200.0));
        figures.add(
            &at("resident memory at its highest while they were queued"),
            highest,
            "MiB",
            Better::Lower,
            aim,
        );
        figures.add(&at("resident memory after that start"), resident, "MiB", Better::Lower, aim);
        first.get_or_insert((rows, answers));
    }
}

async fn ask(cnxd: &mut Cnxd) -> Answers {
    let mut people = cnxd.people().await;
    let newest = StatusRequest { limit: 50, ..StatusRequest::default() };
    let last = ResultsRequest { selectors: vec!["last".to_owned()], ..Default::default() };
    let (mut status, mut results) = (Vec::new(), Vec::new());
    for _ in 0..ASKED {
        let started = Instant::now();
        people.status(newest.clone()).await.expect("a status");
        status.push(started.elapsed().as_secs_f64() * 1000.0);
        let started = Instant::now();
        people.results(last.clone()).await.expect("results");
        results.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    let lease = quantile(&mut next_assignments(cnxd).await, 0.5);
    cnxd.restart().await;
    let start = cnxd.started_in.as_secs_f64() * 1000.0;
    Answers { status: quantile(&mut status, 0.5), results: quantile(&mut results, 0.5), lease, start }
}

/// How long a worker waits for its next experiment, from the one before, in ms.
async fn next_assignments(cnxd: &Cnxd) -> Vec<f64> {
    let mut agents = Agents::connect(cnxd, "single", 1, Work::Noop).await;
    let mut waits = Vec::new();
    let mut before: Option<Instant> = None;
    while waits.len() < LEASED {
        if let News::Assigned(at) = agents.news.recv().await.expect("the worker is connected") {
            waits.extend(before.map(|before| (at - before).as_secs_f64() * 1000.0));
            before = Some(at);
        }
    }
    agents.leave().await;
    waits
}
