//! What callers may not do, and what they hear.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use cnx_daemon::rpc::gate::Limits;
use cnx_proto::v1::report::Body;
use cnx_proto::v1::workers_client::WorkersClient;
use cnx_proto::v1::{
    Artifact, DoctorRequest, FromWorker, Hello, Lease, LogLine, NewExperiment, PauseRequest, PriorityRequest,
    Progress, SelectRequest, State, StatusRequest, SubmitRequest, from_worker,
};
use common::{Daemon, auth, lease, soon, succeeded};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tonic::{Code, Status};

fn hello(worker: &str) -> Hello {
    Hello { worker: worker.into(), device: "cpu".into(), slots: 1, ..Hello::default() }
}

/// How a worker's first message is refused.
async fn attach_refusal(daemon: &Daemon, token: &str, hello: Hello) -> Status {
    let first = FromWorker { message: Some(from_worker::Message::Hello(hello)) };
    let mut client = WorkersClient::with_interceptor(daemon.channel.clone(), auth(token));
    match client.attach(tokio_stream::once(first)).await {
        Err(status) => status,
        Ok(inbound) => soon("the refusal", inbound.into_inner().message()).await.unwrap_err(),
    }
}

#[tokio::test]
async fn a_workers_token_gives_no_right_of_people_and_theirs_none_of_workers() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut people = daemon.people_with(&daemon.worker_token);
    let status = people.status(StatusRequest::default()).await.unwrap_err();
    let submit = people.submit(common::request(&[common::spec("a")])).await.unwrap_err();
    let doctor = people.doctor(DoctorRequest {}).await.unwrap_err();
    let attach = attach_refusal(&daemon, &daemon.token, hello("w")).await;
    for (refusal, file) in
        [(&status, "token"), (&submit, "token"), (&doctor, "token"), (&attach, "worker-token")]
    {
        assert_eq!(refusal.code(), Code::PermissionDenied, "{refusal:?}");
        assert!(refusal.message().contains(&dir.path().join(file).display().to_string()), "{refusal:?}");
        for secret in [&daemon.token, &daemon.worker_token] {
            assert!(!format!("{refusal:?}").contains(secret.as_str()));
        }
    }
    let nothing = daemon.people().status(StatusRequest::default()).await.unwrap().into_inner();
    assert!(nothing.experiments.is_empty());
}

#[tokio::test]
async fn a_worker_touches_no_lease_but_its_own_even_with_its_token() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut owner = daemon.worker("owner").await;
    let held = lease(&owner.assigned().await);

    let mut thief = daemon.worker_holding("thief", std::slice::from_ref(&held)).await;
    assert_eq!(thief.welcome.stale, std::slice::from_ref(&held));
    assert_eq!(thief.heartbeat(std::slice::from_ref(&held)).await.stale, std::slice::from_ref(&held));
    for (sequence, body) in
        [(1, Body::Log(LogLine { text: "forged".into(), ..LogLine::default() })), (2, succeeded())]
    {
        let refused = thief.report(&held, sequence, body).await;
        assert!(
            !refused.accepted && refused.reason.contains("worker thief has no such lease"),
            "{refused:?}"
        );
    }
    let progress = Progress { epoch: 99, ..Progress::default() };
    thief.send(&held, 0, Body::Progress(progress)).await;
    // Its answer shows that what was said before was heard.
    thief.heartbeat(&[]).await;
    let guess = Lease { token: "guess".into(), ..held.clone() };
    assert!(!thief.report(&guess, 1, succeeded()).await.accepted);
    let shown = daemon.show(id).await;
    assert_eq!((shown.state(), shown.progress, shown.worker.as_str()), (State::Running, None, "owner"));

    assert!(owner.heartbeat(std::slice::from_ref(&held)).await.stale.is_empty());
    assert!(owner.report(&held, 1, succeeded()).await.accepted);
    // Not even what is over is told to others.
    assert!(!thief.report(&held, 1, succeeded()).await.accepted);
    assert!(owner.report(&held, 1, succeeded()).await.accepted);
}

#[tokio::test]
async fn a_hello_that_would_fill_the_memory_or_steer_a_terminal_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    for (wrong, said) in [
        (Hello { host: "h".repeat(100_000), ..hello("w") }, "a host has at most"),
        (Hello { device: "\x1b[31m".into(), ..hello("w") }, "a device has at most"),
        (Hello { held: vec![Lease::default(); 5000], ..hello("w") }, "leases"),
    ] {
        let refusal = attach_refusal(&daemon, &daemon.worker_token, wrong).await;
        assert_eq!(refusal.code(), Code::InvalidArgument);
        assert!(refusal.message().contains(said), "{refusal:?}");
    }
    let huge = Hello { version: "v".repeat(3 << 20), ..hello("w") };
    let refusal = attach_refusal(&daemon, &daemon.worker_token, huge).await;
    assert_eq!(refusal.code(), Code::OutOfRange, "{refusal:?}");
    assert!(
        daemon
            .people()
            .list_workers(cnx_proto::v1::ListWorkersRequest {})
            .await
            .unwrap()
            .into_inner()
            .workers
            .is_empty()
    );
}

