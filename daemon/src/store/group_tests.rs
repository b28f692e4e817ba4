//! What callers that share a commit do to each other.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc as std_mpsc};

use tempfile::TempDir;

use super::*;

struct Fixture {
    writer: Writer,
    file: PathBuf,
    commits: Arc<AtomicU32>,
    _dir: TempDir,
}

impl Fixture {
    fn new() -> Fixture {
        Fixture::that_dies_at(None)
    }

    /// A table of words. The writer dies at this point of the first commit after that of the table.
    fn that_dies_at(point: Option<CommitPoint>) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("group.db");
        let table = "PRAGMA journal_mode = WAL; CREATE TABLE words (word TEXT PRIMARY KEY) STRICT";
        Connection::open(&file).unwrap().execute_batch(table).unwrap();
        let commits = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&commits);
        let trap = Trap::new(move |at| {
            counted.fetch_add(u32::from(at == CommitPoint::After), Ordering::SeqCst);
            Some(at) == point
        });
        Fixture { writer: Writer::start(&file, Some(trap)).unwrap(), file, commits, _dir: dir }
    }

    async fn say(&self, word: &'static str) -> Result<usize> {
        self.writer.change(move |tx| say(tx, word)).await
    }

    /// Runs changes as one group: the thread is held up until all of them wait for it.
    async fn together<T: Send + 'static>(&self, changes: Vec<Boxed<T>>) -> Vec<Result<T>> {
        let (release, held) = std_mpsc::channel::<()>();
        let (begun, at_work) = oneshot::channel();
        let writer = self.writer.clone();
        let hold = tokio::spawn(async move {
            let hold = writer.change(move |_| {
                let _ = begun.send(());
                let _ = held.recv();
                // Long enough that nobody joins this one's group.
                std::thread::sleep(MAX_GROUP_TIME);
                Ok(())
            });
            hold.await
        });
        at_work.await.unwrap();
        let room = self.writer.calls.capacity();
        let count = changes.len();
        let mut callers = Vec::new();
        for change in changes {
            let writer = self.writer.clone();
            callers.push(tokio::spawn(async move { writer.change(change).await }));
        }
        while self.writer.calls.capacity() > room - count {
            tokio::task::yield_now().await;
        }
        release.send(()).unwrap();
        hold.await.unwrap().unwrap();
        let mut answers = Vec::new();
        for caller in callers {
            answers.push(caller.await.unwrap());
        }
        answers
    }

    /// What another connection sees: what is durable.
    fn words(&self) -> Vec<String> {
        let connection = Connection::open(&self.file).unwrap();
        let mut statement = connection.prepare("SELECT word FROM words ORDER BY word").unwrap();
        let words = statement.query_map([], |row| row.get(0)).unwrap();
        words.collect::<rusqlite::Result<_>>().unwrap()
    }
}

