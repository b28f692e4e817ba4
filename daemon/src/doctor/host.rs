//! The machine below: space, permissions, clock.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cnx_proto::state_dir::StateDir;
use cnx_proto::v1::Finding;

use super::finding::{problem, size, skipped, well};
use super::{Patient, local_folder, shown};
use crate::store::Inspector;

/// Less than this is little: a commit needs some kilobytes, a checkpoint some megabytes.
const LITTLE_BYTES: u64 = 1 << 30;
const LITTLE_SHARE: u64 = 20;

/// An event that lies further ahead was written by a clock that was wrong, then or now.
const AHEAD_MS: u64 = 60_000;

/// Free space where the coordinator and, on this machine, the workers write.
pub(super) fn disk(patient: &Patient) -> Vec<Finding> {
    let state = patient.state.path().to_owned();
    let artifacts = local_folder(&patient.artifacts_url);
    let mut places: Vec<(&str, PathBuf)> = vec![("state folder", state)];
    places.extend(artifacts.filter(|folder| folder.is_dir()).map(|folder| ("artifacts folder", folder)));
    places.iter().map(|(what, folder)| free_space(what, folder)).collect()
}

fn free_space(what: &str, folder: &Path) -> Finding {
    let area = "disk";
    let space = match rustix::fs::statvfs(folder) {
        Ok(space) => space,
        Err(error) => {
            let advice = "Look at the permissions of the folder, and whether its disk is mounted.";
            return problem(
                area,
                format!("the {what} {} cannot be looked at: {error}", shown(folder)),
                Vec::new(),
                advice,
            );
        }
    };
    let (free, all) = (space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize);
    let read_only = space.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY)
        || rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_err();
    if read_only {
        let advice = "Make it writable again (mount, chown): until then nothing can be saved.";
        return problem(area, format!("the {what} {} cannot be written", shown(folder)), Vec::new(), advice);
    }
    let found = format!("{} of {} free for the {what} {}", size(free), size(all), shown(folder));
    match free < LITTLE_BYTES.min(all / LITTLE_SHARE) {
        true => problem(
            area,
            format!("only {found}"),
            Vec::new(),
            "Free some space. On a full disk nothing is lost: what cannot be saved is refused and said, and training waits \
             and tries again.",
        ),
        false => well(area, found),
    }
}

/// What must be its owner's only.
pub(super) fn secrets(state: &StateDir) -> Vec<Finding> {
    let area = "secrets";
    let mut open = Vec::new();
    let mut missing = Vec::new();
    let tls = state.tls();
    let tokens = [state.token(), state.worker_token()];
    // A pool on one machine has none.
    let keys = [tls.server_key(), tls.client_key(), tls.ca_key()].into_iter().filter(|key| key.exists());
    let files = tokens.into_iter().chain(keys).map(|file| (file, 0o600));
    for (path, wanted) in std::iter::once((state.path().to_owned(), 0o700)).chain(files) {
        match fs::metadata(&path) {
            Ok(found) if found.permissions().mode() & 0o777 & !wanted != 0 => {
                open.push(format!("chmod {wanted:o} {}", shown(&path)));
            }
            Ok(found)
                if found.uid() != rustix::process::geteuid().as_raw()
                    && !rustix::process::geteuid().is_root() =>
            {
                open.push(format!("{} belongs to user {}", shown(&path), found.uid()));
            }
            Ok(_) => {}
            Err(error) => missing.push(format!("{}: {error}", shown(&path))),
        }
    }
    if !open.is_empty() {
        return vec![problem(
            area,
            "others on this machine can read the state folder or secrets in it",
            open,
            "Close them as said. If somebody may have read a token: stop the coordinator, delete the file, start it again (it \
             makes a new one), and copy that to where the old one was. For a key, `cnxd tls init` (or client) makes a new one.",
        )];
    }
    match missing.is_empty() {
        true => vec![well(area, "the state folder, tokens and keys are their owner's only")],
        false => vec![skipped(area, format!("not looked at: {}", missing.join("; ")))],
    }
}

/// Nothing on record lies in the future.
pub(super) fn clock(patient: &Patient, inspector: &Inspector) -> Option<Finding> {
    let area = "clock";
    let newest_ms = inspector.newest_event_ms().ok()??;
    let ahead_ms = newest_ms.saturating_sub(patient.now_ms);
    Some(match ahead_ms > AHEAD_MS {
        false => well(area, "nothing on record lies in the future"),
        true => problem(
            area,
            format!("the newest event on record lies {} s in the future", ahead_ms / 1000),
            Vec::new(),
            "This machine's clock is wrong, or was. Set it (timedatectl set-ntp true). Leases and back-offs do not depend on \
             it; only the times that are shown do.",
        ),
    })
}