#[tokio::test]
async fn an_artifact_that_leads_out_of_its_folder_is_refused_and_the_lease_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut worker = daemon.worker("w").await;
    let held = lease(&worker.assigned().await);
    let artifact = |name: &str| Body::Artifact(Artifact { name: name.into(), ..Artifact::default() });
    for (sequence, name) in [(1, "/etc/passwd"), (2, "experiments/1/../../x"), (3, "experiments/2/x")] {
        let refused = worker.report(&held, sequence, artifact(name)).await;
        assert!(!refused.accepted && refused.reason.contains("artifact"), "{refused:?}");
    }
    assert!(worker.report(&held, 4, artifact("experiments/1/final.safetensors")).await.accepted);
    let detail = daemon.people().describe(cnx_proto::v1::DescribeRequest { selector: id.to_string() }).await;
    let names: Vec<_> = detail.unwrap().into_inner().artifacts.into_iter().map(|a| a.name).collect();
    assert_eq!(names, ["experiments/1/final.safetensors"]);
}

#[tokio::test]
async fn requests_out_of_all_proportion_are_refused_with_the_limit() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let mut people = daemon.people();
    let of_spec = |json: String| SubmitRequest {
        experiments: vec![NewExperiment { spec_json: json }],
        ..SubmitRequest::default()
    };
    let padded = format!("{}{}", common::spec("a").to_json(), " ".repeat(65 << 10));
    let long = people.submit(of_spec(padded)).await.unwrap_err();
    assert!(long.code() == Code::InvalidArgument && long.message().contains("65536 bytes"), "{long:?}");
    let huge = people.submit(of_spec("x".repeat(17 << 20))).await.unwrap_err();
    assert_eq!(huge.code(), Code::OutOfRange, "{huge:?}");
    let status = |selectors: Vec<String>| StatusRequest { selectors, ..StatusRequest::default() };
    let many = people.status(status(vec!["name".into(); 1001])).await.unwrap_err();
    assert!(many.code() == Code::InvalidArgument && many.message().contains("1000 names"), "{many:?}");
    let wide = people.status(status(vec!["n".repeat(257)])).await.unwrap_err();
    assert!(wide.code() == Code::InvalidArgument && wide.message().contains("256 bytes"), "{wide:?}");
    assert!(people.status(StatusRequest::default()).await.unwrap().into_inner().experiments.is_empty());
}

#[tokio::test]
async fn a_change_that_names_nothing_is_not_taken_for_everything() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(dir.path()).await;
    let id = daemon.submit(&["a"]).await[0];
    let mut people = daemon.people();
    let refusals = [
        people.cancel(SelectRequest::default()).await.unwrap_err(),
        people.retry(SelectRequest::default()).await.unwrap_err(),
        people.pause(PauseRequest::default()).await.unwrap_err(),
        people.resume(PauseRequest::default()).await.unwrap_err(),
        people.set_priority(PriorityRequest { priority: 9, ..Default::default() }).await.unwrap_err(),
    ];
    assert!(refusals.iter().all(|r| r.code() == Code::InvalidArgument), "{refusals:?}");
    assert_eq!(daemon.show(id).await.state(), State::Queued);
}

/// Waits until the other side closes.
async fn until_closed(stream: &mut TcpStream) {
    let mut bytes = [0; 1024];
    // The settings that a server of HTTP/2 sends first do not count.
    let closed = async { while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {} };
    soon("the coordinator to hang up", closed).await;
}

#[tokio::test]
async fn who_shows_no_token_in_time_is_closed_and_who_did_stays() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { prove_within: Duration::from_millis(300), ..Limits::default() };
    let daemon = Daemon::with(dir.path(), |config| config.limits = limits).await;
    let mut worker = daemon.worker("w").await;
    let mut silent = TcpStream::connect(&daemon.channel_address).await.unwrap();
    let mut slow = TcpStream::connect(&daemon.channel_address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut slow, b"PRI * HTTP/2.0\r\n").await.unwrap();
    until_closed(&mut silent).await;
    until_closed(&mut slow).await;
    worker.heartbeat(&[]).await;
}

#[tokio::test]
async fn a_flood_of_strangers_closes_the_oldest_of_them_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { strangers: 3, prove_within: Duration::from_secs(3600), ..Limits::default() };
    let daemon = Daemon::with(dir.path(), |config| config.limits = limits).await;
    let mut worker = daemon.worker("w").await;
    let mut flood = Vec::new();
    for _ in 0..20 {
        flood.push(TcpStream::connect(&daemon.channel_address).await.unwrap());
    }
    for stream in &mut flood[..17] {
        until_closed(stream).await;
    }
    worker.heartbeat(&[]).await;
    let channel =
        tonic::transport::Channel::from_shared(format!("http://{}", &daemon.channel_address)).unwrap();
    let mut newcomer = cnx_proto::v1::experiments_client::ExperimentsClient::with_interceptor(
        channel.connect().await.unwrap(),
        auth(&daemon.token),
    );
    newcomer.status(StatusRequest::default()).await.unwrap();
}

#[tokio::test]
async fn beyond_the_most_connections_a_caller_hears_why() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { known: 1, ..Limits::default() };
    let daemon = Daemon::with(dir.path(), |config| config.limits = limits).await;
    daemon.people().status(StatusRequest::default()).await.unwrap();
    let channel =
        tonic::transport::Channel::from_shared(format!("http://{}", &daemon.channel_address)).unwrap();
    let mut second = cnx_proto::v1::experiments_client::ExperimentsClient::with_interceptor(
        channel.connect().await.unwrap(),
        auth(&daemon.token),
    );
    let refusal = second.status(StatusRequest::default()).await.unwrap_err();
    assert!(
        refusal.code() == Code::ResourceExhausted && refusal.message().contains("1 connections"),
        "{refusal:?}"
    );
    daemon.people().status(StatusRequest::default()).await.unwrap();
}
