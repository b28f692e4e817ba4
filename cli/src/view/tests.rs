use super::*;
use cnx_proto::v1::Progress;

fn spec_json(name: &str, published: f64) -> String {
    let text = format!(
        "name = \"{name}\"\n[model]\narch = \"condensenet\"\nstages = \"8-8-8\"\ngrowth = \"8-16-32\"\n\
         [data]\ndataset = \"cifar10\"\n[published]\ntop1_error = {published:?}\n"
    );
    cnx_proto::file::parse("test.toml", &text, &[]).unwrap().to_json()
}

fn experiment(id: u64, name: &str, state: State, published: f64) -> Experiment {
    Experiment {
        id,
        name: name.into(),
        state: state as i32,
        spec_json: spec_json(name, published),
        ..Default::default()
    }
}

pub fn example() -> StatusReply {
    let done = Experiment {
        attempt: 1,
        epochs_done: 300,
        top1_error: Some(6.31),
        ..experiment(1, "condensenet-50", State::Succeeded, 6.22)
    };
    let progress = Progress {
        phase: Phase::Train as i32,
        epoch: 215,
        epochs: 300,
        step: 167_348,
        steps: 234_600,
        loss: 0.1234,
        train_top1_error: 3.456,
        learning_rate: 0.0195,
        images_per_s: 8140.4,
        condensing_stage: 3,
        condensing_stages: 3,
    };
    let training = Experiment {
        attempt: 2,
        resumed_at_epoch: 180,
        epochs_done: 214,
        top1_error: Some(7.02),
        progress: Some(progress),
        ..experiment(2, "condensenet-74", State::Running, 5.28)
    };
    let queued = Experiment {
        message: "next free GPU".into(),
        ..experiment(3, "condensenet-86", State::Queued, 5.06)
    };
    let failed = Experiment {
        attempt: 1,
        message: "NaN loss at step 4,113\x1b[2J".into(),
        ..experiment(4, "condensenet-98", State::Failed, 4.83)
    };
    let coordinator = Coordinator {
        address: "http://127.0.0.1:7420".into(),
        started_at_ms: 1_000,
        workers: 2,
        busy_slots: 1,
        free_slots: 1,
        queued: 1,
        running: 1,
        ..Default::default()
    };
    let experiments = vec![done, training, queued, failed];
    StatusReply { coordinator: Some(coordinator), experiments, ..StatusReply::default() }
}

fn plain(lines: Vec<String>) -> Vec<String> {
    lines.iter().map(|l| anstream::adapter::strip_str(l).to_string()).collect()
}

#[test]
fn the_list_shows_how_far_and_what_it_reached() {
    let lines = plain(frame(&example(), 11_521_000, (190, 30)));
    assert_eq!(
        lines,
        [
            "coordinator 127.0.0.1:7420, up 3 h 12 min; 2 workers, 1 of 2 busy; 1 running, 1 queued",
            "",
            "ID  EXPERIMENT      STATE   PROGRESS                         TOP-1 ERR  PUBLISHED   LOSS  TRAIN ERR      LR  CONDENSED        SPEED         ETA  ATTEMPT",
            " 1  condensenet-50  done    300/300                               6.31       6.22                                                                1",
            " 2  condensenet-74  train   ████████▌    214/300                  7.02       5.28  0.123       3.46  0.0195        3/3  8,140 img/s  8 min 48 s  2, resumed at 180",
            " 3  condensenet-86  queued  next free GPU                                    5.06",
            " 4  condensenet-98  failed  NaN loss at step 4,113\\u{1b}[2J                  4.83                                                                1                  cnx explain 4",
        ]
    );
}

#[test]
fn of_one_training_a_watch_also_says_how_it_goes_on_a_narrow_screen() {
    let mut reply = example();
    reply.experiments = vec![reply.experiments[1].clone()];
    let lines = plain(frame(&reply, 11_521_000, (80, 24)));
    assert_eq!(
        lines[5..],
        [
            "epoch 215 of 300, step 167,348 of 234,600, 8,140 img/s, done in 8 min 48 s",
            "loss 0.123, training error 3.46 %, lr 0.0195, condensing stage 3 of 3",
        ]
    );
    reply.experiments[0].progress = None;
    assert!(!plain(frame(&reply, 11_521_000, (80, 24))).iter().any(|line| line.contains("loss")));
}

