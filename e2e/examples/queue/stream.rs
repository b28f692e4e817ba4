//! Workers that report ten times a second, and people who watch meanwhile.

use std::time::{Duration, Instant};

use cnx_proto::v1::StatusRequest;

use crate::agents::{Agents, News, Work, began};
use crate::figures::{Better, Figures, quantile};
use crate::{Cnxd, Plan};

/// How long each kind of report is measured.
const LASTS: Duration = Duration::from_secs(10);

/// Experiments that are watched: what `cnx status` shows.
const SHOWN: u32 = 50;

pub async fn measure(plan: &Plan, figures: &mut Figures) {
    for (work, what) in
        [(Work::Progress, "progress in memory"), (Work::Metrics, "epochs, each durable and acknowledged")]
    {
        one(plan, work, what, figures).await;
    }
}

async fn one(plan: &Plan, work: Work, what: &str, figures: &mut Figures) {
    let cnxd = Cnxd::start(&plan.folder).await;
    cnxd.submit(0, plan.workers).await;
    began();
    let mut agents = Agents::connect(&cnxd, "stream", plan.workers, work).await;
    let mut running = 0;
    while running < plan.workers {
        let news = agents.news.recv().await.expect("workers are connected");
        running += usize::from(matches!(news, News::Assigned(_)));
    }
    let watcher = tokio::spawn(watch(cnxd.people().await));
    let asker = tokio::spawn(ask(cnxd.people().await));
    // What was said while the last of them connected is not counted.
    while agents.news.try_recv().is_ok() {}
    let (started, cpu_before) = (Instant::now(), cnxd.cpu_s());
    let (mut reports, mut waits) = (0, Vec::new());
    let until = tokio::time::sleep(LASTS);
    tokio::pin!(until);
    loop {
        tokio::select! {
            () = &mut until => break,
            news = agents.news.recv() => match news.expect("workers are connected") {
                News::Sent => reports += 1,
                News::Acknowledged(after) => {
                    reports += 1;
                    waits.push(after.as_secs_f64() * 1000.0);
                }
                News::Assigned(_) | News::Done(_) => {}
            },
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let cores = (cnxd.cpu_s() - cpu_before) / seconds;
    let name = format!("{} workers report ten times a second: {what}", plan.workers);
    let offered = Some(("sent at that pace", plan.workers as f64 * 10.0));
    figures.add(&name, f64::from(reports) / seconds, "1/s", Better::Higher, offered);
    figures.add("  cores that cnxd takes for it", cores, "", Better::Lower, None);
    if !waits.is_empty() {
        figures.add("  until acknowledged, p99", quantile(&mut waits, 0.99), "ms", Better::Lower, None);
    }
    let (mut gaps, mut ages) = watcher.await.expect("the watcher ends");
    figures.add(
        "  between two updates of status --watch, p99",
        quantile(&mut gaps, 0.99),
        "ms",
        Better::Lower,
        Some(("aim", 1000.0)),
    );
    if !ages.is_empty() {
        figures.add(
            "  age of the progress that it shows, p99",
            quantile(&mut ages, 0.99),
            "ms",
            Better::Lower,
            Some(("aim", 1000.0)),
        );
    }
    figures.add(
        "  status of the newest 50 meanwhile, p99",
        quantile(&mut asker.await.expect("it ends"), 0.99),
        "ms",
        Better::Lower,
        Some(("aim", 100.0)),
    );
    agents.leave().await;
}

type People = crate::cnxd::People;

fn newest() -> StatusRequest {
    StatusRequest { limit: SHOWN, ..StatusRequest::default() }
}

/// Times between updates, and how old the oldest progress in each is, in ms.
async fn watch(mut people: People) -> (Vec<f64>, Vec<f64>) {
    let mut updates = people.watch(newest()).await.expect("a watch").into_inner();
    let (mut gaps, mut ages) = (Vec::new(), Vec::new());
    let started = Instant::now();
    let mut before = Instant::now();
    while started.elapsed() < LASTS {
        let reply = updates.message().await.expect("an update").expect("the watch goes on");
        gaps.push(before.elapsed().as_secs_f64() * 1000.0);
        before = Instant::now();
        let sent = reply.experiments.iter().filter_map(|e| Some(e.progress?.loss)).reduce(f64::min);
        ages.extend(sent.map(|sent| (began().elapsed().as_secs_f64() - sent) * 1000.0));
    }
    (gaps, ages)
}

/// How long a status takes, asked ten times a second, in ms.
async fn ask(mut people: People) -> Vec<f64> {
    let mut times = Vec::new();
    let mut next = tokio::time::interval(Duration::from_millis(100));
    let started = Instant::now();
    while started.elapsed() < LASTS {
        next.tick().await;
        let asked = Instant::now();
        people.status(newest()).await.expect("a status");
        times.push(asked.elapsed().as_secs_f64() * 1000.0);
    }
    times
}
