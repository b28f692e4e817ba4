//! What a hostile caller says: texts, numbers, messages of each type, and what is left of them once bytes were turned.

use cnx_proto::v1::report::Body;
use cnx_proto::v1::*;
use prost::Message;

use crate::forged;

/// Everything random comes from here, and so from the seed.
pub struct Chance(fastrand::Rng);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(fastrand::Rng::with_seed(0xC0DE ^ seed))
    }

    pub fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    pub fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.0.u8(..)).collect()
    }

    pub fn number(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::from(u32::MAX),
            3 => i64::MAX as u64,
            _ => self.0.u64(..),
        }
    }

    pub fn float(&mut self) -> f64 {
        self.pick(&[f64::NAN, f64::INFINITY, -1.0, 1e308, -0.0, f64::MIN_POSITIVE])
    }

    /// What should steer a terminal, leave a folder, end a statement or a line, or be too long. Names nothing that is there.
    pub fn text(&mut self) -> String {
        let text = self.pick(&[
            "\x1b[2J\x1b]0;owned\x07",
            "a\nINFO cnx_daemon: all is well",
            "'; DROP TABLE experiments; --",
            "\" OR 1=1 --",
            "../../../../etc/passwd",
            "/etc/passwd\0.safetensors",
            "=HYPERLINK(\"http://x\")",
            "$(reboot)",
            "`reboot`",
            "%s%s%n",
            "\u{202e}txt.exe\u{9b}31m",
            "",
            " ",
        ]);
        if self.one_in(20) { text.repeat(1 + self.below(2000)) } else { text.to_owned() }
    }

    fn texts(&mut self) -> Vec<String> {
        (0..1 + self.below(5)).map(|_| format!("{}x", self.text())).collect()
    }

    /// Turns, inserts, removes or cuts some bytes; now and then none.
    pub fn mutate(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        for _ in 0..self.below(6) {
            let at = self.below(bytes.len() + 1);
            match self.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.0.u8(..)),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                3 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
                // A length or a number that never ends.
                _ => drop(bytes.splice(at..at, [0xff; 11])),
            }
        }
        bytes
    }

    /// A message to a method of Experiments that changes nothing whatever becomes of its bytes.
    pub fn question(&mut self) -> (&'static str, Vec<u8>) {
        let (selectors, selector) = (self.texts(), self.text());
        let limit = self.number() as u32;
        let asked = |method: &'static str, message: Vec<u8>| (method, message);
        match self.below(7) {
            0 => asked(
                "Status",
                StatusRequest { selectors, limit, before: self.number(), after: Some(self.number()) }
                    .encode_to_vec(),
            ),
            1 => asked("Watch", StatusRequest { selectors, limit, ..Default::default() }.encode_to_vec()),
            2 => asked("Describe", DescribeRequest { selector }.encode_to_vec()),
            3 => asked("Logs", LogsRequest { selector, follow: false, tail: limit }.encode_to_vec()),
            4 => asked("Results", ResultsRequest { selectors, after: self.number() }.encode_to_vec()),
            5 => asked("Doctor", self.bytes(40)),
            _ => asked("ListWorkers", self.bytes(40)),
        }
    }

    /// A message to a method of Experiments that would change something if it named what is there, or were valid.
    pub fn change(&mut self) -> (&'static str, Vec<u8>) {
        let selectors = self.texts();
        let priority = self.number() as i32;
        match self.below(7) {
            0 => ("Submit", self.submission().encode_to_vec()),
            1 => ("SubmitMany", self.submission().encode_to_vec()),
            2 => ("Cancel", SelectRequest { selectors, all_failed: false }.encode_to_vec()),
            3 => ("Retry", SelectRequest { selectors, all_failed: false }.encode_to_vec()),
            4 => ("Pause", PauseRequest { selectors, queue: false }.encode_to_vec()),
            5 => ("Resume", PauseRequest { selectors, queue: false }.encode_to_vec()),
            _ => ("SetPriority", PriorityRequest { selectors, priority }.encode_to_vec()),
        }
    }

    fn submission(&mut self) -> SubmitRequest {
        let good = crate::common::spec("hostile").to_json();
        let experiments = (0..self.below(4)).map(|_| {
            let spec_json = match self.below(5) {
                0 => "[".repeat(10_000),
                1 => good.replace("\"epochs\":", "\"epochs\":-"),
                2 => good.replace("\"hostile\"", &serde_json::json!(format!("{} ", self.text())).to_string()),
                3 => good[..self.below(good.len())].to_owned(),
                _ => good.replace("\"seed\":", "\"seed\":1e999,\"seed\":"),
            };
            NewExperiment { spec_json }
        });
        let experiments = experiments.collect();
        SubmitRequest { experiments, sweep: format!("{} ", self.text()), force: true, ..Default::default() }
    }

    /// What a worker's stream begins with that is no Hello of a worker, whatever follows.
    pub fn greeting(&mut self, held: &Lease) -> Vec<u8> {
        let message = match self.below(5) {
            0 => return self.bytes(200),
            1 => from_worker::Message::Heartbeat(Heartbeat {
                number: self.number(),
                leases: vec![held.clone()],
                draining: true,
            }),
            2 => from_worker::Message::Report(self.report(held)),
            _ => from_worker::Message::Hello(Hello {
                worker: format!("{} ", self.text()),
                host: self.text(),
                device: self.text(),
                slots: self.number() as u32,
                version: self.text(),
                held: vec![held.clone(), forged(self, held)],
                memory_gib: self.number() as u32,
                labels: self.texts(),
            }),
        };
        FromWorker { message: Some(message) }.encode_to_vec()
    }

    /// A report of a lease that nobody has.
    pub fn report(&mut self, held: &Lease) -> Report {
        let outcome = Outcome {
            kind: outcome::Kind::Succeeded.into(),
            failure: self.number() as i32,
            message: self.text(),
        };
        let body = match self.below(6) {
            0 => Body::Epoch(EpochMetrics {
                epoch: self.number() as u32,
                test_top1_error: self.float(),
                ..Default::default()
            }),
            1 => Body::Log(LogLine { at_ms: self.number(), attempt: 0, text: self.text() }),
            2 => Body::Artifact(Artifact { name: self.text(), deleted: self.texts(), ..Default::default() }),
            3 => Body::Progress(Progress { loss: self.float(), step: self.number(), ..Default::default() }),
            4 => Body::Figures(Figures::default()),
            _ => Body::Outcome(outcome),
        };
        let lease = Some(forged(self, held));
        Report { lease, sequence: self.number(), at_ms: self.number(), body: Some(body) }
    }
}
