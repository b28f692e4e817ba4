//! A real attempt, killed without warning in the middle of an epoch.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use cnx_worker::failure::{Failure, Result};
use tch::Device;

use crate::Verdict;
use crate::trainer::small;

/// Trains once undisturbed; then again, killed as soon as a checkpoint of the middle of an epoch is there, three times.
pub fn check(here: Device) -> Result<Verdict> {
    let folder = std::env::temp_dir().join(format!("cnx-gpu-check-{}", std::process::id()));
    let verdict = in_folder(here, &folder);
    let _ = fs::remove_dir_all(&folder);
    verdict
}

fn in_folder(here: Device, folder: &Path) -> Result<Verdict> {
    let whole = folder.join("whole");
    let cut = folder.join("cut");
    for folder in [&whole, &cut] {
        fs::create_dir_all(folder).map_err(|error| Failure::file("make", folder, &error))?;
    }
    wait(start(here, &whole)?, &whole)?;
    let mut kills = 0;
    for _ in 0..3 {
        let seen = checkpoints(&cut).len();
        let mut child = start(here, &cut)?;
        while checkpoints(&cut).len() == seen || !checkpoints(&cut).iter().any(|name| name.contains("-s0")) {
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                break;
            }
            sleep(Duration::from_millis(2));
        }
        kills += u32::from(child.kill().is_ok());
        let _ = child.wait();
    }
    wait(start(here, &cut)?, &cut)?;
    let [whole, cut] = [whole, cut].map(|folder| {
        let path = folder.join("experiments/1/final-a1.safetensors");
        fs::read(&path).map_err(|error| Failure::file("read", &path, &error))
    });
    let (whole, cut) = (whole?, cut?);
    Ok((whole == cut, format!("killed {kills} times; {} bytes of the final model compared", whole.len())))
}

fn start(here: Device, folder: &Path) -> Result<Child> {
    let device = match here {
        Device::Cuda(number) => format!("cuda:{number}"),
        _ => "cpu".to_owned(),
    };
    let mut spec = small();
    spec.data.train_images = Some(5000);
    let spec_file = folder.join("spec.json");
    fs::write(&spec_file, spec.to_json()).map_err(|error| Failure::file("write", &spec_file, &error))?;
    let worker = worker()?;
    let errors = folder.join(ERRORS);
    let errors = File::create(&errors).map_err(|error| Failure::file("make", &errors, &error))?;
    Command::new(&worker)
        .args(["run", "--threads", "1", "--checkpoint-every", "0s", "--device", &device, "--spec"])
        .arg(&spec_file)
        .arg("--out")
        .arg(folder)
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .map_err(|error| Failure::file("start", &worker, &error))
}

/// Waits for a worker that works in a folder; one that fails says last why.
fn wait(mut child: Child, folder: &Path) -> Result<()> {
    let status = child.wait().map_err(|error| Failure::internal(error.to_string()))?;
    if status.success() {
        return Ok(());
    }
    let said = fs::read_to_string(folder.join(ERRORS)).unwrap_or_default();
    let last: Vec<&str> = said.lines().rev().take(3).collect();
    let last = last.into_iter().rev().collect::<Vec<_>>().join(" / ");
    Err(Failure::internal(format!("cnx-worker run ended with {status}: {last}")))
}

/// What a worker says, in its folder.
const ERRORS: &str = "stderr";

/// Beside the examples' folder, or beside this program.
fn worker() -> Result<PathBuf> {
    let own = std::env::current_exe().map_err(|error| Failure::internal(error.to_string()))?;
    let folders = own.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("cnx-worker")).find(|path| path.is_file());
    found.ok_or_else(|| Failure::internal("there is no cnx-worker beside this program: build it first"))
}

fn checkpoints(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder.join("experiments/1")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("checkpoint-") && name.ends_with(".safetensors")).collect()
}
