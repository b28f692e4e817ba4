//! Downloads a file: to `NAME.part` beside it, going on where an earlier try stopped, until its MD5 is right.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use md5::{Digest, Md5};

use super::at;
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::term::format::bytes;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A try that takes longer is broken off and gone on with: a connection that hangs is noticed.
const LONGEST_TRY: Duration = Duration::from_secs(600);
/// Tries in a row that brought nothing.
const FRUITLESS_TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_millis(500);
/// The archives have 170 MB; a server that sends more sends something else.
const MOST_BYTES: u64 = 1 << 30;

/// Where a file is and what it must be.
pub struct Source {
    pub url: String,
    /// In hexadecimal.
    pub md5: String,
}

/// Downloads into the folder and returns the file's path.
pub fn download(context: &Context, source: &Source, folder: &Path, name: &str) -> Result<PathBuf> {
    fs::create_dir_all(folder).map_err(at(folder, "made"))?;
    let partial = folder.join(format!("{name}.part"));
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&partial)
        .map_err(at(&partial, "written"))?;
    if file.try_lock().is_err() {
        let message =
            format!("{} is being written by another cnx data fetch; wait for it", partial.display());
        return Err(Failure::refused(message));
    }
    let progress = Progress::new(context, name);
    let mut fruitless = 0;
    loop {
        let before = file.seek(SeekFrom::End(0)).map_err(at(&partial, "read"))?;
        let tried =
            request(&source.url, before).and_then(|answer| receive(answer, &mut file, before, &progress));
        let now = file.seek(SeekFrom::End(0)).map_err(at(&partial, "read"))?;
        match tried {
            Ok(()) => break,
            Err(Trouble::Final(message)) => return Err(Failure::refused(message)),
            Err(Trouble::Disk(error)) => return Err(at(&partial, "written")(error)),
            Err(Trouble::Passing(message)) => {
                fruitless = if now > before { 0 } else { fruitless + 1 };
                if fruitless == FRUITLESS_TRIES {
                    let kept = if now > 0 {
                        format!("; {} are kept, the next try goes on from there", bytes(now))
                    } else {
                        String::new()
                    };
                    return Err(Failure::refused(format!("{}: {message}{kept}", source.url)));
                }
                progress.note(&format!("{message}; trying again"));
                // A server in trouble is given time; one that sent something is asked on at once.
                std::thread::sleep(PAUSE * fruitless);
            }
        }
    }
    progress.bar.finish_and_clear();
    file.sync_all().map_err(at(&partial, "written"))?;
    if let Err(failure) = check_md5(&partial, &source.md5) {
        // What is wrong from the start would be wrong for ever.
        fs::remove_file(&partial).map_err(at(&partial, "removed"))?;
        return Err(Failure {
            message: format!("{} (from {}); it was removed", failure.message, source.url),
            ..failure
        });
    }
    let whole = folder.join(name);
    fs::rename(&partial, &whole).map_err(at(&whole, "written"))?;
    Ok(whole)
}

/// Refuses a file of another MD5.
pub fn check_md5(path: &Path, expected: &str) -> Result {
    let mut file = File::open(path).map_err(at(path, "read"))?;
    let mut md5 = Md5::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer).map_err(at(path, "read"))? {
            0 => break,
            n => md5.update(&buffer[..n]),
        }
    }
    let found: String = md5.finalize().iter().map(|b| format!("{b:02x}")).collect();
    if found == expected {
        return Ok(());
    }
    Err(Failure::refused(format!("{} is damaged: expected MD5 {expected}, found {found}", path.display())))
}

/// Why a try ended early.
enum Trouble {
    /// Another try may do better.
    Passing(String),
    /// No try will.
    Final(String),
    /// Our side.
    Disk(io::Error),
}

/// What a server answers: the bytes from `start` on.
struct Answer {
    start: u64,
    /// Of the whole file.
    total: Option<u64>,
    body: Box<dyn Read>,
}

fn request(url: &str, start: u64) -> std::result::Result<Answer, Trouble> {
    let config = ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(CONNECT_TIMEOUT))
        .timeout_recv_body(Some(LONGEST_TRY))
        .http_status_as_error(false)
        .user_agent(concat!("cnx/", env!("CARGO_PKG_VERSION")))
        .build();
    let mut request = ureq::Agent::new_with_config(config).get(url);
    if start > 0 {
        request = request.header("Range", format!("bytes={start}-"));
    }
    let response = request.call().map_err(|error| match error {
        ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::RequireHttpsOnly(_) => {
            Trouble::Final(format!("{url} cannot be downloaded: {error}"))
        }
        other => Trouble::Passing(other.to_string()),
    })?;
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let length = header("content-length").and_then(|v| v.parse::<u64>().ok());
    let range = header("content-range");
    match status {
        200 => Ok(Answer { start: 0, total: length, body: Box::new(response.into_body().into_reader()) }),
        206 => {
            let (from, total) =
                range.as_deref().and_then(content_range).unwrap_or((start, length.map(|l| start + l)));
            if from != start {
                return Err(Trouble::Final(format!(
                    "{url}: asked for bytes from {start}, the server sent those from {from}"
                )));
            }
            Ok(Answer { start, total, body: Box::new(response.into_body().into_reader()) })
        }
        // Nothing is left to send: all of it is here, or too much; its MD5 tells.
        416 => Ok(Answer { start, total: None, body: Box::new(io::empty()) }),
        429 | 500..=599 => Err(Trouble::Passing(format!("the server answered {status}"))),
        _ => Err(Trouble::Final(format!(
            "{url}: the server answered {status}; give another place with --from"
        ))),
    }
}

/// `bytes 100-199/200` → 100 and 200.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

fn receive(
    answer: Answer,
    file: &mut File,
    before: u64,
    progress: &Progress,
) -> std::result::Result<(), Trouble> {
    let Answer { start, total, mut body } = answer;
    if start != before {
        // The server sends everything: what was there is replaced.
        file.set_len(start).map_err(Trouble::Disk)?;
    }
    file.seek(SeekFrom::Start(start)).map_err(Trouble::Disk)?;
    progress.start(start, total);
    let mut have = start;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = match body.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Trouble::Passing(format!("the connection broke: {error}"))),
        };
        file.write_all(&buffer[..n]).map_err(Trouble::Disk)?;
        have += n as u64;
        if have > MOST_BYTES {
            return Err(Trouble::Final(format!(
                "the server sends more than {}: not the archive",
                bytes(MOST_BYTES)
            )));
        }
        progress.bar.set_position(have);
    }
    match total {
        Some(total) if have < total => {
            Err(Trouble::Passing(format!("the connection ended after {} of {}", bytes(have), bytes(total))))
        }
        _ => Ok(()),
    }
}

struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// On standard error, where that is a terminal.
    fn new(context: &Context, name: &str) -> Progress {
        let bar = if context.is_quiet() { ProgressBar::hidden() } else { ProgressBar::no_length() };
        let template =
            "{msg}  {wide_bar}  {decimal_bytes}/{decimal_total_bytes}  {decimal_bytes_per_sec}  {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        }
        bar.set_message(name.to_owned());
        Progress { bar }
    }

    fn start(&self, position: u64, total: Option<u64>) {
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(position);
        // The speed is that of this try.
        self.bar.reset_eta();
    }

    fn note(&self, message: &str) {
        self.bar.suspend(|| crate::context::warn(message));
    }
}
