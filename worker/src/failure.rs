//! Why an attempt cannot go on: a class that decides on a retry, and a message that says what to do.

use std::fmt;
use std::io;
use std::path::Path;

use cnx_proto::v1::FailureClass;
use tch::TchError;

/// What ended an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Decides whether another attempt may do better.
    pub class: FailureClass,
    /// What was expected, what was found, where, what to do.
    pub message: String,
}

/// What most of this crate returns.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure of a class.
    pub fn new(class: FailureClass, message: impl Into<String>) -> Failure {
        Failure { class, message: message.into() }
    }

    /// A defect of ours.
    pub fn internal(message: impl Into<String>) -> Failure {
        Failure::new(FailureClass::Internal, message)
    }

    /// A spec that this worker cannot run.
    pub fn bad_spec(message: impl Into<String>) -> Failure {
        Failure::new(FailureClass::BadSpec, message)
    }

    /// Data that are absent or damaged.
    pub fn data(message: impl Into<String>) -> Failure {
        Failure::new(FailureClass::DataMissing, message)
    }

    /// A file operation that failed: `doing` reads on as "cannot …".
    pub fn file(doing: &str, path: &Path, error: &io::Error) -> Failure {
        let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        let class = if full { FailureClass::DiskFull } else { FailureClass::Internal };
        let advice = if full { "; free some space there (`df -h` shows it), then retry" } else { "" };
        Failure::new(class, format!("cannot {doing} {}: {error}{advice}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<cnx_engine::Error> for Failure {
    fn from(error: cnx_engine::Error) -> Failure {
        match error {
            cnx_engine::Error::Threads(_) | cnx_engine::Error::Images { .. } => {
                Failure::internal(error.to_string())
            }
            _ => Failure::bad_spec(error.to_string()),
        }
    }
}

impl From<TchError> for Failure {
    fn from(error: TchError) -> Failure {
        let text = error.to_string();
        // libtorch appends its C++ stack; the first line says what happened.
        let line = text.lines().next().unwrap_or_default().trim().to_owned();
        let has = |needle: &str| text.contains(needle);
        if has("out of memory") || has("can't allocate memory") || has("CUBLAS_STATUS_ALLOC_FAILED") {
            let advice = "use a smaller batch, a smaller network or a device with more memory";
            Failure::new(FailureClass::OutOfMemory, format!("out of memory: {line}; {advice}"))
        } else if has("CUDA error") || has("CUDA driver") || has("cuDNN error") || has("CUBLAS_STATUS") {
            Failure::new(FailureClass::Device, format!("the device failed: {line}"))
        } else if has("does not have a deterministic implementation") {
            let advice = "set train.deterministic = false; a resumed training then ends near the undisturbed one, not as it";
            Failure::bad_spec(format!("train.deterministic cannot be kept on this device: {line}; {advice}"))
        } else {
            Failure::internal(format!("libtorch failed: {line}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_libtorch_find_their_class() {
        let class = |text: &str| Failure::from(TchError::Torch(text.to_owned())).class;
        assert_eq!(class("CUDA out of memory. Tried to allocate 2 GiB"), FailureClass::OutOfMemory);
        assert_eq!(
            class("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
            FailureClass::OutOfMemory
        );
        assert_eq!(class("CUDA error: an illegal memory access"), FailureClass::Device);
        let unrepeatable = "put_ does not have a deterministic implementation, but you set …";
        assert_eq!(class(unrepeatable), FailureClass::BadSpec);
        assert_eq!(class("shape '[3]' is invalid"), FailureClass::Internal);
    }

    #[test]
    fn a_full_disk_is_its_own_class_and_names_the_path() {
        let error = io::Error::from(io::ErrorKind::StorageFull);
        let failure = Failure::file("write", Path::new("/some/where"), &error);
        assert_eq!(failure.class, FailureClass::DiskFull);
        assert!(failure.message.contains("/some/where"), "{failure}");
    }
}
