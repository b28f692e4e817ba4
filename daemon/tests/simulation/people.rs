//! People: submit, cancel, retry; their calls and the answers get lost, and then they try again.

use std::collections::BTreeMap;
use std::time::Duration;

use tonic::{Request, Status};

use cnx_daemon::rpc::experiments::Service;
use cnx_proto::Spec;
use cnx_proto::dashed::Dashed;
use cnx_proto::recipe::recipe;
use cnx_proto::spec::{Arch, Dataset};
use cnx_proto::v1::experiments_server::Experiments;
use cnx_proto::v1::{ChangeReply, NewExperiment, SelectRequest, SubmitReply, SubmitRequest};

use crate::daemon::Done;
use crate::faults::Mutation;
use crate::world::{Event, World};

/// What a person says.
#[derive(Debug, Clone)]
pub enum Call {
    Submit(u64, SubmitRequest),
    Cancel(u64, SelectRequest),
    Retry(u64, SelectRequest),
}

/// What a person is told.
#[derive(Debug, Clone)]
pub enum Outcome {
    Submitted(SubmitReply),
    Cancelled(ChangeReply),
    Retried(ChangeReply),
}

/// Those who use it.
#[derive(Debug, Default)]
pub struct People {
    calls: BTreeMap<u64, (Call, u32)>,
    answers: BTreeMap<u64, Outcome>,
    called: u64,
    specs: Vec<Spec>,
    submissions: u32,
}

/// Someone who hears nothing calls again, so often.
const TRIES: u32 = 4;
const IMPATIENCE: Duration = Duration::from_secs(8);

impl Call {
    fn number(&self) -> u64 {
        match self {
            Call::Submit(number, _) | Call::Cancel(number, _) | Call::Retry(number, _) => *number,
        }
    }
}

impl People {
    /// Whether somebody waits for an answer.
    pub fn wait(&self) -> bool {
        !self.calls.is_empty()
    }
}

impl World {
    /// A person does something, and another will a little later.
    pub fn person(&mut self) {
        if self.is_calm() {
            return;
        }
        // People act at any time, or on the heels of each other.
        let next =
            if self.random.bool() { self.between(1, self.weather.idle_ms) } else { self.between(0, 40) };
        self.after(next, Event::Person);
        let (ids, more) = (self.ledger.ids(), self.people.submissions < self.weather.submissions);
        self.people.called += 1;
        let number = self.people.called;
        let call = match self.random.u32(..10) {
            0..6 if more || ids.is_empty() => Call::Submit(number, self.submission()),
            6 | 7 if !ids.is_empty() => Call::Cancel(number, self.one_of(&ids)),
            8 | 9 if !ids.is_empty() => Call::Retry(number, self.one_of(&ids)),
            _ => return,
        };
        self.people.calls.insert(number, (call.clone(), TRIES));
        self.call(call);
    }

    fn one_of(&mut self, ids: &[u64]) -> SelectRequest {
        // The newest are where something happens.
        let newest = if self.random.bool() { ids.len().saturating_sub(3) } else { 0 };
        let id = ids[self.random.usize(newest..ids.len())];
        SelectRequest { selectors: vec![id.to_string()], ..SelectRequest::default() }
    }

    fn submission(&mut self) -> SubmitRequest {
        self.people.submissions += 1;
        let mut experiments = Vec::new();
        for _ in 0..self.random.u32(1..5) {
            let known = self.people.specs.len();
            let again = known > 0 && self.random.u32(..5) == 0;
            let spec =
                if again { self.people.specs[self.random.usize(..known)].clone() } else { self.spec() };
            experiments.push(NewExperiment { spec_json: spec.to_json(), ..NewExperiment::default() });
        }
        let sweep =
            if self.random.u32(..3) == 0 { format!("sweep{}", self.random.u32(..3)) } else { String::new() };
        SubmitRequest { experiments, sweep, force: self.random.u32(..20) == 0, ..SubmitRequest::default() }
    }

    fn spec(&mut self) -> Spec {
        let mut spec = recipe(Arch::CondenseNet, Dataset::Synthetic);
        let number = self.people.specs.len() as u64 + 1;
        spec.name = format!("e{number}");
        spec.model.stages = Dashed(vec![2, 2, 2]);
        spec.model.growth = Dashed(vec![8, 16, 32]);
        spec.train.seed = number;
        spec.train.epochs = self.random.u32(1..=6);
        spec.resources.max_attempts = self.random.u32(1..=8);
        self.people.specs.push(spec.clone());
        spec
    }

