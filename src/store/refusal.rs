//! Refusal: why a database cannot be used, in the words of whoever has to put it right.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use rusqlite::ErrorCode;

use super::StoreError;

/// What a disk must have room for, so that SQLite can open a database at all: its index of the log, and some pages.
const ROOM_BYTES: usize = 64 * 1024;

/// Why a database cannot be used.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not what it must be.
    Unfit(String),
    /// SQLite could not do something.
    Sqlite(rusqlite::Error),
    /// SQLite could not bring the schema to this version.
    Migration(i64, rusqlite::Error),
    /// The operating system could not do something.
    System(io::Error),
}

impl From<rusqlite::Error> for Refusal {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

impl Refusal {
    pub(super) fn because(why: impl Into<String>) -> Self {
        Self::Unfit(why.into())
    }

    /// The whole message about the database at `path`.
    pub(super) fn about(self, path: &Path) -> StoreError {
        let directory = path.parent().unwrap_or(Path::new("."));
        let why = match self {
            Self::Unfit(why) => why,
            Self::System(error) => in_words(&error),
            Self::Sqlite(error) => explain(&error, || probe(directory)),
            Self::Migration(version, error) => {
                format!("its schema could not be brought to {version}: {}", explain(&error, || probe(directory)))
            }
        };
        StoreError::Failed(format!("cannot use the database {}: {why}; nothing in it was changed", path.display()))
    }
}

/// What an error of SQLite means. Some of its codes have several causes: then `probe` tells whether its directory can
/// be written to.
pub(super) fn explain(error: &rusqlite::Error, probe: impl FnOnce() -> io::Result<()>) -> String {
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => "it is not a database".into(),
        Some(ErrorCode::DatabaseCorrupt) => format!("it is damaged ({error})"),
        Some(ErrorCode::DiskFull) => "the disk is full".into(),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "another program has locked it".into(),
        Some(
            ErrorCode::CannotOpen | ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::PermissionDenied,
        ) => match probe() {
            Ok(()) => error.to_string(),
            Err(cause) => format!("its directory takes no files: {}", in_words(&cause)),
        },
        _ => error.to_string(),
    }
}

/// An error of the operating system, which may name a symptom only.
fn in_words(error: &io::Error) -> String {
    let meaning = match error.kind() {
        ErrorKind::StorageFull => "the disk is full",
        ErrorKind::QuotaExceeded => "the disk's quota is used up",
        ErrorKind::ReadOnlyFilesystem => "the file system can only be read",
        ErrorKind::PermissionDenied => "weir's user may not write there",
        ErrorKind::IsADirectory => "it is a directory",
        ErrorKind::NotFound => "there is no such directory",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}

/// Writes a file into the directory and removes it.
pub(super) fn probe(directory: &Path) -> io::Result<()> {
    let path = directory.join(".weir-probe");
    let mut file = std::fs::File::create(&path)?;
    let written = file.write_all(&[0; ROOM_BYTES]).and_then(|()| file.sync_all());
    std::fs::remove_file(&path)?;
    written
}
