//! What an attempt tells: reports to the agent, lines to the log.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cnx_proto::v1::{Phase, Progress, Report, report::Body};
use prost::Message;

use crate::failure::{Failure, Result};
use crate::stop::Stop;

/// Progress is told about so often: several times a second.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);

/// Reports that may wait to be written. A reader that falls behind holds up durable reports; of progress it misses some.
const WAITING: usize = 64;

/// Where reports go.
pub type Sink = Box<dyn FnMut(&Report) -> io::Result<()> + Send>;

/// Tells reports through a thread of its own, so that the training does not wait for the reader.
#[derive(Debug)]
pub struct Reporter {
    sender: SyncSender<Report>,
    writer: JoinHandle<io::Result<()>>,
    last_progress: Option<Instant>,
    newest: Progress,
}

/// Length-delimited messages to a stream, e.g. standard output.
pub fn frames(mut output: impl Write + Send + 'static) -> Sink {
    Box::new(move |report| {
        output.write_all(&report.encode_length_delimited_to_vec())?;
        output.flush()
    })
}

impl Reporter {
    /// A reporter to a sink. When the sink fails, nobody listens any more, and the attempt is asked to stop.
    pub fn new(sink: Sink, stop: Stop) -> Reporter {
        let (sender, receiver) = sync_channel(WAITING);
        let writer = std::thread::spawn(move || write(&receiver, sink).inspect_err(|_| stop.request()));
        Reporter { sender, writer, last_progress: None, newest: Progress::default() }
    }

    /// Tells a durable report.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn tell(&mut self, body: Body) -> Result<()> {
        self.sender.send(stamped(body)).map_err(|_| Failure::internal("nobody reads the reports any more"))
    }

    /// Whether it is time to tell progress again.
    pub fn progress_is_due(&self) -> bool {
        self.last_progress.is_none_or(|last| last.elapsed() >= PROGRESS_INTERVAL)
    }

    /// Tells progress, unless the reader is behind.
    pub fn progress(&mut self, progress: Progress) {
        (self.last_progress, self.newest) = (Some(Instant::now()), progress);
        let _ = self.sender.try_send(stamped(Body::Progress(progress)));
    }

    /// Tells that nothing is computed from here on, until further progress. Not lost where the reader is behind.
    ///
    /// # Errors
    /// When nobody listens any more.
    pub fn parked(&mut self) -> Result<()> {
        self.last_progress = None;
        self.tell(Body::Progress(Progress { phase: Phase::Parked.into(), ..self.newest }))
    }

    /// Waits until everything is written.
    ///
    /// # Errors
    /// When something could not be.
    pub fn finish(self) -> Result<()> {
        drop(self.sender);
        match self.writer.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::internal(format!("cannot write reports: {error}"))),
            Err(_) => Err(Failure::internal("the thread that writes reports died")),
        }
    }
}

fn write(receiver: &Receiver<Report>, mut sink: Sink) -> io::Result<()> {
    receiver.iter().try_for_each(|report| sink(&report))
}

/// Lease and sequence are the agent's to fill in.
fn stamped(body: Body) -> Report {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Report { lease: None, sequence: 0, at_ms: since.as_millis() as u64, body: Some(body) }
}

/// A line of the log, for people: the agent passes standard error on.
pub fn log(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", line.as_ref());
}

#[cfg(test)]
mod tests {
    use super::*;
    use cnx_proto::v1::Outcome;

    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_broken_pipe_asks_to_stop() {
        let stop = Stop::default();
        let mut reporter = Reporter::new(frames(Broken), stop.clone());
        reporter.tell(Body::Outcome(Outcome::default())).unwrap();
        assert!(reporter.finish().unwrap_err().message.contains("reports"));
        assert!(stop.check().is_err());
    }
}
