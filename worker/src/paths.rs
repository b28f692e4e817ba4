//! Which files of this machine an experiment may read: a spec comes from somebody else, and names paths (`data.root`,
//! `run.from`).
//!
//! Where the coordinator serves this machine only, that somebody is the user whom the worker runs as, and may name whatever
//! that user can read. Otherwise, or where `--allow-path` was given, a path must lie below a root: a folder that was
//! allowed, the datasets, or the artifacts. Symbolic links are followed before that is decided.

use std::io;
use std::path::{Component, Path, PathBuf};

use cnx_proto::{Spec, job};
use url::Url;

use crate::failure::{Failure, Result};

/// What a worker lets experiments read.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    /// None: whatever this user can read.
    roots: Option<Vec<PathBuf>>,
}

impl Paths {
    /// Only what lies below these.
    pub fn below(roots: Vec<PathBuf>) -> Paths {
        Paths { roots: Some(roots) }
    }

    /// Whether all paths of a spec may be read; artifacts below `artifacts_url` may, where they are files.
    ///
    /// # Errors
    /// BAD_SPEC with the key, the path and the roots.
    pub fn check(&self, spec: &Spec, artifacts_url: &str) -> Result<()> {
        if let Some(root) = &spec.data.root {
            self.check_one("data.root", root, artifacts_url)?;
        }
        match spec.run.from.as_deref() {
            Some(from) if !job::is_artifact(from) => {
                self.check_one("run.from", Path::new(from), artifacts_url)
            }
            _ => Ok(()),
        }
    }

    fn check_one(&self, key: &str, path: &Path, artifacts_url: &str) -> Result<()> {
        let Some(roots) = &self.roots else { return Ok(()) };
        let artifacts = Url::parse(artifacts_url).ok().and_then(|url| url.to_file_path().ok());
        let roots: Vec<&PathBuf> = roots.iter().chain(&artifacts).collect();
        // Whether a path outside exists is nobody's business: one answer for both.
        let inside = resolve(path).is_ok_and(|path| {
            roots.iter().any(|root| resolve(root).is_ok_and(|root| path.starts_with(root)))
        });
        if inside {
            return Ok(());
        }
        let roots: Vec<String> = roots.iter().map(|root| root.display().to_string()).collect();
        Err(Failure::bad_spec(format!(
            "{key} {path:?} is not below a folder that experiments may read on this worker ({}); put the files there, or \
             start the worker with --allow-path DIR",
            roots.join(", ")
        )))
    }
}

/// The path with its links followed, as far as it exists; what does not exist yet cannot lead elsewhere.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    let mut missing = Vec::new();
    let mut there = path.as_path();
    loop {
        match there.canonicalize() {
            Ok(found) => return Ok(missing.iter().rev().fold(found, |path: PathBuf, name| path.join(name))),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(error) => {
                // A link that leads nowhere is there, and would be followed by whoever makes its target.
                if there.symlink_metadata().is_ok() {
                    return Err(error);
                }
                let Some(Component::Normal(name)) = there.components().next_back() else { return Err(error) };
                missing.push(name.to_owned());
                there = there.parent().ok_or(error)?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use cnx_proto::recipe::recipe;
    use cnx_proto::spec::{Arch, Dataset};
    use cnx_proto::v1::FailureClass;

    use super::*;

    struct Place {
        folder: tempfile::TempDir,
        paths: Paths,
    }

    impl Place {
        fn new() -> Place {
            let folder = tempfile::tempdir().unwrap();
            for name in ["data/cifar", "artifacts", "secret"] {
                fs::create_dir_all(folder.path().join(name)).unwrap();
            }
            let paths = Paths::below(vec![folder.path().join("data")]);
            Place { folder, paths }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.folder.path().join(name)
        }

        fn try_root(&self, root: PathBuf) -> Result<()> {
            let mut spec = recipe(Arch::CondenseNet, Dataset::Cifar10);
            spec.data.root = Some(root);
            self.check(&spec)
        }

        fn check(&self, spec: &Spec) -> Result<()> {
            let url = Url::from_directory_path(self.path("artifacts")).unwrap();
            self.paths.check(spec, url.as_str())
        }
    }

    #[test]
    fn what_lies_below_a_root_may_be_read_whether_it_is_there_or_not() {
        let place = Place::new();
        for name in ["data", "data/cifar", "data/not/there/yet", "artifacts/experiments/1/final.safetensors"]
        {
            place.try_root(place.path(name)).unwrap();
        }
    }

    #[test]
    fn what_lies_elsewhere_is_a_bad_spec_that_names_path_and_roots() {
        let place = Place::new();
        symlink(place.path("secret"), place.path("data/link")).unwrap();
        symlink(place.path("nowhere"), place.path("data/dangling")).unwrap();
        for path in [
            place.path("secret"),
            place.path("secret/not/there"),
            place.path("data/../secret"),
            place.path("data/not/there/../../../secret"),
            place.path("data/link"),
            place.path("data/link/file"),
            place.path("data/dangling"),
            place.path("database"),
            "/etc".into(),
            "/".into(),
            "relative".into(),
        ] {
            let refusal = place.try_root(path.clone()).unwrap_err();
            assert_eq!(refusal.class, FailureClass::BadSpec, "{path:?}");
            let said = refusal.message;
            assert!(said.contains("data.root") && said.contains(&format!("{path:?}")), "{said}");
            assert!(said.contains(&place.path("data").display().to_string()), "{said}");
        }
    }

    #[test]
    fn a_model_by_its_path_is_held_to_it_and_one_by_its_artifact_is_not() {
        let place = Place::new();
        let job = |from: &str| {
            recipe(Arch::CondenseNet, Dataset::Synthetic).job(
                vec![cnx_proto::spec::Step::Evaluate],
                from.to_owned(),
                "0".repeat(64),
            )
        };
        assert!(place.check(&job("/etc/passwd")).unwrap_err().message.contains("run.from"));
        place.check(&job("experiments/1/final.safetensors")).unwrap();
        place.check(&job(place.path("data/m.safetensors").to_str().unwrap())).unwrap();
    }

    #[test]
    fn a_user_may_name_own_files_where_nobody_else_submits() {
        let mut spec = recipe(Arch::CondenseNet, Dataset::Cifar10);
        spec.data.root = Some("/anywhere".into());
        Paths::default().check(&spec, "file:///artifacts").unwrap();
    }
}
