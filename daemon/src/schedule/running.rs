//! What there is to say of an experiment that runs, when not all is as it should be.

use std::time::Duration;

use crate::lifecycle::Stopping;

/// A running experiment.
#[derive(Debug, Clone, Copy)]
pub struct Running<'a> {
    /// Who holds its lease.
    pub worker: &'a str,
    /// Whether that worker is connected.
    pub connected: bool,
    /// It is to stop, and why.
    pub stopping: Option<Stopping>,
    /// How long its lease was not renewed, if that is longer than a worker should be silent.
    pub silence: Option<Duration>,
    /// How long it keeps its lease if it stays silent.
    pub left: Duration,
}

impl Running<'_> {
    /// In a sentence; nothing if all is well.
    pub fn words(&self) -> String {
        let worker = self.worker;
        let stopping = self.stopping.map(|why| match why {
            Stopping::Cancel => "being cancelled",
            Stopping::Pause => "being paused",
            Stopping::Yield => "being preempted, back to the queue",
        });
        let silent = self.silence.map(|silence| {
            format!(
                "worker {worker} is suspect: not heard for {}; it may be computing on, and keeps its lease for {} more",
                seconds(silence),
                seconds(self.left)
            )
        });
        match (stopping, self.connected, silent) {
            (Some(stopping), _, Some(silent)) => format!("{stopping}: {silent}"),
            (None, _, Some(silent)) => silent,
            (Some(stopping), true, None) => format!("{stopping}: waits for the worker to stop it"),
            (Some(stopping), false, None) => {
                format!("{stopping}: worker {worker} hears of it when it attaches again")
            }
            (None, true, None) => String::new(),
            (None, false, None) => format!("worker {worker} is not connected; it may be computing on"),
        }
    }
}

fn seconds(time: Duration) -> String {
    humantime::format_duration(Duration::from_secs(time.as_secs())).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_worker_is_told_with_what_is_left_of_its_lease() {
        let well =
            Running { worker: "w", connected: true, stopping: None, silence: None, left: Duration::ZERO };
        assert_eq!(well.words(), "");
        let silence = Some(Duration::from_millis(125_900));
        let silent = Running { silence, left: Duration::from_secs(174), ..well };
        assert_eq!(
            silent.words(),
            "worker w is suspect: not heard for 2m 5s; it may be computing on, and keeps its lease for 2m 54s more"
        );
        let cancelled = Running { stopping: Some(Stopping::Cancel), ..silent }.words();
        assert!(cancelled.starts_with("being cancelled: worker w is suspect"), "{cancelled}");
        let away = Running { connected: false, ..well }.words();
        assert_eq!(away, "worker w is not connected; it may be computing on");
    }
}