type Boxed<T> = Box<dyn FnOnce(&Tx<'_>) -> Result<T> + Send>;

fn boxed<T>(change: impl FnOnce(&Tx<'_>) -> Result<T> + Send + 'static) -> Boxed<T> {
    Box::new(change)
}

fn say(tx: &Tx<'_>, word: &str) -> Result<usize> {
    tx.execute("INSERT INTO words (word) VALUES (?)", [word])
}

#[tokio::test]
async fn changes_that_wait_share_one_commit() {
    let f = Fixture::new();
    let words: Vec<String> = (0..50).map(|n| format!("{n:02}")).collect();
    let changes = words.iter().cloned().map(|word| boxed(move |tx| say(tx, &word))).collect();
    assert!(f.together(changes).await.iter().all(Result::is_ok));
    assert_eq!(f.words(), words);
    // That of the one that held the thread up, and that of all the others.
    assert_eq!(f.commits.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_change_that_is_refused_takes_back_itself_and_nothing_else() {
    let f = Fixture::new();
    let answers = f
        .together(vec![
            boxed(|tx| say(tx, "first")),
            boxed(|tx| {
                say(tx, "second")?;
                say(tx, "first")
            }),
            boxed(|tx| {
                say(tx, "third")?;
                Err(StoreError::NotFound("nothing".into()))
            }),
            boxed(|tx| {
                tx.undo();
                say(tx, "fourth")
            }),
            boxed(|tx| say(tx, "fifth")),
        ])
        .await;
    assert!(answers[0].is_ok() && answers[3].is_ok() && answers[4].is_ok(), "{answers:?}");
    assert!(matches!(answers[1], Err(StoreError::Unexpected(_))), "{answers:?}");
    assert!(matches!(answers[2], Err(StoreError::NotFound(_))), "{answers:?}");
    assert_eq!(f.words(), ["fifth", "first"]);
}

#[tokio::test]
async fn a_defect_in_one_change_is_answered_and_the_writer_goes_on() {
    let f = Fixture::new();
    let changes = vec![
        boxed(|tx| say(tx, "before")),
        boxed(|tx| {
            say(tx, "lost")?;
            panic!("a defect made for this test")
        }),
        boxed(|tx| say(tx, "after")),
    ];
    let answers = f.together(changes).await;
    assert!(answers[1].as_ref().unwrap_err().to_string().contains("a defect made for this test"));
    assert_eq!(f.words(), ["after", "before"]);
}

#[tokio::test]
async fn when_the_database_fails_everything_in_the_group_did_and_the_next_group_is_saved() {
    let f = Fixture::new();
    let changes = vec![
        boxed(|tx| say(tx, "before")),
        // As a full disk: the file may not grow on this connection.
        boxed(|tx| {
            tx.first::<(i64,)>("PRAGMA max_page_count = 1", [])?;
            for n in 0..1000 {
                say(tx, &format!("{n} and more to fill pages of the database with"))?;
            }
            Ok(0)
        }),
    ];
    let answers = f.together(changes).await;
    assert!(answers.iter().all(|a| matches!(a, Err(StoreError::Full))), "{answers:?}");
    assert_eq!(f.words(), [""; 0]);
    f.say("later").await.unwrap();
    assert_eq!(f.words(), ["later"]);
}

#[tokio::test]
async fn a_commit_that_fails_is_told_to_everybody_in_it() {
    let f = Fixture::new();
    // A constraint that is checked at the commit.
    let table = "CREATE TABLE letters (word TEXT REFERENCES words DEFERRABLE INITIALLY DEFERRED) STRICT";
    f.writer.change(|tx| tx.execute(table, [])).await.unwrap();
    let changes = vec![
        boxed(|tx| say(tx, "word")),
        boxed(|tx| tx.execute("INSERT INTO letters (word) VALUES ('missing')", [])),
    ];
    let answers = f.together(changes).await;
    assert!(answers.iter().all(Result::is_err), "{answers:?}");
    assert_eq!(f.words(), [""; 0]);
    f.say("later").await.unwrap();
    assert_eq!(f.words(), ["later"]);
}

#[tokio::test]
async fn a_crash_before_the_commit_saves_nothing_and_answers_nobody() {
    let f = Fixture::that_dies_at(Some(CommitPoint::Before));
    assert!(matches!(f.say("word").await, Err(StoreError::Closed)));
    assert_eq!(f.words(), [""; 0]);
    assert!(matches!(f.say("word").await, Err(StoreError::Closed)));
}

#[tokio::test]
async fn a_crash_after_the_commit_saves_and_answers_nobody() {
    let f = Fixture::that_dies_at(Some(CommitPoint::After));
    assert!(matches!(f.say("word").await, Err(StoreError::Closed)));
    assert_eq!(f.words(), ["word"]);
}

#[tokio::test]
async fn closing_saves_what_waits() {
    let f = Fixture::new();
    let (first, second) = (f.say("first"), f.say("second"));
    let (first, second, ()) = tokio::join!(first, second, f.writer.close());
    assert!(first.is_ok() && second.is_ok());
    assert_eq!(f.words(), ["first", "second"]);
    assert!(matches!(f.say("third").await, Err(StoreError::Closed)));
}
