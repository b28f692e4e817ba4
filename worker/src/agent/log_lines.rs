//! A child's standard error as log lines, bounded in length and in rate: a child that floods its log must not fill
//! the spool or the coordinator's disk.

use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::child::Said;

/// Longest line that is kept, in bytes; the rest is cut off.
const MAX_LINE_BYTES: usize = 4096;

/// Lines that are kept at once, after a quiet time.
const BURST: u32 = 500;

/// Lines a second that are kept for long.
const LINES_PER_S: u32 = 50;

/// Hands on the lines of `input` until its end.
pub async fn read(input: impl AsyncRead + Unpin, say: mpsc::Sender<Said>) {
    let mut input = BufReader::new(input);
    let mut throttle = Throttle::new(Instant::now());
    let mut left_out = 0_u64;
    // An unreadable pipe is a closed one: the exit of the child tells the rest.
    while let Ok(Some(line)) = read_line(&mut input).await {
        tracing::debug!(target: "cnx_worker::child", "{line}");
        if !throttle.admit(Instant::now()) {
            left_out += 1;
            continue;
        }
        if say_left_out(&say, &mut left_out).await.is_err() || say.send(Said::Line(line)).await.is_err() {
            return;
        }
    }
    let _ = say_left_out(&say, &mut left_out).await;
}

async fn say_left_out(
    say: &mpsc::Sender<Said>,
    left_out: &mut u64,
) -> Result<(), mpsc::error::SendError<Said>> {
    if *left_out == 0 {
        return Ok(());
    }
    let note = format!("({} lines left out: more than {LINES_PER_S} a second)", std::mem::take(left_out));
    say.send(Said::Line(note)).await
}

/// The next line without its end, cut to `MAX_LINE_BYTES`; `None` at the end of the input.
async fn read_line(input: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut cut = false;
    loop {
        let chunk = input.fill_buf().await?;
        if chunk.is_empty() {
            if line.is_empty() {
                return Ok(None);
            }
            break;
        }
        let end = chunk.iter().position(|byte| *byte == b'\n');
        let part = &chunk[..end.unwrap_or(chunk.len())];
        let room = MAX_LINE_BYTES - line.len();
        line.extend_from_slice(&part[..part.len().min(room)]);
        cut |= part.len() > room;
        let used = end.map_or(chunk.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            break;
        }
    }
    let mut text = String::from_utf8_lossy(&line).trim_end().to_owned();
    if cut {
        text.push_str(" … (cut)");
    }
    Ok(Some(text))
}

/// A bucket of `BURST` lines that fills at `LINES_PER_S`.
struct Throttle {
    tokens: f64,
    at: Instant,
}

impl Throttle {
    fn new(now: Instant) -> Throttle {
        Throttle { tokens: f64::from(BURST), at: now }
    }

    fn admit(&mut self, now: Instant) -> bool {
        let passed: Duration = now.saturating_duration_since(self.at);
        self.at = now;
        self.tokens = (self.tokens + passed.as_secs_f64() * f64::from(LINES_PER_S)).min(f64::from(BURST));
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines(mut input: &[u8]) -> Vec<String> {
        let mut lines = vec![];
        while let Some(line) = read_line(&mut input).await.expect("readable") {
            lines.push(line);
        }
        lines
    }

    #[tokio::test]
    async fn lines_are_split_trimmed_and_made_text() {
        assert_eq!(lines(b"one\r\n\ntwo \xff\nlast").await, ["one", "", "two \u{fffd}", "last"]);
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_and_the_next_one_is_whole() {
        let mut input = vec![b'x'; 3 * MAX_LINE_BYTES];
        input.extend(b"\nnext");
        let lines = lines(&input).await;
        assert!(lines[0].ends_with("(cut)") && lines[0].len() < MAX_LINE_BYTES + 20);
        assert_eq!(lines[1], "next");
    }

    #[test]
    fn a_flood_is_throttled_and_a_pause_refills() {
        let start = Instant::now();
        let mut throttle = Throttle::new(start);
        let admitted = (0..10_000).filter(|_| throttle.admit(start)).count();
        assert_eq!(admitted, BURST as usize);
        let admitted = (0..10_000).filter(|_| throttle.admit(start + Duration::from_secs(2))).count();
        assert_eq!(admitted, 2 * LINES_PER_S as usize);
    }

    #[tokio::test]
    async fn what_is_left_out_is_counted_aloud() {
        let input = "line\n".repeat(BURST as usize + 2000);
        let (say, mut said) = mpsc::channel(8000);
        read(input.as_bytes(), say).await;
        let mut lines = vec![];
        while let Some(Said::Line(line)) = said.recv().await {
            lines.push(line);
        }
        assert!(lines.iter().any(|line| line.contains("lines left out")), "{} lines", lines.len());
    }
}
