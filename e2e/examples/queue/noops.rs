//! Experiments that do nothing: how many a second are leased, reported started, ended and acknowledged; and how long a
//! queued one waits for an idle worker to hear of it.

use std::time::Instant;

use crate::agents::{Agents, News, Work};
use crate::cnxd::request;
use crate::figures::{Better, Figures, quantile};
use crate::peers::Pueue;
use crate::{Cnxd, Plan};

/// Experiments submitted one by one to idle workers.
const SINGLES: usize = 500;

pub async fn measure(plan: &Plan, pueue: Option<&Pueue>, sqlite: f64, figures: &mut Figures) {
    let cnxd = Cnxd::start(&plan.folder).await;
    let mut agents = Agents::connect(&cnxd, "agent", plan.workers, Work::Noop).await;
    let of = format!("over {} connected workers", plan.workers);

    let waits = waits(&cnxd, &mut agents).await;
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let value = quantile(&mut waits.clone(), share);
        let aim = (share > 0.9).then_some(("aim", 10.0));
        figures.add(
            &format!("submit to assignment at an idle worker, {name}"),
            value,
            "ms",
            Better::Lower,
            aim,
        );
    }

    // Queued in requests, as sweeps are; the clock runs from the first assignment to the last acknowledgement.
    cnxd.submit(SINGLES, plan.noops).await;
    let (assigned, done) = agents.done(plan.noops).await;
    let (first, last) = (assigned.iter().min().unwrap(), done.iter().max().unwrap());
    let rate = plan.noops as f64 / (*last - *first).as_secs_f64();
    let metric = format!("no-op experiments, {of}");
    let against = pueue.map(|p| ("Pueue", p.noops_per_s()));
    figures.add(&metric, rate, "1/s", Better::Higher, against.or(Some(("aim", 5000.0))));
    let limit = Some(("SQLite, single commits", sqlite));
    figures.add("the same, beside what one commit each would allow", rate, "1/s", Better::Higher, limit);
    let (resident, _) = cnxd.resident_mib();
    figures.add(&format!("resident memory, {of}"), resident, "MiB", Better::Lower, Some(("aim", 200.0)));
    agents.leave().await;
}

/// From the call that submits one to its assignment at a worker, in ms.
async fn waits(cnxd: &Cnxd, agents: &mut Agents) -> Vec<f64> {
    let mut people = cnxd.people().await;
    let mut waits = Vec::with_capacity(SINGLES);
    for seed in 0..SINGLES {
        let called = Instant::now();
        people.submit(request(seed..seed + 1)).await.expect("queued");
        while let News::Assigned(at) = agents.news.recv().await.expect("workers are connected") {
            waits.push((at - called).as_secs_f64() * 1000.0);
        }
    }
    waits
}
