//! Files: claims the database for this process, and notices when its files are not there any more.
//!
//! SQLite knows its files by their handles, the next start by their names. When somebody deletes or replaces one of
//! them, all goes on as before, and whatever is written is gone with the process. So the names are looked up again
//! after each group of writes, before anybody is told that it was written: three calls of `stat`, a few microseconds.

use std::fs::{File, Metadata, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StoreError;
use super::refusal::Refusal;

/// Who may do what with a new database: its owner reads and writes it. SQLite gives its log and index the same mode.
const MODE: u32 = 0o600;

/// Where SQLite keeps the log of a database.
pub(super) fn log_of(database: &Path) -> PathBuf {
    beside(database, "-wal")
}

/// Where SQLite keeps its index of the log of a database.
pub(super) fn index_of(database: &Path) -> PathBuf {
    beside(database, "-shm")
}

fn beside(database: &Path, suffix: &str) -> PathBuf {
    let mut path = database.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The right to use a database, which one process has at a time: a second one's start would interrupt the running
/// answers of the first. It ends with the process.
///
/// It is a lock (`flock`) on the database itself, so that neither another name for it (a link of whatever kind) nor
/// a deleted lock file leads around it. SQLite's own locks (`fcntl`) are of another kind and do not notice it. They
/// would all be dropped if a handle of the database were closed while SQLite has it open, so this one is closed last.
#[derive(Debug)]
pub(super) struct Claim {
    /// Absolute and without symbolic links: SQLite names the log after the path that it is given.
    path: PathBuf,
    file: File,
}

impl Claim {
    /// Claims the database. It is made, empty and for nobody else to read, when it does not exist.
    pub(super) fn of(database: &Path) -> Result<Self, StoreError> {
        let refuse = |refusal: Refusal| refusal.about(database);
        let file = File::options().read(true).write(true).create(true).truncate(false).mode(MODE).open(database);
        let file = file.map_err(|error| refuse(error.into()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                // It may be this process that uses it: never closed, see above.
                std::mem::forget(file);
                return Err(refuse(Refusal::because("it is in use by another process")));
            }
            Err(TryLockError::Error(error)) => {
                return Err(refuse(Refusal::because(format!("it cannot be locked: {error}"))));
            }
        }
        let path = std::fs::canonicalize(database).map_err(|error| refuse(error.into()))?;
        Ok(Self { path, file })
    }

    /// The one path that SQLite is to be given.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The files of the database, now that SQLite has opened all of them.
    pub(super) fn files(&self) -> Result<Files, Refusal> {
        let files = Files::at(&self.path)?;
        let claimed = self.file.metadata()?;
        if files.database.id != Id::of(&claimed) {
            return Err(Refusal::because("it was replaced while it was being opened"));
        }
        if claimed.nlink() > 1 {
            let (path, names) = (self.path.display(), claimed.nlink());
            log::warn!(
                "the database {path} has {names} names (hard links): never open it by another one, its log is \
                 found by this one alone"
            );
        }
        Ok(files)
    }
}

/// The files of an open database, as they were when it was opened.
#[derive(Debug)]
pub(super) struct Files {
    database: Known,
    log: Known,
    /// SQLite's index of the log, through which connections know of each other.
    index: Known,
}

/// What has become of the files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Loss {
    /// The log was deleted, and that is all: it is still open here, and can be moved into the database.
    Log(String),
    /// There is nothing to be saved.
    Files(String),
}

impl Files {
    fn at(database: &Path) -> io::Result<Self> {
        Ok(Self {
            database: Known::at(database.to_owned())?,
            log: Known::at(log_of(database))?,
            index: Known::at(index_of(database))?,
        })
    }

    /// What was lost, if something was.
    pub(super) fn loss(&self) -> Option<Loss> {
        let [database, log, index] = [&self.database, &self.log, &self.index].map(Known::fate);
        if log == Fate::Deleted && database == Fate::There && index == Fate::There {
            return Some(Loss::Log(format!("{} was deleted while it was in use", self.log.path.display())));
        }
        let lost = [(&self.database, database), (&self.log, log), (&self.index, index)];
        let what = lost.iter().filter_map(|(known, fate)| {
            let how = match fate {
                Fate::There => return None,
                Fate::Deleted => "deleted or moved away",
                Fate::Replaced => "replaced",
            };
            Some(format!("{} was {how} while it was in use", known.path.display()))
        });
        let what = what.collect::<Vec<_>>().join(", ");
        (!what.is_empty()).then_some(Loss::Files(what))
    }
}

/// What a file is, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    device: u64,
    inode: u64,
}

impl Id {
    fn of(file: &Metadata) -> Self {
        Self { device: file.dev(), inode: file.ino() }
    }
}

#[derive(Debug)]
struct Known {
    path: PathBuf,
    id: Id,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    There,
    Deleted,
    Replaced,
}

impl Known {
    fn at(path: PathBuf) -> io::Result<Self> {
        let id = Id::of(&std::fs::metadata(&path)?);
        Ok(Self { path, id })
    }

    fn fate(&self) -> Fate {
        match std::fs::metadata(&self.path) {
            Ok(found) if Id::of(&found) == self.id => Fate::There,
            Ok(_) => Fate::Replaced,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Fate::Deleted,
            // A directory that cannot be looked into just now says nothing about what is in it.
            Err(_) => Fate::There,
        }
    }
}
