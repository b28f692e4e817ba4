//! A coordinator whose every text is hostile: whatever `cnx` prints of it must not steer a terminal, and its tables must be
//! no formulas.

use cnx_proto::v1::experiments_server::{Experiments, ExperimentsServer};
use cnx_proto::v1::*;
use tokio_stream::{Iter, iter};
use tonic::{Request, Response, Status, Streaming};

use crate::{Said, run};

/// Clears a screen, sets a title, goes back over what was printed, turns the direction of writing; and is a formula.
const TEXT: &str =
    "=1+cmd|'/c calc'!A1\x1b[2J\x1b]0;owned\x07\r\x08\u{9b}31m\u{202e}\u{2028}\nINFO all is well <b>";

fn text() -> String {
    TEXT.to_owned()
}

/// Answers everything.
#[derive(Clone)]
struct Liar {
    state: State,
}

fn spec_json() -> String {
    let mut spec =
        cnx_proto::recipe::recipe(cnx_proto::spec::Arch::CondenseNet, cnx_proto::spec::Dataset::Synthetic);
    spec.name = text();
    spec.model.stages = cnx_proto::dashed::Dashed(vec![2, 2, 2]);
    spec.model.growth = cnx_proto::dashed::Dashed(vec![8, 16, 32]);
    spec.data.root = Some(TEXT.into());
    spec.run.from = Some(text());
    spec.run.from_sha256 = Some(text());
    spec.run.steps = vec![cnx_proto::spec::Step::Evaluate];
    spec.resources.labels = vec![text()];
    spec.to_json()
}

fn environment() -> Option<Environment> {
    Some(Environment {
        host: text(),
        device: text(),
        cnx_version: text(),
        commit: text(),
        libtorch_version: text(),
        threads: 1,
        data_hash: text(),
    })
}

