//! Opening: what is refused and stays as it is, who else may have it open, what the options say.

use super::*;
use crate::config::{self, Durability};
use crate::store::StoreError;

/// Why the store does not open.
fn refusal(options: &StoreOptions) -> String {
    match Store::open(options) {
        Err(StoreError::Failed(why)) => why,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it opened"),
    }
}

/// A database that this store made and closed, with a thread in it.
async fn made_in(dir: &Path) -> ThreadId {
    let store = Store::open(&in_dir(dir)).unwrap();
    let thread = thread_of(&store, &acme()).await;
    talk(&store, &acme(), &thread, "hi", "ho").await;
    store.close().await;
    thread
}

/// Opens the file as anybody could.
fn sqlite(dir: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(dir.join("weir.db")).unwrap()
}

/// The store refuses what is in `dir`, says why, and changes nothing in it.
fn check_refused(dir: &Path, why: &str) {
    // An empty log is none.
    let bytes = |name: &str| std::fs::read(dir.join(name)).unwrap_or_default();
    let before = (bytes("weir.db"), bytes("weir.db-wal"));

    let text = refusal(&in_dir(dir));

    assert!(text.contains(why) && text.contains("weir.db"), "{text}");
    assert!((bytes("weir.db"), bytes("weir.db-wal")) == before, "the files of a refused database were changed");
}

#[tokio::test]
async fn what_was_stored_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let thread = made_in(dir.path()).await;

    let store = Store::open(&in_dir(dir.path())).unwrap();
    assert_eq!(texts(&read(&store, &acme(), &thread).await.1), ["hi", "ho"]);
    talk(&store, &acme(), &thread, "again", "and again").await;
    store.close().await;

    assert!(is_whole(&dir.path().join("weir.db")));
    assert!(!dir.path().join("weir.db-wal").exists(), "a closed store has no log");
}

#[test]
fn a_directory_that_is_missing_or_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| StoreOptions { path: dir.path().join(path), ..StoreOptions::default() };
    std::fs::write(dir.path().join("file"), "x").unwrap();

    let missing = refusal(&at("missing/weir.db"));
    let no_directory = refusal(&at("file/weir.db"));
    std::fs::create_dir(dir.path().join("folder")).unwrap();
    let folder = refusal(&at("folder"));

    assert!(missing.contains("missing/weir.db: there is no such directory"), "{missing}");
    assert!(no_directory.contains("file/weir.db: Not a directory"), "{no_directory}");
    assert!(folder.contains("/folder: it is a directory"), "{folder}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_takes_no_files_is_refused_with_its_reason() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o555)).unwrap();
    // An administrator may write everywhere.
    let may_write = std::fs::write(dir.path().join("probe"), "").is_ok();

    match Store::open(&in_dir(dir.path())) {
        Ok(store) => {
            assert!(may_write);
            store.close().await;
        }
        Err(error) => {
            assert!(!may_write);
            assert!(error.to_string().contains("Permission denied"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_database_of_another_application_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    sqlite(dir.path()).execute_batch("CREATE TABLE theirs (x); INSERT INTO theirs VALUES (1)").unwrap();

    check_refused(dir.path(), "a database of another application");
}

#[tokio::test]
async fn the_log_of_another_application_stays_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let theirs = sqlite(dir.path());
    theirs.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE theirs (x)").unwrap();
    let copy = tempfile::tempdir().unwrap();
    copy_files(dir.path(), copy.path());

    check_refused(copy.path(), "a database of another application");
}

#[tokio::test]
async fn a_database_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    made_in(dir.path()).await;
    sqlite(dir.path()).pragma_update(None, "user_version", 99).unwrap();

    check_refused(dir.path(), "written by a newer weir (schema 99, this one knows 2)");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("weir.db"), "Dear diary, ".repeat(500)).unwrap();

    check_refused(dir.path(), "it is not a database");
}

#[tokio::test]
async fn a_damaged_database_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    made_in(dir.path()).await;
    // In a page that is free there is nothing to be damaged.
    sqlite(dir.path()).execute_batch("VACUUM").unwrap();
    let path = dir.path().join("weir.db");
    let whole = std::fs::read(&path).unwrap();

    // Every page but the first, one after the other: whichever is hit, it is noticed.
    let page_bytes = 4096;
    for page in 1..whole.len() / page_bytes {
        let mut bytes = whole.clone();
        bytes[page * page_bytes..][..page_bytes].fill(0xA5);
        std::fs::write(&path, &bytes).unwrap();
        check_refused(dir.path(), "damaged");
    }
    std::fs::write(&path, &whole[..whole.len() - page_bytes]).unwrap();
    check_refused(dir.path(), "");
    std::fs::write(&path, whole).unwrap();
    Store::open(&in_dir(dir.path())).unwrap().close().await;
}

#[tokio::test]
async fn an_empty_file_becomes_a_database() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("weir.db"), "").unwrap();

    made_in(dir.path()).await;
}