#[test]
fn a_job_shows_its_model_where_a_training_shows_epochs() {
    let spec = cnx_proto::Spec::from_json(&spec_json("condensenet-50", 6.22)).unwrap();
    let from = "experiments/1/final.safetensors".to_owned();
    let job = spec.job(vec![cnx_proto::spec::Step::Evaluate], from, "0".repeat(64));
    let evaluated = Experiment {
        name: job.name.clone(),
        spec_json: job.to_json(),
        attempt: 1,
        top1_error: Some(6.31),
        ..experiment(5, "condensenet-50", State::Succeeded, 6.22)
    };
    let lines = plain(table(&[evaluated], 0).lines(Some(120)));
    assert!(lines[1].contains("condensenet-50-evaluate  done   of 1/final.safetensors"), "{lines:?}");
    assert!(lines[1].contains("6.31") && !lines[1].contains("/300"), "{lines:?}");
    let job = spec.latency_job(cnx_proto::spec::Engine::Native, 1);
    let timed = Experiment {
        spec_json: job.to_json(),
        attempt: 1,
        ..experiment(6, "condensenet-50-latency", State::Succeeded, 6.22)
    };
    let lines = plain(table(&[timed], 0).lines(Some(120)));
    assert!(lines[1].contains("condensenet-50-latency  done   on native"), "{lines:?}");
    assert_eq!([short("/m"), short("/a/b/m"), short("")], ["/m", "b/m", ""]);
}

#[test]
fn what_a_silent_worker_runs_is_marked() {
    let mut reply = example();
    reply.experiments[1].suspect_since_ms = 11_400_000;
    let lines = plain(frame(&reply, 11_521_000, (190, 30)));
    assert!(lines[4].contains("214/300 suspect: silent for 2 min 1 s"), "{}", lines[4]);
}

#[test]
fn eighty_columns_keep_the_essential() {
    for line in plain(frame(&example(), 11_521_000, (80, 30))) {
        assert!(unicode_width::UnicodeWidthStr::width(line.as_str()) <= 80, "{line:?}");
    }
    let lines = plain(frame(&example(), 11_521_000, (80, 30)));
    assert!(lines[4].contains("214/300") && lines[4].contains("7.02"), "{}", lines[4]);
}

#[test]
fn a_low_terminal_shows_what_runs() {
    let lines = plain(frame(&example(), 11_521_000, (80, 7)));
    assert!(lines.iter().any(|l| l.contains("condensenet-74")), "{lines:?}");
    assert!(lines.iter().any(|l| l == "… and 2 more"), "{lines:?}");
    assert!(lines.len() < 7);
}

#[test]
fn what_is_paused_says_so_and_a_paused_queue_says_it_first() {
    let mut reply = example();
    let c = reply.coordinator.as_mut().unwrap();
    (c.paused, c.queue_paused_since_ms) = (1, 5);
    reply.experiments[2].state = State::Paused as i32;
    reply.experiments[2].message = "cnx resume lets it go on".into();
    reply.experiments[2].priority = 5;
    reply.experiments[1].stopping = StopReason::Paused as i32;
    let lines = plain(frame(&reply, 11_521_000, (190, 30)));
    assert!(lines[0].starts_with("QUEUE PAUSED (cnx resume --queue); coordinator"), "{}", lines[0]);
    assert!(lines[0].ends_with("1 queued, 1 paused"), "{}", lines[0]);
    assert!(lines[4].contains("condensenet-74  pausing"), "{}", lines[4]);
    assert!(lines[5].contains("paused          5  cnx resume lets it go on"), "{}", lines[5]);
}

#[test]
fn a_pipe_gets_a_line_a_change() {
    let mut changes = Changes::default();
    let mut reply = example();
    assert_eq!(changes.lines(&reply).len(), 4);
    assert!(changes.lines(&reply).is_empty());
    reply.experiments[1].epochs_done += 1;
    assert_eq!(
        changes.lines(&reply),
        ["2 condensenet-74: running, attempt 2, resumed at 180, epoch 215/300, top-1 error 7.02"]
    );
}
