//! Usage: what a process uses, from `/proc`.

use std::fs;
use std::io;
use std::time::Duration;

use serde::Serialize;

/// What a process uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Resident memory.
    pub rss_bytes: u64,
    /// The same, with pages that other processes share counted in part.
    pub pss_bytes: u64,
    /// Open files, sockets included.
    pub files: usize,
    /// Threads.
    pub threads: usize,
}

impl Usage {
    /// Of a running process of this user.
    pub fn of(pid: u32) -> io::Result<Self> {
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        Ok(Self {
            rss_bytes: kilobytes(&rollup, "Rss:").ok_or(io::ErrorKind::InvalidData)? * 1024,
            pss_bytes: kilobytes(&rollup, "Pss:").ok_or(io::ErrorKind::InvalidData)? * 1024,
            files: fs::read_dir(format!("/proc/{pid}/fd"))?.count(),
            threads: fs::read_dir(format!("/proc/{pid}/task"))?.count(),
        })
    }
}

/// The processor time that a running process has used so far.
pub fn cpu_time(pid: u32) -> io::Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let ticks = cpu_ticks(&stat).ok_or(io::ErrorKind::InvalidData)?;
    let per_second = rustix::param::clock_ticks_per_second();
    Ok(Duration::from_nanos(ticks * (1_000_000_000 / per_second)))
}

/// The processor time that the threads of a running process have used so far, to the nanosecond where the kernel tells
/// it. Threads that have ended are left out, so it is for a while in which none does.
pub fn cpu_time_of_threads(pid: u32) -> io::Result<Duration> {
    let mut total = Duration::ZERO;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may be gone by now; a kernel without these figures has none for any thread.
        let Ok(used) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanoseconds = used.split_whitespace().next().and_then(|used| used.parse().ok());
        total += Duration::from_nanos(nanoseconds.ok_or(io::ErrorKind::InvalidData)?);
    }
    if total.is_zero() { cpu_time(pid) } else { Ok(total) }
}

/// The value of a line like `Rss:   1234 kB`.
fn kilobytes(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

/// User and system time: the 14th and 15th field, counted from behind the name, which may contain anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let (user, system) = (fields.next()?, fields.next()?);
    Some(user.parse::<u64>().ok()? + system.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_its_key() {
        let rollup = "00400000-7ffd ---p 00000000 00:00 0   [rollup]\nRss:                3492 kB\nPss:    \t 310 kB\n";

        assert_eq!(kilobytes(rollup, "Rss:"), Some(3492));
        assert_eq!(kilobytes(rollup, "Pss:"), Some(310));
        assert_eq!(kilobytes(rollup, "Swap:"), None);
    }

    #[test]
    fn a_name_with_blanks_and_brackets_moves_no_field() {
        let stat = "42 (a) b (c) S 1 42 42 0 -1 4194304 109 0 0 0 7 5 0 0 20 0 3 0 100 1000 300";

        assert_eq!(cpu_ticks(stat), Some(12));
        assert_eq!(cpu_ticks("42 (a"), None);
    }

    #[test]
    fn this_process_uses_something() {
        let pid = std::process::id();
        let usage = Usage::of(pid).unwrap();

        assert!(usage.rss_bytes >= usage.pss_bytes && usage.pss_bytes > 0);
        assert!(usage.files > 0 && usage.threads > 0);
        assert!(cpu_time(pid).is_ok());
        assert!(cpu_time_of_threads(pid).unwrap() > Duration::ZERO);
    }
}
