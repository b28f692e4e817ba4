//! A coordinator with certificates, and callers that find, trust, or rightly do not trust it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use cnx_access::{Place, TlsArgs, Trust, explain};
use cnx_daemon::tls::authority::{ClientArgs, InitArgs, TlsCommand};
use cnx_daemon::tls::{Files, ServerTlsArgs};
use cnx_proto::state_dir::StateDir;
use cnx_proto::v1::StatusRequest;
use cnx_proto::v1::experiments_client::ExperimentsClient;
use common::{auth, soon};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Pool {
    state: StateDir,
    place: Place,
    token: String,
    stop: CancellationToken,
    running: JoinHandle<anyhow::Result<()>>,
}

fn state(dir: &Path) -> StateDir {
    StateDir::locate(Some(dir), |_| None).unwrap()
}

fn init(dir: &Path) -> StateDir {
    let state = state(dir);
    TlsCommand::Init(InitArgs { hosts: vec!["gpu-box".into()], days: 10 }).run(&state).unwrap();
    state
}

impl Pool {
    /// As `cnxd --listen 0.0.0.0:0`, with the certificates that lie in the folder.
    async fn start(dir: &Path, client_ca: bool) -> Pool {
        let state = state(dir);
        let args = ["cnxd", "--state", dir.to_str().unwrap(), "--listen", "0.0.0.0:0"];
        let arguments = <cnx_daemon::config::Arguments as clap::Parser>::try_parse_from(args).unwrap();
        let mut config = arguments.config().unwrap();
        if client_ca && let Some(files) = &mut config.tls {
            files.client_ca = Some(state.tls().ca());
        }
        let folder = cnx_daemon::folder::Folder::claim(&state).unwrap();
        let token = folder.secret(cnx_access::Role::Person).reveal().to_owned();
        let listener = TcpListener::bind(arguments.listen).await.unwrap();
        let stop = CancellationToken::new();
        let running = tokio::spawn(cnx_daemon::run(listener, folder, config, stop.clone()));
        let place = soon("the endpoint", async {
            loop {
                if let Ok(place) = Place::find(None, Some(&state)) {
                    return place;
                }
                assert!(!running.is_finished(), "the coordinator ended");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await;
        Pool { state, place, token, stop, running }
    }

    async fn end(self) {
        self.stop.cancel();
        soon("the coordinator to stop", self.running).await.unwrap().unwrap();
    }

    fn port(&self) -> String {
        self.place.url().rsplit(':').next().unwrap().to_owned()
    }

    /// What a caller is told; none: the call succeeded.
    async fn call(&self, place: &Place, trust: &Trust) -> Option<String> {
        let channel = match trust.endpoint(place).unwrap().connect().await {
            Ok(channel) => channel,
            Err(error) => {
                return Some(explain::tls(&error, place, trust).unwrap_or_else(|| explain::chain(&error)));
            }
        };
        let mut people = ExperimentsClient::with_interceptor(channel, auth(&self.token));
        let status = people.status(StatusRequest::default()).await.err()?;
        let cause = std::error::Error::source(&status)?;
        let why = explain::tls(cause, place, trust).or_else(|| explain::cut(cause, place));
        Some(why.unwrap_or_else(|| explain::chain(cause)))
    }
}

fn trust(state: &StateDir) -> Trust {
    Trust::find(&TlsArgs::default(), Some(state)).unwrap()
}

#[tokio::test]
async fn who_has_the_state_folder_calls_it_through_tls_without_another_word() {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path());
    let pool = Pool::start(dir.path(), false).await;
    assert!(pool.place.url().starts_with("https://127.0.0.1:"), "{}", pool.place.url());
    assert_eq!(pool.call(&pool.place, &trust(&pool.state)).await, None);
    pool.end().await;
}

#[tokio::test]
async fn another_ca_another_name_and_clear_text_are_told_apart() {
    let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    init(dir.path());
    let pool = Pool::start(dir.path(), false).await;
    let own = trust(&pool.state);

    let foreign = trust(&init(elsewhere.path()));
    let said = pool.call(&pool.place, &foreign).await.unwrap();
    assert!(said.contains("not of the CA in") && said.contains("copy tls/ca.pem"), "{said}");

    let said = pool.call(&pool.place, &Trust::default()).await.unwrap();
    assert!(said.contains("not of a public CA"), "{said}");

    // 127.0.0.2 is this machine too, and in no certificate of ours.
    let other_name = Place::parse(&format!("https://127.0.0.2:{}", pool.port())).unwrap();
    let said = pool.call(&other_name, &own).await.unwrap();
    assert!(said.contains("another name") && said.contains("--host 127.0.0.2"), "{said}");

    let plain = Place::parse(&format!("http://127.0.0.1:{}", pool.port())).unwrap();
    let said = pool.call(&plain, &own).await.unwrap();
    assert!(said.contains("say https://"), "{said}");
    assert_eq!(pool.call(&pool.place, &own).await, None);
    pool.end().await;
}

#[tokio::test]
async fn tls_to_a_coordinator_in_clear_text_says_so() {
    let (dir, certified) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let daemon = common::Daemon::start(dir.path()).await;
    let place = Place::parse(&format!("https://{}", daemon.channel_address)).unwrap();
    let trust = trust(&init(certified.path()));
    let error = trust.endpoint(&place).unwrap().connect().await.unwrap_err();
    let said = explain::tls(&error, &place, &trust).unwrap_or_else(|| explain::chain(&error));
    assert!(said.contains("say http://"), "{said}");
    daemon.stop().await;
}

#[tokio::test]
async fn where_callers_must_show_a_certificate_the_token_alone_is_not_enough() {
    let dir = tempfile::tempdir().unwrap();
    let state = init(dir.path());
    let pool = Pool::start(dir.path(), true).await;
    let said = pool.call(&pool.place, &trust(&state)).await.unwrap();
    assert!(said.contains("mTLS") && said.contains("cnxd tls client"), "{said}");
    TlsCommand::Client(ClientArgs { out: None, days: 10 }).run(&state).unwrap();
    assert_eq!(pool.call(&pool.place, &trust(&state)).await, None);
    pool.end().await;
}

#[tokio::test]
async fn an_expired_certificate_and_a_key_of_another_are_refused_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let state = init(dir.path());
    let other = rcgen::KeyPair::generate().unwrap();
    std::fs::write(state.tls().server_key(), other.serialize_pem()).unwrap();
    let files = Files::find(&ServerTlsArgs::default(), &state).unwrap().unwrap();
    let server = tonic::transport::Server::builder().tls_config(files.server_config().unwrap());
    assert!(server.is_err());

    let mut params = rcgen::CertificateParams::new(vec!["gpu-box".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    std::fs::write(state.tls().server(), params.self_signed(&other).unwrap().pem()).unwrap();
    let refusal = files.server_config().unwrap_err().to_string();
    assert!(refusal.contains("ended on") && refusal.contains("cnxd tls init"), "{refusal}");
}
