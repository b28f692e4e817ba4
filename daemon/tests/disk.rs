//! `cnxd` on a disk that is full or read-only: a small tmpfs in a mount namespace of its own, so that nothing of it is left
//! behind. Mounting takes root; where that is missing, the tests say so, and fail where CI=true promises it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tonic::Code;
use tonic::transport::Channel;

use cnx_proto::v1::experiments_client::ExperimentsClient;
use cnx_proto::v1::{DoctorReply, DoctorRequest, StatusRequest, finding::Verdict};
use common::{People, auth, request, soon, spec};
use prost::Message;

/// A disk of 8 MB, as long as the process lives that holds its namespace.
struct Disk {
    holder: Child,
    /// Where it is mounted, seen from within.
    inside: PathBuf,
    _folder: tempfile::TempDir,
}

impl Disk {
    /// None where nobody may mount.
    async fn new() -> Option<Disk> {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().to_path_buf();
        let script = "mount -t tmpfs -o size=8m,mode=700 tmpfs \"$0\" && echo mounted && exec sleep 3600";
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&inside);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn();
        let mut said = String::new();
        if let Ok(mut holder) = child {
            let mut out = BufReader::new(holder.stdout.take().unwrap()).lines();
            if soon("the mount", out.next_line()).await.unwrap().as_deref() == Some("mounted") {
                return Some(Disk { holder, inside, _folder: folder });
            }
            said = String::from_utf8_lossy(&holder.wait_with_output().await.unwrap().stderr).into_owned();
        }
        assert!(std::env::var("CI").as_deref() != Ok("true"), "CI must be allowed to mount a tmpfs: {said}");
        eprintln!("NOT RUN: mounting a tmpfs takes root ({})", said.trim());
        None
    }

    fn pid(&self) -> String {
        self.holder.id().unwrap().to_string()
    }

    /// A file of it, seen from outside.
    fn path(&self, name: &str) -> PathBuf {
        let inside = self.inside.strip_prefix("/").unwrap();
        Path::new("/proc").join(self.pid()).join("root").join(inside).join(name)
    }

    /// A command that sees it.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid(), "--mount", "--"]).arg(program);
        command.kill_on_drop(true);
        command
    }

    async fn mount(&self, arguments: &[&str]) {
        let done = self.command("mount").args(arguments).output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Takes all the space that is left.
    fn fill(&self) {
        let mut file = fs::File::create(self.path("ballast")).unwrap();
        for block in [64 << 10, 1] {
            while file.write_all(&vec![0; block]).is_ok() {}
        }
    }

    fn cnxd(&self) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_cnxd"));
        command.args(["--listen", "127.0.0.1:0", "--state"]).arg(&self.inside).env("RUST_LOG", "info");
        command.stderr(Stdio::piped()).stdout(Stdio::piped());
        command
    }

    /// Starts it and waits until it listens.
    async fn start(&self) -> (Child, Lines<BufReader<ChildStderr>>) {
        let mut child = self.cnxd().spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        soon("cnxd to listen", async {
            while !log.next_line().await.unwrap().expect("cnxd ended").contains("listening on") {}
        })
        .await;
        (child, log)
    }

    /// Starts it where it cannot run; what it says.
    async fn refused(&self) -> String {
        let output = soon("the refusal", self.cnxd().output()).await.unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).unwrap()
    }

    async fn people(&self) -> People {
        let url = fs::read_to_string(self.path("endpoint")).unwrap();
        let token = fs::read_to_string(self.path("token")).unwrap();
        let channel = Channel::from_shared(url.trim().to_owned()).unwrap().connect().await.unwrap();
        ExperimentsClient::with_interceptor(channel, auth(token.trim()))
    }
}

async fn names(people: &mut People) -> Vec<String> {
    let status = people.status(StatusRequest::default()).await.unwrap().into_inner();
    status.experiments.into_iter().map(|e| e.name).collect()
}

