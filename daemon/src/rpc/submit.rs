//! Submissions, in one message or in parts: all of it is queued, or none.

use std::sync::Arc;

use tonic::{Response, Status, Streaming};

use cnx_proto::Spec;
use cnx_proto::v1::{SubmitReply, SubmitRequest};

use super::error::{self, finished};
use crate::coordinator::Coordinator;
use crate::store::{NewExperiment, Selection, Submission};

/// Experiments in one submission: they are held in memory until all of them are there.
const MAX_EXPERIMENTS: usize = 200_000;

/// A spec in JSON, in bytes; the longest of those in configs/ has 1,200.
const MAX_SPEC_BYTES: usize = 64 << 10;

/// All specs of one submission, in bytes: they are held in memory until all of them are there.
const MAX_SUBMISSION_BYTES: usize = 512 << 20;

/// Problems told; the rest is like them.
const MAX_PROBLEMS: usize = 1000;

type Reply = Result<Response<SubmitReply>, Status>;

/// Queues what is in one message.
pub async fn one(coordinator: Arc<Coordinator>, request: SubmitRequest) -> Reply {
    let checked = Checked::default().and(request).await?;
    queue(coordinator, checked).await
}

/// Queues what comes in parts.
pub async fn many(coordinator: Arc<Coordinator>, mut parts: Streaming<SubmitRequest>) -> Reply {
    let mut checked = Checked::default();
    while let Some(part) = parts.message().await? {
        checked = checked.and(part).await?;
    }
    queue(coordinator, checked).await
}

async fn queue(coordinator: Arc<Coordinator>, checked: Checked) -> Reply {
    let (mut submission, after) = checked.submission()?;
    finished(async move {
        if !after.is_empty()
            && let Selection::Ids(ids) = coordinator.store.select(&after).await?
        {
            submission.after = ids;
        }
        let experiments = coordinator.store.submit(submission, coordinator.chance.now()).await?;
        let free_slots = coordinator.pool().summary().free_slots;
        coordinator.ring();
        Ok(Response::new(SubmitReply { experiments, free_slots }))
    })
    .await
}

/// What of a submission is there so far, checked.
#[derive(Default)]
struct Checked {
    submission: Option<Submission>,
    after: Vec<String>,
    count: usize,
    bytes: usize,
    problems: Vec<String>,
}

impl Checked {
    /// Checks one more part, where it does not hold up everything else.
    async fn and(mut self, part: SubmitRequest) -> Result<Checked, Status> {
        let found = self.count + part.experiments.len();
        if found > MAX_EXPERIMENTS {
            return Err(Status::invalid_argument(format!(
                "nothing was queued: a submission holds at most {MAX_EXPERIMENTS} experiments, found {found} or \
                 more; split it into several sweeps"
            )));
        }
        self.bytes += part.experiments.iter().map(|new| new.spec_json.len()).sum::<usize>();
        if self.bytes > MAX_SUBMISSION_BYTES {
            return Err(Status::invalid_argument(format!(
                "nothing was queued: a submission holds at most {} MiB of specs; split it into several sweeps",
                MAX_SUBMISSION_BYTES >> 20
            )));
        }
        super::selectors(&part.after)?;
        let checked = tokio::task::spawn_blocking(move || {
            self.check(&part);
            self
        });
        checked.await.map_err(|e| Status::internal(format!("a defect in cnxd: {e}")))
    }

    /// Validates every spec again: nothing reaches the queue unchecked.
    fn check(&mut self, part: &SubmitRequest) {
        if self.submission.is_none() {
            self.after.clone_from(&part.after);
        }
        let submission = self.submission.get_or_insert_with(|| Submission {
            experiments: Vec::new(),
            sweep: Some(part.sweep.clone()).filter(|name| !name.is_empty()),
            force: part.force,
            dry_run: part.dry_run,
            priority: part.priority,
            preempts: part.preempt,
            after: Vec::new(),
        });
        for new in &part.experiments {
            self.count += 1;
            match read(&new.spec_json) {
                Ok(spec) if self.problems.is_empty() => {
                    submission.experiments.push(NewExperiment::from(&spec))
                }
                Ok(_) => {}
                Err(found) if self.problems.len() < MAX_PROBLEMS => {
                    let number = self.count;
                    self.problems.extend(found.lines().map(|line| format!("experiment {number}: {line}")));
                }
                Err(_) => {}
            }
        }
    }

    /// All of it, and what it is to run after; or every problem of every spec.
    fn submission(mut self) -> Result<(Submission, Vec<String>), Status> {
        let submission = self.submission.unwrap_or_default();
        if self.count == 0 {
            self.problems.push("a submission needs at least one experiment".to_owned());
        }
        if let Some(sweep) = &submission.sweep
            && !cnx_proto::validate::is_name(sweep)
        {
            self.problems.push(format!(
                "a sweep's name is made of letters, digits and . _ + = - (not only digits), found {sweep:?}"
            ));
        }
        if self.problems.is_empty() {
            return Ok((submission, self.after));
        }
        Err(Status::invalid_argument(error::list("nothing was queued:", &self.problems)))
    }
}

fn read(spec_json: &str) -> Result<Spec, String> {
    if spec_json.len() > MAX_SPEC_BYTES {
        return Err(format!("a spec has at most {MAX_SPEC_BYTES} bytes, found {}", spec_json.len()));
    }
    Spec::from_json(spec_json)
}