    fn call(&mut self, call: Call) {
        let lost = !self.is_calm() && self.chance(self.weather.lost * 4);
        let delay = self.between(0, 20);
        let number = call.number();
        if !lost {
            self.after(delay, Event::Called(call));
        }
        self.after(IMPATIENCE, Event::Impatient(number));
    }

    /// Nothing was heard: once more, or never mind.
    pub fn impatient(&mut self, number: u64) {
        let Some((call, tries)) = self.people.calls.get_mut(&number) else { return };
        *tries -= 1;
        let call = call.clone();
        if *tries == 0 {
            self.people.calls.remove(&number);
        } else {
            self.call(call);
        }
    }

    /// The call reaches the coordinator.
    pub fn called(&mut self, call: Call) {
        if self.daemon.stopped {
            self.daemon.deferred.push(Event::Called(call));
            return;
        }
        if self.serves_a_person() {
            let later = self.between(1, 10);
            return self.after(later, Event::Called(call));
        }
        let Some(coordinator) = self.coordinator() else { return };
        self.note(format_args!("called {}: {}", call.number(), words(&call)));
        let service = Service::new(coordinator);
        let early = self.mutation == Some(Mutation::AnswersBeforeCommit);
        if let (true, Call::Submit(_, request)) = (early, &call) {
            self.ledger.promised(request);
        }
        self.begin_person(async move {
            let number = call.number();
            let outcome = match call {
                Call::Submit(_, request) => {
                    service.submit(Request::new(request)).await.map(|r| Outcome::Submitted(r.into_inner()))
                }
                Call::Cancel(_, request) => {
                    service.cancel(Request::new(request)).await.map(|r| Outcome::Cancelled(r.into_inner()))
                }
                Call::Retry(_, request) => {
                    service.retry(Request::new(request)).await.map(|r| Outcome::Retried(r.into_inner()))
                }
            };
            Done::Person(number, outcome)
        });
    }

    /// The coordinator answers.
    pub fn answer(&mut self, number: u64, outcome: Result<Outcome, Status>) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(status) => {
                self.note(format_args!("call {number} is refused: {}", status.message()));
                if status.code() != tonic::Code::NotFound {
                    self.wrong(format!("a call failed: {status}"));
                }
                self.people.calls.remove(&number);
                return;
            }
        };
        if !self.is_calm() && self.chance(self.weather.lost * 4) {
            return;
        }
        let delay = self.between(0, 20);
        self.people.answers.insert(number, outcome);
        self.after(delay, Event::Answered(number));
    }

    /// The answer arrives: from now on it is a promise.
    pub fn answered(&mut self, number: u64) {
        let Some(outcome) = self.people.answers.remove(&number) else { return };
        let Some((call, _)) = self.people.calls.remove(&number) else { return };
        match (&call, &outcome) {
            (Call::Submit(_, request), Outcome::Submitted(reply)) => {
                self.ledger.promised(request);
                if request.experiments.len() != reply.experiments.len() {
                    self.wrong(format!(
                        "{} were submitted, {} answered",
                        request.experiments.len(),
                        reply.experiments.len()
                    ));
                }
                reply.experiments.iter().for_each(|entry| self.ledger.known(entry.id));
            }
            (_, Outcome::Cancelled(reply)) => {
                for change in reply.changes.iter().filter(|change| change.changed) {
                    self.ledger.cancelled(change.id);
                }
            }
            (_, Outcome::Retried(reply)) => {
                for change in reply.changes.iter().filter(|change| change.new_id > 0) {
                    self.ledger.known(change.new_id);
                }
            }
            _ => self.wrong("an answer to something else".to_owned()),
        }
    }
}

fn words(call: &Call) -> String {
    match call {
        Call::Submit(_, request) => format!("submit {} to {:?}", request.experiments.len(), request.sweep),
        Call::Cancel(_, request) => format!("cancel {:?}", request.selectors),
        Call::Retry(_, request) => format!("retry {:?}", request.selectors),
    }
}
