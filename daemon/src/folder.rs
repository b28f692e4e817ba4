//! The state folder: made for its owner only, held by one coordinator, with the tokens that others present and the
//! endpoint where they find it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, bail};

use cnx_access::secret::{Token, write_private};
use cnx_access::{Role, Secret};
use cnx_proto::state_dir::StateDir;

use crate::chance::Chance;

/// A state folder that belongs to this process until it is dropped.
#[derive(Debug)]
pub struct Folder {
    dir: StateDir,
    people: Secret,
    workers: Secret,
    /// The lock goes with the file, also when the process is killed.
    _lock: File,
}

/// Length of the token, in bytes before it is written in hexadecimal.
const TOKEN_BYTES: usize = 32;

impl Folder {
    /// Makes the folder if it is missing and takes hold of it.
    ///
    /// # Errors
    /// When another coordinator holds it, or it cannot be written.
    pub fn claim(dir: &StateDir) -> anyhow::Result<Folder> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir.path())
            .with_context(|| format!("cannot make the state folder {}", dir.path().display()))?;
        let lock = lock(dir)?;
        let (people, workers) = (token(dir, Role::Person)?, token(dir, Role::Worker)?);
        if people == workers {
            bail!(
                "{} and {} hold the same token, so that workers would have the rights of people; remove one of the files, \
                 and the next start makes a new one",
                dir.token().display(),
                dir.worker_token().display()
            );
        }
        Ok(Folder { dir: dir.clone(), people, workers, _lock: lock })
    }

    /// What callers of a role present.
    pub fn secret(&self, role: Role) -> &Secret {
        match role {
            Role::Person => &self.people,
            Role::Worker => &self.workers,
        }
    }

    /// Where callers of a role find their token.
    pub fn token_file(&self, role: Role) -> PathBuf {
        role.token_file(&self.dir)
    }

    /// Tells others the URL to call, once somebody listens there.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn announce(&self, url: &str) -> anyhow::Result<()> {
        write_private(&self.dir.endpoint(), &format!("{url}\n"))
            .with_context(|| format!("cannot write {}", self.dir.endpoint().display()))
    }

    /// Takes the announcement back.
    pub fn withdraw(&self) {
        if let Err(error) = fs::remove_file(self.dir.endpoint()) {
            tracing::debug!("the endpoint file was gone already: {error}");
        }
    }
}

fn lock(dir: &StateDir) -> anyhow::Result<File> {
    let path = dir.lock();
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // The holder's number is a courtesy; without it the refusal still stands.
            let _ = file.read_to_string(&mut holder);
            let holder = Some(holder.trim()).filter(|pid| !pid.is_empty()).unwrap_or("unknown");
            bail!(
                "the state folder {} is taken: another cnxd (pid {holder}) runs on it; stop that one, or give \
                 another folder with --state",
                dir.path().display()
            );
        }
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "{}", std::process::id()))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file)
}

/// Reads the token of a role, or makes it if there is none: removing the file and starting anew is how to replace one.
fn token(dir: &StateDir, role: Role) -> anyhow::Result<Secret> {
    let file = role.token_file(dir);
    if !file.exists() {
        let made =
            Chance::System.hex(TOKEN_BYTES).and_then(|token| write_private(&file, &format!("{token}\n")));
        made.with_context(|| format!("cannot make the token {}", file.display()))?;
    }
    let Token { secret, mended, .. } = match Token::read(&file) {
        Ok(token) => token,
        Err(why) => bail!("the token {} {why}", file.display()),
    };
    if let Some(mended) = mended {
        tracing::warn!("{mended}");
    }
    if secret.reveal().len() < TOKEN_BYTES || secret.bearer().is_none() {
        bail!(
            "the token {} is not one: expected at least {TOKEN_BYTES} letters and digits; remove it, and the next start \
             makes a new one",
            file.display()
        );
    }
    Ok(secret)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    fn state(root: &tempfile::TempDir) -> StateDir {
        StateDir::locate(Some(&root.path().join("a/b")), |_| None).unwrap()
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn tokens(dir: &StateDir) -> [String; 2] {
        let folder = Folder::claim(dir).unwrap();
        [Role::Person, Role::Worker].map(|role| folder.secret(role).reveal().to_owned())
    }

    #[test]
    fn the_folder_and_its_tokens_are_the_owners_only_and_the_tokens_stay() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        let [people, workers] = tokens(&dir);
        assert_eq!((people.len(), workers.len()), (2 * TOKEN_BYTES, 2 * TOKEN_BYTES));
        assert_ne!(people, workers);
        assert_eq!((mode(dir.path()), mode(&dir.token()), mode(&dir.worker_token())), (0o700, 0o600, 0o600));
        assert_eq!(tokens(&dir), [people, workers]);
    }

    #[test]
    fn a_folder_of_before_there_were_two_tokens_gets_the_other_and_keeps_its_own() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        let [people, workers] = tokens(&dir);
        fs::remove_file(dir.worker_token()).unwrap();
        let [same, other] = tokens(&dir);
        assert!(same == people && other != workers && other != people);
    }

    #[test]
    fn a_token_that_others_could_read_is_closed_to_them() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        let before = tokens(&dir);
        fs::set_permissions(dir.token(), fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(tokens(&dir), before);
        assert_eq!(mode(&dir.token()), 0o600);
    }

    #[test]
    fn one_token_for_both_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        tokens(&dir);
        fs::copy(dir.token(), dir.worker_token()).unwrap();
        assert!(Folder::claim(&dir).unwrap_err().to_string().contains("the same token"));
    }

    #[test]
    fn no_token_is_in_what_is_printed_of_a_folder() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        let folder = Folder::claim(&dir).unwrap();
        let printed = format!("{folder:?}");
        for role in [Role::Person, Role::Worker] {
            assert!(!printed.contains(folder.secret(role).reveal()), "{printed}");
        }
    }

    #[test]
    fn a_second_claim_names_the_folder_and_the_holder() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        let _held = Folder::claim(&dir).unwrap();
        let refusal = Folder::claim(&dir).unwrap_err().to_string();
        assert!(refusal.contains(&dir.path().display().to_string()), "{refusal}");
        assert!(refusal.contains(&format!("pid {}", std::process::id())), "{refusal}");
    }

    #[test]
    fn a_cut_token_is_refused_rather_than_guessed() {
        let root = tempfile::tempdir().unwrap();
        let dir = state(&root);
        drop(Folder::claim(&dir).unwrap());
        fs::write(dir.token(), "abc").unwrap();
        assert!(format!("{:#}", Folder::claim(&dir).unwrap_err()).contains("remove it"));
    }
}
