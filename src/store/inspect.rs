//! Inspect: looks at a database without opening it, for check-ups. SQLite is not asked: it would make files beside the
//! database, which would then belong to whoever looks.

use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{major, minor, statvfs};

use super::StoreError;
use super::files::{index_of, log_of};
use super::refusal::{Refusal, probe};
use super::schema::APPLICATION_ID;

/// How long the head of a database is.
const HEAD_LEN: usize = 100;
/// What it begins with.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where it says whose it is, as four bytes.
const APPLICATION_AT: usize = 68;
/// Where Linux lists who holds which lock.
const LOCKS: &str = "/proc/locks";

/// What was found where a database is, or will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Its size in bytes; `None`: there is none yet.
    pub bytes: Option<u64>,
    /// Whether a process uses it.
    pub in_use: bool,
    /// That process, where the system tells.
    pub process: Option<u32>,
    /// What is left on its disk, in bytes.
    pub room: Option<u64>,
    /// Whether every user of the machine may read it, or what was written last.
    pub readable_by_all: bool,
    /// Whether it belongs to another user than the one who looks.
    pub is_others: bool,
}

/// Looks whether weir could use the database at `path`; `Err` says why not. Makes a file in its directory and removes
/// it, unless the database is in use.
pub fn inspect(path: &Path) -> Result<Inspection, StoreError> {
    look(path).map_err(|refusal| refusal.about(path))
}

fn look(path: &Path) -> Result<Inspection, Refusal> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let room = statvfs(directory).ok().map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize));
    let mut file = match File::options().read(true).write(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            probe(directory)?;
            let nothing = Inspection {
                bytes: None,
                in_use: false,
                process: None,
                room,
                readable_by_all: false,
                is_others: false,
            };
            return Ok(nothing);
        }
        Err(error) => return Err(error.into()),
    };
    let found = file.metadata()?;
    let mut inspection = Inspection {
        bytes: Some(found.len()),
        in_use: false,
        process: None,
        room,
        readable_by_all: is_readable_by_all(path)?,
        is_others: found.uid() != rustix::process::geteuid().as_raw(),
    };
    match file.try_lock() {
        Ok(()) => {
            is_ours(&mut file)?;
            drop(file);
            probe(directory)?;
        }
        Err(TryLockError::WouldBlock) => {
            inspection.in_use = true;
            inspection.process =
                std::fs::read_to_string(LOCKS).ok().and_then(|locks| holder(&locks, found.dev(), found.ino()));
            // It may be this process that uses it: closing the handle would take SQLite's locks away.
            std::mem::forget(file);
        }
        Err(TryLockError::Error(error)) => return Err(error.into()),
    }
    Ok(inspection)
}

/// Whether every user may read one of the database's files, and enter all directories on the way to them.
fn is_readable_by_all(path: &Path) -> io::Result<bool> {
    let path = std::fs::canonicalize(path)?;
    let may = |path: &Path, mode| std::fs::metadata(path).is_ok_and(|found| found.permissions().mode() & mode != 0);
    let is_reached = path.ancestors().skip(1).all(|directory| may(directory, 0o001));
    let files = [log_of(&path), index_of(&path), path];
    Ok(is_reached && files.iter().any(|file| may(file, 0o004)))
}

/// Refuses what is surely not a database of weir. One that is new may have an empty head.
fn is_ours(file: &mut File) -> Result<(), Refusal> {
    let mut head = [0; HEAD_LEN];
    match file.read_exact(&mut head) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && is_empty(file)? => return Ok(()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Err(Refusal::because("it is not a database")),
        Err(error) => return Err(error.into()),
    }
    if !head.starts_with(MAGIC) {
        return Err(Refusal::because("it is not a database"));
    }
    let owner = [0, 1, 2, 3].map(|n| head[APPLICATION_AT + n]);
    match i32::from_be_bytes(owner) {
        0 | APPLICATION_ID => Ok(()),
        _ => Err(Refusal::because("it is a database of another application")),
    }
}

fn is_empty(file: &File) -> io::Result<bool> {
    Ok(file.metadata()?.len() == 0)
}

/// The process that holds the lock on a file, by the list of all locks.
fn holder(locks: &str, device: u64, inode: u64) -> Option<u32> {
    let wanted = format!("{:02x}:{:02x}:{inode}", major(device), minor(device));
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", process, file, ..] = words.as_slice() else { return None };
        process.parse().ok().filter(|_| *file == wanted)
    })
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;

    use super::*;
    use crate::store::{Store, StoreOptions};

    #[tokio::test]
    async fn a_database_is_seen_in_use_and_idle_and_a_look_makes_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.db");
        assert_eq!(inspect(&path).unwrap().bytes, None);
        let store = Store::open(&StoreOptions { path: path.clone(), ..StoreOptions::default() }).unwrap();

        let used = inspect(&path).unwrap();
        store.close().await;
        let idle = inspect(&path).unwrap();

        assert!(used.in_use && !idle.in_use && idle.bytes > Some(0));
        assert!(used.process.is_none_or(|process| process == std::process::id()));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "the database alone");
    }

    #[tokio::test]
    async fn nobody_else_may_read_a_new_database_and_who_may_read_an_old_one_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("weir.db");
        let set = |path: &Path, mode| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        set(directory.path(), 0o755);
        let options = StoreOptions { path: path.clone(), ..StoreOptions::default() };
        let store = Store::open(&options).unwrap();

        for file in [&path, &log_of(&path), &index_of(&path)] {
            assert_eq!(mode(file) & !0o600, 0, "{}", file.display());
        }
        assert!(!inspect(&path).unwrap().readable_by_all);
        set(&log_of(&path), 0o644);
        assert!(inspect(&path).unwrap().readable_by_all, "what was written last stands there");
        store.close().await;
        set(&path, 0o644);
        assert!(inspect(&path).unwrap().readable_by_all);
        Store::open(&options).unwrap().close().await;
        assert_eq!(mode(&path), 0o644, "what was there stays as its owner wants it");
        set(directory.path(), 0o700);
        assert!(!inspect(&path).unwrap().readable_by_all, "nobody gets there");
    }

    #[test]
    fn what_is_no_database_of_weir_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("other.db");
        let mut others = vec![0; HEAD_LEN];
        others[..MAGIC.len()].copy_from_slice(MAGIC);
        others[APPLICATION_AT] = 1;
        for (bytes, why) in
            [(&b"text"[..], "not a database"), (&[7; 200], "not a database"), (&others, "another application")]
        {
            std::fs::write(&path, bytes).unwrap();

            let refused = inspect(&path).unwrap_err().to_string();

            assert!(refused.contains(why), "{refused}");
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        let nowhere = inspect(&directory.path().join("none/weir.db")).unwrap_err().to_string();
        assert!(nowhere.contains("no such directory"), "{nowhere}");
    }

    #[test]
    fn the_holder_of_a_lock_is_found_by_its_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 fe:00:11 0 EOF\n2: FLOCK  ADVISORY  READ 8 fe:00:11 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 6 fe:00:11 0 EOF\n3: FLOCK  ADVISORY  WRITE 9 fe:00:11 0 EOF\n";
        let device = rustix::fs::makedev(0xfe, 0);

        assert_eq!((holder(locks, device, 11), holder(locks, device, 12)), (Some(9), None));
    }
}
