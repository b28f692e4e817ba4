//! `cnx doctor` against a coordinator that is played; `cnx backup` and `cnx restore` with a shell script for `cnxd`.

use cnx_proto::v1::{Finding, finding::Verdict};
use serde_json::Value;

use crate::coordinator::Coordinator;
use crate::{cnx, run, script};

fn finding(area: &str, verdict: Verdict) -> Finding {
    Finding {
        area: area.into(),
        verdict: verdict.into(),
        found: format!("found of {area}"),
        advice: if verdict == Verdict::Problem { "Do something.".into() } else { String::new() },
        ..Finding::default()
    }
}

#[test]
fn the_doctor_exits_by_what_it_finds() {
    let coordinator = Coordinator::start();
    *coordinator.pool.findings.lock().unwrap() =
        vec![finding("disk", Verdict::Well), finding("artifacts", Verdict::Skipped)];
    let said = run(&mut coordinator.cnx(&["doctor"]));
    assert_eq!((said.code, said.err.as_str()), (0, "all is well\n"), "{}", said.out);
    assert!(said.out.contains("well     disk       found of disk"), "{}", said.out);

    coordinator.pool.findings.lock().unwrap().push(finding("leases", Verdict::Problem));
    let said = run(&mut coordinator.cnx(&["doctor"]));
    assert_eq!((said.code, said.err.as_str()), (1, "error: 1 problem\n"));
    assert!(
        said.out.contains("problem  leases     found of leases\n") && said.out.contains("→ Do something."),
        "{}",
        said.out
    );
    let said = run(&mut coordinator.cnx(&["doctor", "--json"]));
    let value: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(
        (said.code, &value["well"], &value["findings"][2]["verdict"]),
        (1, &false.into(), &"problem".into())
    );
}

#[test]
fn a_doctor_sent_to_a_coordinator_that_does_not_answer_does_not_look_at_another_folder() {
    let said = run(&mut cnx(&["doctor", "--server", "http://127.0.0.1:1"]));
    assert_eq!((said.code, said.out.as_str()), (3, ""), "{}", said.err);
}

#[test]
fn a_backup_is_of_a_state_folder_not_of_an_address() {
    for verb in [&["backup"] as &[&str], &["restore", "x.db"]] {
        let said = run(cnx(verb).args(["--server", "http://127.0.0.1:1", "--state", "/nowhere"]));
        assert!(said.code == 2 && said.err.contains("on the coordinator's machine"), "{}", said.err);
    }
}

#[test]
fn what_cnxd_refuses_is_told_in_its_words_and_another_version_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let daemon = folder.path().join("cnxd");
    let backup = |text: &str| {
        script(&daemon, text);
        run(cnx(&["backup", "--state", "/nowhere"]).env("CNX_DAEMON", &daemon))
    };
    let said = backup("echo 'some log line' >&2; echo 'error: /x is there already' >&2; exit 1");
    assert_eq!((said.code, said.err.as_str()), (1, "error: /x is there already\n"));
    let said = backup("echo 'unrecognized subcommand' >&2; exit 2");
    assert!(said.code == 1 && said.err.contains("of the same version"), "{}", said.err);
    let said = backup("echo no message");
    assert!(said.code == 1 && said.err.contains("of the same version"), "{}", said.err);
}