#[tokio::test]
async fn on_a_full_disk_submits_are_refused_nothing_acknowledged_is_lost_and_space_heals_it() {
    let Some(disk) = Disk::new().await else { return };
    let (mut cnxd, _log) = disk.start().await;
    let mut people = disk.people().await;
    let mut acknowledged = Vec::new();
    disk.fill();
    // What fits into pages that are there already may still be saved.
    let refused = loop {
        let name = format!("n{}", acknowledged.len());
        match people.submit(request(&[spec(&name)])).await {
            Ok(_) => acknowledged.push(name),
            Err(status) => break status,
        }
        assert!(acknowledged.len() < 100_000, "the disk does not fill up");
    };
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("the disk is full") && refused.message().contains("free some space"));
    assert_eq!(names(&mut people).await, acknowledged, "it still answers");
    let found = people.doctor(DoctorRequest {}).await.unwrap().into_inner().findings;
    let told = found.iter().find(|f| f.area == "disk" && f.verdict() == Verdict::Problem).expect("the disk");
    assert!(told.found.contains("only ") && told.advice.contains("Free some space"), "{told:?}");

    // Killed in that state, it finds all again once there is space.
    cnxd.kill().await.unwrap();
    fs::remove_file(disk.path("ballast")).unwrap();
    let (mut cnxd, _log) = disk.start().await;
    let mut people = disk.people().await;
    assert_eq!(names(&mut people).await, acknowledged);
    disk.fill();
    while people.submit(request(&[spec(&format!("n{}", acknowledged.len()))])).await.is_ok() {
        acknowledged.push(format!("n{}", acknowledged.len()));
    }
    // Nor does it have to be started again.
    fs::remove_file(disk.path("ballast")).unwrap();
    people.submit(request(&[spec("healed")])).await.unwrap();
    acknowledged.push("healed".to_owned());
    assert_eq!(names(&mut people).await, acknowledged);
    cnxd.kill().await.unwrap();
}

#[tokio::test]
async fn it_does_not_start_on_a_full_disk_and_says_why() {
    let Some(disk) = Disk::new().await else { return };
    disk.fill();
    let refusal = disk.refused().await;
    assert!(refusal.contains("No space left on device"), "{refusal}");
    assert!(refusal.contains(&disk.inside.display().to_string()), "{refusal}");
}

#[tokio::test]
async fn a_state_folder_that_is_read_only_is_refused_but_can_be_looked_over_and_backed_up() {
    let Some(disk) = Disk::new().await else { return };
    let (mut cnxd, _log) = disk.start().await;
    disk.people().await.submit(request(&[spec("a")])).await.unwrap();
    let pid = cnxd.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
    soon("the exit", cnxd.wait()).await.unwrap();
    let inside = disk.inside.display().to_string();
    disk.mount(&["-o", "remount,ro", &inside]).await;
    let refusal = disk.refused().await;
    assert!(refusal.contains("Read-only file system") && refusal.contains(&inside), "{refusal}");

    let looked = disk.cnxd().arg("doctor").output().await.unwrap();
    let findings = DoctorReply::decode(looked.stdout.as_slice()).unwrap().findings;
    let disk_is = findings.iter().find(|f| f.area == "disk").unwrap();
    assert!(
        disk_is.verdict() == Verdict::Problem && disk_is.found.contains("cannot be written"),
        "{findings:#?}"
    );
    assert!(findings.iter().all(|f| f.area != "database" || f.verdict() == Verdict::Well), "{findings:#?}");
    let out = tempfile::tempdir().unwrap();
    let copy = out.path().join("copy.db");
    let backed_up = disk.cnxd().arg("backup").arg("--output").arg(&copy).output().await.unwrap();
    assert!(backed_up.status.success(), "{}", String::from_utf8_lossy(&backed_up.stderr));
    assert!(cnx_daemon::store::Inspector::open(&copy).unwrap().runs(1).unwrap().is_some());
}

#[tokio::test]
async fn a_database_that_is_read_only_is_refused_and_what_to_do_is_told() {
    let Some(disk) = Disk::new().await else { return };
    let (mut cnxd, _log) = disk.start().await;
    let pid = cnxd.id().unwrap().to_string();
    assert!(Command::new("kill").arg(&pid).status().await.unwrap().success());
    soon("the exit", cnxd.wait()).await.unwrap();
    let file = disk.inside.join("cnx.db").display().to_string();
    disk.mount(&["--bind", &file, &file]).await;
    disk.mount(&["-o", "remount,ro,bind", &file]).await;
    let refusal = disk.refused().await;
    assert!(refusal.contains("cnx.db is read-only") && refusal.contains("chown"), "{refusal}");
}
