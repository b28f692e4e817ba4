//! Submissions in parts, and answers in pages: nothing has to fit into one message.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use cnx_proto::v1::{NewExperiment, ResultsRequest, StatusReply, StatusRequest, SubmitReply, SubmitRequest};
use common::{Daemon, spec};
use tonic::{Code, Status};

/// More than two pages.
const MANY: u64 = 2100;

/// Parts of 500 experiments.
fn parts(experiments: Vec<NewExperiment>) -> Vec<SubmitRequest> {
    let part = |chunk: &[NewExperiment]| SubmitRequest { experiments: chunk.to_vec(), ..Default::default() };
    let mut parts: Vec<SubmitRequest> = experiments.chunks(500).map(part).collect();
    parts[0].sweep = "many".into();
    parts
}

fn experiments() -> Vec<NewExperiment> {
    let mut spec = spec("one");
    let mut new = |seed: u64| {
        spec.train.seed = seed;
        NewExperiment { spec_json: spec.to_json() }
    };
    (0..MANY).map(&mut new).collect()
}

async fn submit(daemon: &Daemon, experiments: Vec<NewExperiment>) -> Result<SubmitReply, Status> {
    let reply = daemon.people().submit_many(tokio_stream::iter(parts(experiments))).await;
    reply.map(tonic::Response::into_inner)
}

async fn status(daemon: &Daemon, request: StatusRequest) -> StatusReply {
    daemon.people().status(request).await.unwrap().into_inner()
}

fn ids(reply: &StatusReply) -> Vec<u64> {
    reply.experiments.iter().map(|e| e.id).collect()
}

#[tokio::test]
async fn a_submission_in_parts_is_queued_whole_and_told_in_pages_either_way() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let reply = submit(&daemon, experiments()).await.unwrap();
    let all: Vec<u64> = (1..=MANY).collect();
    assert_eq!(reply.experiments.iter().map(|e| e.id).collect::<Vec<_>>(), all);
    for selectors in [vec![], vec!["many".to_owned()]] {
        let mut request = StatusRequest { selectors: selectors.clone(), ..Default::default() };
        let (mut down, mut pages) = (Vec::new(), 0);
        loop {
            let reply = status(&daemon, request.clone()).await;
            assert!(reply.experiments.len() <= 1000);
            down.splice(0..0, ids(&reply));
            assert_eq!(down.len() as u64 + reply.more, MANY);
            if pages == 0 {
                assert_eq!(reply.more_unfinished, reply.more, "all of them wait");
            }
            pages += 1;
            if reply.more == 0 {
                break;
            }
            request.before = down[0];
        }
        assert_eq!((down, pages), (all.clone(), 3));

        let mut request = StatusRequest { after: Some(0), ..request };
        let mut up: Vec<u64> = Vec::new();
        while up.len() < all.len() {
            let reply = status(&daemon, request.clone()).await;
            up.extend(ids(&reply));
            assert_eq!(up.len() as u64 + reply.more, MANY);
            request.after = up.last().copied();
        }
        assert_eq!(up, all);

        let (mut rows, mut request) = (Vec::new(), ResultsRequest { selectors, after: 0 });
        loop {
            let reply = daemon.people().results(request.clone()).await.unwrap().into_inner();
            rows.extend(reply.rows.iter().map(|row| row.id));
            assert_eq!(rows.len() as u64 + reply.more, MANY);
            if reply.more == 0 {
                break;
            }
            request.after = *rows.last().unwrap();
        }
        assert_eq!(rows, all);
    }
    let newest = status(&daemon, StatusRequest { limit: 2, ..Default::default() }).await;
    assert_eq!((ids(&newest), newest.more), (vec![MANY - 1, MANY], MANY - 2));
    daemon.stop().await;
}

#[tokio::test]
async fn one_bad_spec_in_the_last_part_refuses_all_parts() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut experiments = experiments();
    experiments.push(NewExperiment { spec_json: "{}".into() });
    let refusal = submit(&daemon, experiments).await.unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains(&format!("experiment {}: ", MANY + 1)), "{}", refusal.message());
    let after = status(&daemon, StatusRequest::default()).await;
    assert_eq!((ids(&after), after.more), (vec![], 0));
    daemon.stop().await;
}

#[tokio::test]
async fn what_is_not_final_beyond_the_page_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    submit(&daemon, experiments()).await.unwrap();
    let selectors = (1..=1500).map(|id: u64| id.to_string()).collect();
    let cancelled = cnx_proto::v1::SelectRequest { selectors, all_failed: false };
    daemon.people().cancel(cancelled).await.unwrap();
    for selectors in [vec![], vec!["many".to_owned()]] {
        let reply = status(&daemon, StatusRequest { selectors, ..Default::default() }).await;
        // The newest 1000 hold all 600 that wait.
        assert_eq!((reply.more, reply.more_unfinished), (1100, 0));
    }
    let oldest = StatusRequest { after: Some(0), selectors: vec!["many".into()], ..Default::default() };
    let reply = status(&daemon, oldest).await;
    assert_eq!((reply.more, reply.more_unfinished), (1100, 600));
    daemon.stop().await;
}