fn figures() -> Option<Figures> {
    let errors = Some(Errors { loss: f64::NAN, top1_error: -5.0, top5_error: f64::INFINITY, images: 1 });
    let latency = Some(Latency { median_s: f64::NAN, peak_memory_bytes: u64::MAX, ..Latency::default() });
    Some(Figures { r#final: errors, best: errors, best_epoch: 1, converted: errors, latency })
}

impl Liar {
    fn experiment(&self) -> Experiment {
        Experiment {
            id: 1,
            name: text(),
            state: self.state.into(),
            spec_json: spec_json(),
            attempt: 2,
            worker: text(),
            submitted_at_ms: 1,
            epochs_done: 3,
            top1_error: Some(f64::NAN),
            progress: Some(Progress {
                phase: Phase::Train.into(),
                step: 1,
                steps: 9,
                loss: f64::NAN,
                ..Progress::default()
            }),
            message: text(),
            sweeps: vec![text()],
            ..Experiment::default()
        }
    }

    fn status(&self) -> StatusReply {
        let coordinator =
            Coordinator { version: text(), address: text(), workers: 1, ..Coordinator::default() };
        StatusReply {
            coordinator: Some(coordinator),
            experiments: vec![self.experiment()],
            ..StatusReply::default()
        }
    }
}

type Reply<T> = Result<Response<T>, Status>;
type Stream<T> = Iter<std::vec::IntoIter<Result<T, Status>>>;

fn changed() -> Reply<ChangeReply> {
    let change = Change { id: 1, name: text(), changed: true, message: text(), new_id: 2 };
    Ok(Response::new(ChangeReply { changes: vec![change] }))
}

#[tonic::async_trait]
impl Experiments for Liar {
    type WatchStream = Stream<StatusReply>;
    type LogsStream = Stream<LogLine>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Reply<SubmitReply> {
        let one = Submitted { id: 1, name: text(), existing: true, state: self.state.into() };
        let experiments = vec![one; request.get_ref().experiments.len()];
        Ok(Response::new(SubmitReply { experiments, free_slots: 1 }))
    }

    async fn submit_many(&self, _: Request<Streaming<SubmitRequest>>) -> Reply<SubmitReply> {
        Err(Status::internal(TEXT))
    }

    async fn status(&self, request: Request<StatusRequest>) -> Reply<StatusReply> {
        match request.get_ref().selectors.first().map(String::as_str) {
            Some("missing") => Err(Status::not_found(TEXT)),
            _ => Ok(Response::new(self.status())),
        }
    }

    async fn watch(&self, _: Request<StatusRequest>) -> Reply<Self::WatchStream> {
        Ok(Response::new(iter(vec![Ok(self.status())])))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Reply<ExperimentDetail> {
        if request.get_ref().selector == "missing" {
            return Err(Status::invalid_argument(TEXT));
        }
        let attempt = Attempt {
            attempt: 1,
            worker: text(),
            environment: environment(),
            outcome: text(),
            message: text(),
            ..Attempt::default()
        };
        let artifact = |kind: ArtifactKind| Artifact {
            kind: kind.into(),
            name: format!("../../../{TEXT}"),
            sha256: text(),
            ..Artifact::default()
        };
        Ok(Response::new(ExperimentDetail {
            experiment: Some(self.experiment()),
            attempts: vec![attempt],
            epochs: vec![EpochMetrics { epoch: 1, test_top1_error: f64::NAN, ..EpochMetrics::default() }],
            artifacts: vec![artifact(ArtifactKind::Checkpoint), artifact(ArtifactKind::FinalModel)],
            events: vec![Event { at_ms: u64::MAX, attempt: 1, what: text() }],
            figures: figures(),
            artifacts_url: format!("file:///{TEXT}"),
            why: vec![text()],
        }))
    }

    async fn logs(&self, _: Request<LogsRequest>) -> Reply<Self::LogsStream> {
        Ok(Response::new(iter(vec![Ok(LogLine { at_ms: u64::MAX, attempt: 2, text: text() })])))
    }

    async fn cancel(&self, _: Request<SelectRequest>) -> Reply<ChangeReply> {
        changed()
    }

    async fn retry(&self, _: Request<SelectRequest>) -> Reply<ChangeReply> {
        changed()
    }

    async fn pause(&self, _: Request<PauseRequest>) -> Reply<ChangeReply> {
        changed()
    }

    async fn resume(&self, _: Request<PauseRequest>) -> Reply<ChangeReply> {
        changed()
    }

    async fn set_priority(&self, _: Request<PriorityRequest>) -> Reply<ChangeReply> {
        changed()
    }

    async fn results(&self, _: Request<ResultsRequest>) -> Reply<ResultsReply> {
        let row = ResultRow {
            id: 1,
            name: text(),
            state: State::Succeeded.into(),
            spec_json: spec_json(),
            spec_hash: text(),
            figures: figures(),
            environment: environment(),
            attempts: 1,
            epochs_done: 1,
            sweeps: vec![text()],
        };
        Ok(Response::new(ResultsReply { rows: vec![row], more: 0 }))
    }

    async fn doctor(&self, _: Request<DoctorRequest>) -> Reply<DoctorReply> {
        let finding = Finding {
            area: text(),
            verdict: finding::Verdict::Problem.into(),
            found: text(),
            which: vec![text()],
            advice: text(),
        };
        Ok(Response::new(DoctorReply { findings: vec![finding], now_ms: u64::MAX, version: text() }))
    }

    async fn list_workers(&self, _: Request<ListWorkersRequest>) -> Reply<ListWorkersReply> {
        let worker = WorkerInfo {
            name: text(),
            connected: true,
            host: text(),
            device: text(),
            version: text(),
            labels: vec![text()],
            leases: vec![Lease { experiment: 1, attempt: 1, token: text() }],
            ..WorkerInfo::default()
        };
        Ok(Response::new(ListWorkersReply { workers: vec![worker] }))
    }
}

/// `cnx` against it, verb by verb.
fn ask(state: State, verbs: &[&[&str]]) -> Vec<(String, Said)> {
    let folder = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let url = format!("http://{}\n", listener.local_addr().unwrap());
    std::fs::write(folder.path().join("endpoint"), url).unwrap();
    crate::coordinator::write_token(folder.path(), &"t".repeat(64));
    let guard = runtime.enter();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder().add_service(ExperimentsServer::new(Liar { state }));
    let serving = runtime.spawn(server.serve_with_incoming(incoming));
    drop(guard);
    let said = |verb: &&[&str]| {
        let mut command = crate::cnx(verb);
        let said = run(command.env("CNX_STATE", folder.path()).current_dir(folder.path()));
        (verb.join(" "), said)
    };
    let all = verbs.iter().map(said).collect();
    serving.abort();
    all
}

/// The characters that must not reach a terminal; lines end where lines end.
fn harmful(text: &str) -> Vec<char> {
    let is = |c: &char| {
        (c.is_control() && *c != '\n')
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{061c}')
    };
    text.chars().filter(is).collect()
}

#[test]
fn no_verb_lets_a_text_of_others_steer_the_terminal() {
    let demo = crate::config("demo/tiny.toml");
    let verbs: &[&[&str]] = &[
        &["status"],
        &["status", "1"],
        &["status", "1", "--watch"],
        &["status", "1", "--watch", "--json"],
        &["status", "--json"],
        &["status", "1", "--json"],
        &["status", "missing"],
        &["logs"],
        &["logs", "--time"],
        &["explain"],
        &["explain", "--json"],
        &["explain", "missing"],
        &["wait", "1"],
        &["cancel", "1"],
        &["cancel", "1", "--json"],
        &["retry", "1"],
        &["pause", "1"],
        &["resume", "1"],
        &["priority", "1", "5"],
        &["results"],
        &["results", "--provenance"],
        &["results", "--csv", "--provenance"],
        &["results", "--json", "--provenance"],
        &["results", "--markdown", "--provenance"],
        &["results", "--table", "cifar"],
        &["results", "--table", "cifar", "--csv", "--provenance"],
        &["results", "--table", "cifar", "--markdown", "--provenance"],
        &["workers"],
        &["workers", "--json"],
        &["doctor"],
        &["doctor", "--json"],
        &["submit", &demo],
        &["submit", &demo, "--json"],
        &["evaluate", "1"],
        &["evaluate", "1", "--queue"],
        &["convert", "1", "-o", "out.safetensors"],
        &["export", "1", "-o", "out.pth"],
        &["export", "1", "--format", "onnx"],
    ];
    for state in [State::Succeeded, State::Failed] {
        let mut shown = 0;
        for (verb, said) in ask(state, verbs) {
            for printed in [&said.out, &said.err] {
                assert!(harmful(printed).is_empty(), "cnx {verb}: {printed:?}");
                shown += usize::from(printed.contains("owned"));
            }
        }
        // The text does come through, spelled out.
        assert!(shown > 20, "{shown}");
    }
}

#[test]
fn what_waits_and_runs_is_told_as_harmlessly() {
    for state in [State::Queued, State::Running, State::Paused] {
        for (verb, said) in ask(state, &[&["status"], &["status", "1"], &["explain"]]) {
            assert!(harmful(&said.out).is_empty(), "cnx {verb}: {:?}", said.out);
            assert!(said.out.contains("owned"), "cnx {verb}: {}", said.out);
        }
    }
}

#[test]
fn no_field_of_a_csv_is_a_formula() {
    let asked = ask(State::Succeeded, &[&["results", "--csv", "--provenance"]]);
    let (_, said) = &asked[0];
    let mut reader = csv::Reader::from_reader(said.out.as_bytes());
    let row = reader.records().next().expect("a row").unwrap();
    assert!(row.iter().any(|field| field.starts_with("'=1+cmd")), "{row:?}");
    for field in &row {
        assert!(!field.starts_with(['=', '+', '@', '\t', '\r']), "{field:?}");
        assert!(!field.starts_with('-') || field.parse::<f64>().is_ok(), "{field:?}");
    }
}

#[test]
fn an_artifact_that_leads_elsewhere_is_not_read() {
    for (verb, said) in
        ask(State::Succeeded, &[&["export", "1", "-o", "out.pth"], &["convert", "1", "-o", "x.safetensors"]])
    {
        assert_eq!(said.code, 1, "cnx {verb}: {}", said.err);
    }
}