/// How many locks this process has on the database by way of `fcntl`. Closing any of its handles would drop them.
#[cfg(target_os = "linux")]
fn locks_of_sqlite(dir: &Path) -> usize {
    use std::os::unix::fs::MetadataExt;
    let inode = format!(":{} ", std::fs::metadata(dir.join("weir.db")).unwrap().ino());
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|lock| lock.contains("POSIX") && lock.contains(&inode)).count()
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_database_is_open_once_by_whatever_name() {
    let dir = tempfile::tempdir().unwrap();
    let link = StoreOptions { path: dir.path().join("link.db"), ..StoreOptions::default() };
    std::os::unix::fs::symlink(dir.path().join("weir.db"), &link.path).unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let hard_link = StoreOptions { path: dir.path().join("other.db"), ..StoreOptions::default() };
    std::fs::hard_link(dir.path().join("weir.db"), &hard_link.path).unwrap();
    // No file beside the database says that it is in use.
    let known = ["weir.db", "weir.db-wal", "weir.db-shm", "link.db", "other.db"];
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(known.contains(&name.to_str().unwrap()), "{name:?} could be removed");
    }

    for options in [in_dir(dir.path()), link.clone(), hard_link] {
        let why = refusal(&options);
        assert!(why.contains("in use by another process"), "{why}");
    }

    // The refused ones have disturbed nothing: SQLite's own locks hold as well.
    assert!(locks_of_sqlite(dir.path()) > 0);
    talk(&store, &acme(), &thread, "hi", "ho").await;
    store.close().await;
    Store::open(&link).unwrap().close().await;
}

#[tokio::test]
async fn a_link_to_a_database_that_is_not_there_yet_makes_it_and_locks_it() {
    let dir = tempfile::tempdir().unwrap();
    let link = StoreOptions { path: dir.path().join("link.db"), ..StoreOptions::default() };
    std::os::unix::fs::symlink(dir.path().join("weir.db"), &link.path).unwrap();

    let store = Store::open(&link).unwrap();

    assert!(refusal(&in_dir(dir.path())).contains("in use by another process"));
    store.close().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_path_need_not_be_unicode() {
    use std::os::unix::ffi::OsStrExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(std::ffi::OsStr::from_bytes(b"we\xFFir.db"));
    let options = StoreOptions { path, ..StoreOptions::default() };

    let store = Store::open(&options).unwrap();
    thread_of(&store, &acme()).await;
    store.close().await;

    let store = Store::open(&options).unwrap();
    assert_eq!(store.list_threads(&acme(), 10, None).await.unwrap().0.len(), 1);
    store.close().await;
}

#[tokio::test]
async fn a_store_that_is_dropped_finishes_what_is_queued_and_lets_go() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&in_dir(dir.path())).unwrap();
    let thread = thread_of(&store, &acme()).await;
    let turn = open(&store, &acme(), &thread, "hi").await;
    store.checkpoint(checkpoint(&turn, "the last words"));

    drop(store);

    let store = soon(async {
        loop {
            match Store::open(&in_dir(dir.path())) {
                Ok(store) => break store,
                Err(error) => assert!(error.to_string().contains("in use"), "{error}"),
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(texts(&read(&store, &acme(), &thread).await.1), ["hi", "the last words"]);
    store.close().await;
}

#[test]
fn options_follow_the_configuration() {
    let config = config::Store {
        path: "elsewhere.db".into(),
        queue_max: 7,
        readers: 3,
        durability: Durability::Normal,
        idempotency_ms: 1_234,
        ..config::Store::default()
    };

    let StoreOptions { path, durability, queue_max, readers, idempotency_ms, .. } = StoreOptions::new(&config);

    assert_eq!((path, durability, queue_max), (config.path, config.durability, config.queue_max));
    assert_eq!((readers, idempotency_ms), (config.readers, config.idempotency_ms));
    assert_eq!(StoreOptions::default().idempotency_ms, 24 * 60 * 60 * 1000);
}

#[test]
fn what_keeps_a_database_from_being_opened_is_told_in_words() {
    use std::io::{Error, ErrorKind};

    use crate::store::refusal::explain;
    let sqlite = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
    let fine = || Ok(());
    let full = || Err(Error::from(ErrorKind::StorageFull));
    let forbidden = || Err(Error::from(ErrorKind::PermissionDenied));
    let read_only = || Err(Error::from(ErrorKind::ReadOnlyFilesystem));

    assert_eq!(explain(&sqlite(rusqlite::ffi::SQLITE_NOTADB), fine), "it is not a database");
    assert!(explain(&sqlite(rusqlite::ffi::SQLITE_CORRUPT), fine).starts_with("it is damaged"));
    assert_eq!(explain(&sqlite(rusqlite::ffi::SQLITE_FULL), fine), "the disk is full");
    assert_eq!(explain(&sqlite(rusqlite::ffi::SQLITE_BUSY), fine), "another program has locked it");
    // On a full disk, SQLite cannot even make the index of its log; without a directory to write in, no log.
    let no_index = sqlite(rusqlite::ffi::SQLITE_IOERR_SHMSIZE);
    assert!(explain(&no_index, full).starts_with("its directory takes no files: the disk is full"));
    assert!(explain(&no_index, fine).contains("I/O"), "the disk itself, then");
    let no_log = sqlite(rusqlite::ffi::SQLITE_CANTOPEN);
    assert!(explain(&no_log, forbidden).starts_with("its directory takes no files: weir's user may not write there"));
    assert!(explain(&no_log, read_only).starts_with("its directory takes no files: the file system can only be read"));
}

#[tokio::test]
async fn a_database_that_another_program_has_locked_is_refused_with_that_reason() {
    let dir = tempfile::tempdir().unwrap();
    made_in(dir.path()).await;
    let other = sqlite(dir.path());
    other.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE").unwrap();

    let why = refusal(&StoreOptions { busy_timeout_ms: 10, ..in_dir(dir.path()) });

    assert!(why.contains("weir.db: another program has locked it"), "{why}");
}
