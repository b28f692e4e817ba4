//! Against a small HTTP server of our own.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use md5::{Digest, Md5};

use super::*;
use crate::args::Global;

/// What the server does with the next request.
#[derive(Clone, Copy)]
enum Behaviour {
    /// Sends what is asked for, by ranges too.
    Whole,
    /// Sends so many bytes of it, and hangs up.
    CutAfter(usize),
    /// Sends everything from the start, whatever range is asked for.
    IgnoreRange,
    /// Answers with that status.
    Status(u16),
}

struct Server {
    url: String,
    /// The `Range` of each request so far.
    ranges: Arc<Mutex<Vec<Option<String>>>>,
}

/// Serves `content`, the nth request by the nth behaviour (the last one from then on).
fn serve(content: Vec<u8>, behaviours: Vec<Behaviour>) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/cifar-10-binary.tar.gz", listener.local_addr().unwrap());
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let seen = ranges.clone();
    std::thread::spawn(move || {
        for (i, stream) in listener.incoming().enumerate() {
            let behaviour = behaviours[i.min(behaviours.len() - 1)];
            let _ = answer(stream.unwrap(), &content, behaviour, &seen);
        }
    });
    Server { url, ranges }
}

fn answer(
    stream: TcpStream,
    content: &[u8],
    behaviour: Behaviour,
    seen: &Mutex<Vec<Option<String>>>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut range = None;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: bytes=") {
            range = Some(value.trim().to_owned());
        }
    }
    seen.lock().unwrap().push(range.clone());
    let mut out = stream;
    let asked = range.and_then(|r| r.trim_end_matches('-').parse::<usize>().ok()).unwrap_or(0);
    let start = if matches!(behaviour, Behaviour::IgnoreRange) { 0 } else { asked };
    let total = content.len();
    if let Behaviour::Status(status) = behaviour {
        return write!(out, "HTTP/1.1 {status} No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if start >= total && start > 0 {
        return write!(out, "HTTP/1.1 416 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    if start > 0 {
        write!(out, "HTTP/1.1 206 Partial\r\nContent-Range: bytes {start}-{}/{total}\r\n", total - 1)?;
    } else {
        write!(out, "HTTP/1.1 200 OK\r\n")?;
    }
    write!(out, "Content-Length: {}\r\nConnection: close\r\n\r\n", total - start)?;
    let body = &content[start..];
    match behaviour {
        Behaviour::CutAfter(n) => out.write_all(&body[..n.min(body.len())]),
        _ => out.write_all(body),
    }
}

fn context() -> Context {
    Context::new(&Global { state: None, server: None, tls: Default::default(), quiet: true })
}

fn md5(bytes: &[u8]) -> String {
    Md5::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Records of CIFAR-10, many of them not compressible.
fn records(n: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut noise = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..n)
        .flat_map(|i| std::iter::once((i % 10) as u8).chain((0..3072).map(|_| noise()).collect::<Vec<u8>>()))
        .collect()
}

/// A small archive laid out like CIFAR-10's; `extra` is put at its end, its path as it is.
fn archive(extra: Option<(&str, tar::EntryType)>) -> Vec<u8> {
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut add = |path: &str, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        // Not through set_path: that refuses what a hostile archive would hold.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/etc").unwrap();
        }
        header.set_cksum();
        tar.append(&header, content).unwrap();
    };
    add("cifar-10-batches-bin/", tar::EntryType::Directory, b"");
    add("cifar-10-batches-bin/data_batch_1.bin", tar::EntryType::Regular, &records(20));
    add("cifar-10-batches-bin/test_batch.bin", tar::EntryType::Regular, &records(10));
    if let Some((path, kind)) = extra {
        let content: &[u8] = if kind == tar::EntryType::Regular { b"gotcha" } else { b"" };
        add(path, kind, content);
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// Fetches from a server of that behaviour into a folder inside a fresh one.
fn fetched(content: &[u8], md5: String, behaviours: Vec<Behaviour>) -> (Result, tempfile::TempDir, Server) {
    let folder = tempfile::tempdir().unwrap();
    let server = serve(content.to_vec(), behaviours);
    let done = again(&server, md5, &folder);
    (done, folder, server)
}

fn again(server: &Server, md5: String, folder: &tempfile::TempDir) -> Result {
    let source = Source { url: server.url.clone(), md5 };
    let check = |folder: &Path| verify::check(Cifar::Cifar10, folder).map(drop);
    fetch(&context(), Cifar::Cifar10, &folder.path().join("data"), &source, None, check)
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn a_dataset_is_downloaded_checked_and_unpacked() {
    let content = archive(None);
    let (done, folder, server) = fetched(&content, md5(&content), vec![Behaviour::Whole]);
    done.unwrap();
    let target = folder.path().join("data/cifar-10-batches-bin");
    assert_eq!(fs::read(target.join("data_batch_1.bin")).unwrap(), records(20));
    assert_eq!(files(&folder.path().join("data")), [target], "nothing else is left");
    // A second time nothing is asked for.
    again(&server, md5(&content), &folder).unwrap();
    assert_eq!(server.ranges.lock().unwrap().len(), 1);
}

#[test]
fn an_interrupted_download_goes_on_where_it_stopped() {
    let content = archive(None);
    let behaviours = vec![Behaviour::CutAfter(1000), Behaviour::CutAfter(2000), Behaviour::Whole];
    let (done, folder, server) = fetched(&content, md5(&content), behaviours);
    done.unwrap();
    assert!(folder.path().join("data/cifar-10-batches-bin/test_batch.bin").exists());
    let ranges = server.ranges.lock().unwrap().clone();
    assert_eq!(ranges, [None, Some("1000-".to_owned()), Some("3000-".to_owned())]);
}

#[test]
fn a_later_fetch_goes_on_with_what_an_earlier_one_left() {
    let content = archive(None);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/cifar-10-binary.tar.gz.part"), &content[..5000]).unwrap();
    let server = serve(content.clone(), vec![Behaviour::Whole]);
    again(&server, md5(&content), &folder).unwrap();
    assert_eq!(*server.ranges.lock().unwrap(), [Some("5000-".to_owned())]);
}

#[test]
fn all_of_it_being_there_is_enough() {
    let content = archive(None);
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("data")).unwrap();
    fs::write(folder.path().join("data/cifar-10-binary.tar.gz.part"), &content).unwrap();
    again(&serve(content.clone(), vec![Behaviour::Whole]), md5(&content), &folder).unwrap();
}

#[test]
fn a_server_without_ranges_sends_all_of_it_again() {
    let content = archive(None);
    let behaviours = vec![Behaviour::CutAfter(1000), Behaviour::IgnoreRange];
    fetched(&content, md5(&content), behaviours).0.unwrap();
}

#[test]
fn a_wrong_md5_is_refused_and_not_kept() {
    let content = archive(None);
    let (done, folder, _server) = fetched(&content, md5(b"something else"), vec![Behaviour::Whole]);
    let said = done.unwrap_err().message;
    assert!(said.contains(&md5(b"something else")) && said.contains(&md5(&content)), "{said}");
    assert!(files(&folder.path().join("data")).is_empty());
}

#[test]
fn a_server_that_fails_for_good_is_named() {
    let (done, _folder, server) = fetched(b"", String::new(), vec![Behaviour::Status(404)]);
    assert!(done.unwrap_err().message.contains("404"));
    assert_eq!(server.ranges.lock().unwrap().len(), 1, "not asked again");
    let (done, _folder, server) = fetched(b"", String::new(), vec![Behaviour::Status(503)]);
    assert!(done.unwrap_err().message.contains("503"));
    assert_eq!(server.ranges.lock().unwrap().len(), 3, "asked again, but not for ever");
}

#[test]
fn an_archive_that_reaches_out_of_its_folder_is_refused() {
    use tar::EntryType::{Regular, Symlink};
    for (path, kind) in [
        ("../evil.bin", Regular),
        ("cifar-10-batches-bin/../../evil.bin", Regular),
        ("/tmp/evil.bin", Regular),
        ("other/evil.bin", Regular),
        ("cifar-10-batches-bin/deep/evil.bin", Regular),
        ("cifar-10-batches-bin/link", Symlink),
    ] {
        let content = archive(Some((path, kind)));
        let (done, folder, _server) = fetched(&content, md5(&content), vec![Behaviour::Whole]);
        let said = done.unwrap_err().message;
        assert!(said.contains("nothing was unpacked"), "{path}: {said}");
        assert!(!folder.path().join("data/cifar-10-batches-bin").exists(), "{path}");
        assert_eq!(files(folder.path()), [folder.path().join("data")], "{path}");
    }
}

#[test]
fn an_archive_cut_within_is_refused() {
    let content = archive(None);
    let cut = &content[..content.len() / 2];
    let (done, folder, _server) = fetched(cut, md5(cut), vec![Behaviour::Whole]);
    assert!(done.unwrap_err().message.contains("cannot be unpacked"));
    assert!(!folder.path().join("data/cifar-10-batches-bin").exists());
}

#[test]
fn a_damaged_dataset_is_not_overwritten() {
    let content = archive(None);
    let (done, folder, server) = fetched(&content, md5(&content), vec![Behaviour::Whole]);
    done.unwrap();
    let test = folder.path().join("data/cifar-10-batches-bin/test_batch.bin");
    fs::write(&test, b"mine").unwrap();
    let said = again(&server, md5(&content), &folder).unwrap_err().message;
    assert!(said.contains("test_batch.bin") && said.contains("remove"), "{said}");
    assert_eq!(fs::read(&test).unwrap(), b"mine");
}

#[test]
fn an_archive_at_hand_needs_no_download() {
    let content = archive(None);
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("mine.tar.gz");
    fs::write(&local, &content).unwrap();
    let source = Source { url: "http://127.0.0.1:1/".into(), md5: md5(&content) };
    fetch(&context(), Cifar::Cifar10, &folder.path().join("data"), &source, Some(&local), |_| Ok(()))
        .unwrap();
    let mut bytes = Vec::new();
    fs::File::open(&local).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!(bytes, content, "it is left where it was");
}

#[test]
fn a_mirror_is_a_folder_or_the_file() {
    let name = Cifar::Cifar100.archive();
    assert_eq!(url(Cifar::Cifar100, None), format!("{HOME}{name}"));
    assert_eq!(url(Cifar::Cifar100, Some("http://m/x")), format!("http://m/x/{name}"));
    assert_eq!(url(Cifar::Cifar100, Some("http://m/x/")), format!("http://m/x/{name}"));
    assert_eq!(url(Cifar::Cifar100, Some("http://m/y.tar.gz")), "http://m/y.tar.gz");
}
