//! Opening the database: what it must be, how it is set up, and the way from older schemas to this one.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::limits::Limit;
use rusqlite::{Connection, OpenFlags};

use super::refusal::Refusal;
use super::{StoreOptions, near, wal};

/// The way from each schema to the next one. Its length is the version of this schema.
pub(super) const MIGRATIONS: &[&str] =
    &[include_str!("migrations/0001_threads_messages_requests.sql"), include_str!("migrations/0002_fewer_pages.sql")];

/// Says in the file whose it is ("weir" in ASCII).
pub(super) const APPLICATION_ID: i32 = 0x7765_6972;

/// Older versions can corrupt a database when two connections write and checkpoint.
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// How long the connection that moves the log waits for readers, while it holds up the writer.
const LOG_BUSY_TIMEOUT: Duration = Duration::from_millis(50);

/// Up to this size the whole database is checked when it is opened, and counts as small.
const CHECK_BYTES_MAX: i64 = 64 * 1024 * 1024;

/// Opens the connection that writes, and brings the schema up to date.
pub(super) fn open_writer(options: &StoreOptions) -> Result<Connection, Refusal> {
    assert!(rusqlite::version_number() >= SQLITE_VERSION_MIN, "SQLite is too old to be safe");
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut db = open(&options.path, flags, options)?;
    // A database that is refused stays as it is: closing it must not move its log either.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    check(&db)?;
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Refusal::because("this file system does not support SQLite's log (WAL)"));
    }
    set_up_writer(&db)?;
    db.pragma_update(None, "journal_size_limit", i64::from(options.log_pages_max) * wal::PAGE_BYTES)?;
    // The first transaction waits for the disk, so that the log file itself is there for good.
    db.pragma_update(None, "synchronous", "FULL")?;
    migrate(&mut db)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(db)
}

/// A database in memory, for one connection.
pub(super) fn open_in_memory() -> Result<Connection, Refusal> {
    let mut db = Connection::open_in_memory()?;
    plan_once(&db)?;
    set_up_writer(&db)?;
    migrate(&mut db)?;
    Ok(db)
}

/// Opens a connection that can only read.
pub(super) fn open_reader(options: &StoreOptions) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = open(&options.path, flags, options)?;
    db.pragma_update(None, "query_only", true)?;
    db.pragma_update(None, "cache_size", -4096)?;
    Ok(db)
}

/// Opens a connection for short questions by those who must not wait.
pub(super) fn open_near(options: &StoreOptions) -> rusqlite::Result<Connection> {
    let db = open_reader(options)?;
    db.busy_timeout(Duration::ZERO)?;
    // A longer row is not loaded, but refused.
    db.set_limit(Limit::SQLITE_LIMIT_LENGTH, near::BYTES_MAX as i32)?;
    Ok(db)
}

/// Whether the database is so small that it was read as a whole when it was opened, if it was there already.
pub(super) fn is_small(db: &Connection) -> rusqlite::Result<bool> {
    let pages: i64 = db.prepare_cached("PRAGMA page_count")?.query_row([], |row| row.get(0))?;
    Ok(pages * wal::PAGE_BYTES <= CHECK_BYTES_MAX)
}

/// Opens a connection that moves the log into the database and does nothing else.
pub(super) fn open_for_log(options: &StoreOptions) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = open(&options.path, flags, options)?;
    // Somebody who reads for long (a backup, say) must not make it hold up the writer for long.
    db.busy_timeout(LOG_BUSY_TIMEOUT)?;
    // NORMAL syncs the log and the database in a checkpoint; OFF would not.
    db.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(db)
}

fn open(path: &Path, flags: OpenFlags, options: &StoreOptions) -> rusqlite::Result<Connection> {
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(Duration::from_millis(options.busy_timeout_ms))?;
    db.pragma_update(None, "mmap_size", 0)?;
    plan_once(&db)?;
    Ok(db)
}

/// Statements are kept with their plans. Without the guarantee, SQLite makes a new plan whenever a value that is bound
/// could matter for it, which takes several times as long as the statement.
fn plan_once(db: &Connection) -> rusqlite::Result<()> {
    db.set_prepared_statement_cache_capacity(64);
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

fn set_up_writer(db: &Connection) -> rusqlite::Result<()> {
    db.pragma_update(None, "foreign_keys", true)?;
    db.pragma_update(None, "temp_store", "MEMORY")?;
    db.pragma_update(None, "cache_size", -16_384)?;
    // The log is moved by a thread of its own.
    db.pragma_update(None, "wal_autocheckpoint", 0)?;
    Ok(())
}

/// Refuses what is not a whole database of ours, without changing it.
fn check(db: &Connection) -> Result<(), Refusal> {
    let tables: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    if tables == 0 {
        return Ok(());
    }
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0))?;
    if application != APPLICATION_ID {
        return Err(Refusal::because("it is a database of another application"));
    }
    let version = version(db)?;
    let known = MIGRATIONS.len() as i64;
    if version > known {
        let why = format!("it was written by a newer weir (schema {version}, this one knows {known})");
        return Err(Refusal::because(why));
    }
    let pages: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
    let page_bytes: i64 = db.pragma_query_value(None, "page_size", |row| row.get(0))?;
    if pages * page_bytes > CHECK_BYTES_MAX {
        return Ok(());
    }
    let verdict: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(Refusal::because(format!("it is damaged ({verdict})")));
    }
    Ok(())
}

/// Runs what is missing, each step in a transaction with its version.
fn migrate(db: &mut Connection) -> Result<(), Refusal> {
    let done = version(db)?;
    if done == 0 {
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
    }
    for (version, migration) in (1_i64..).zip(MIGRATIONS).skip_while(|(version, _)| *version <= done) {
        let step = db.transaction()?;
        let migrated = step
            .execute_batch(migration)
            .and_then(|()| step.pragma_update(None, "user_version", version))
            .and_then(|()| step.commit());
        migrated.map_err(|error| Refusal::Migration(version, error))?;
    }
    Ok(())
}

fn version(db: &Connection) -> rusqlite::Result<i64> {
    db.pragma_query_value(None, "user_version", |row| row.get(0))
}
