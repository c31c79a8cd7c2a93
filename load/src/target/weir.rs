//! Weir: one as a process of its own, to be started, watched, stopped, killed and started again on the same data.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::usage::{Usage, cpu_time};
use crate::client::Client;

/// How long it may take until it listens, or until a killed one is gone.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Lines of its output that are kept, newest last.
const LOG_LINES_MAX: usize = 500;

/// What to start, and with which configuration.
#[derive(Debug, Clone)]
pub struct Launch {
    program: PathBuf,
    arguments: Vec<OsString>,
    config: Option<String>,
    environment: Vec<(OsString, OsString)>,
    within: Option<PathBuf>,
}

impl Launch {
    /// The program with a configuration file. It is put into the directory that the process runs in, so relative
    /// paths begin there.
    pub fn weir(program: impl Into<PathBuf>, config: impl Into<String>) -> Self {
        let arguments = vec!["--config".into(), CONFIG_FILE.into()];
        Self { program: program.into(), arguments, config: Some(config.into()), environment: Vec::new(), within: None }
    }

    /// Another program that says where it listens.
    pub fn program(program: impl Into<PathBuf>, arguments: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let arguments = arguments.into_iter().map(Into::into).collect();
        Self { program: program.into(), arguments, config: None, environment: Vec::new(), within: None }
    }

    /// Makes the directory that it runs in within this one.
    pub fn within(mut self, directory: impl Into<PathBuf>) -> Self {
        self.within = Some(directory.into());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

const CONFIG_FILE: &str = "config.toml";

/// Why a process did not start.
#[derive(Debug)]
pub enum StartError {
    /// There is no such program.
    Missing(PathBuf),
    /// It, or its directory, cannot be made.
    Io(io::Error),
    /// It ended before it listened; with what it said.
    Ended(String),
    /// It did not say in time where it listens; with what it said instead.
    Silent(String),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Missing(program) => {
                let program = program.display();
                write!(f, "{program} does not exist: build it (cargo build --release), or name it with --weir")
            }
            StartError::Io(error) => write!(f, "cannot start weir: {error}"),
            StartError::Ended(log) => write!(f, "weir ended before it listened; it said:\n{log}"),
            StartError::Silent(log) => {
                let seconds = START_TIMEOUT.as_secs();
                write!(f, "weir did not listen within {seconds} s; it said:\n{log}")
            }
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> Self {
        StartError::Io(error)
    }
}

/// A running weir. Dropping it kills it and removes its directory.
#[derive(Debug)]
pub struct Weir {
    launch: Launch,
    /// Before the directory: it is killed before its files are removed.
    child: Child,
    directory: TempDir,
    pid: u32,
    url: String,
    log: Log,
}

impl Weir {
    /// Starts it in a new directory and waits until it says where it listens: the first line of its output with
    /// `listening on http://`.
    pub async fn start(launch: Launch) -> Result<Self, StartError> {
        let within = launch.within.clone().unwrap_or_else(std::env::temp_dir);
        let directory = tempfile::Builder::new().prefix("weir-load-").tempdir_in(within)?;
        if let Some(config) = &launch.config {
            std::fs::write(directory.path().join(CONFIG_FILE), config)?;
        }
        let log = Log::default();
        let (child, url) = spawn(&launch, directory.path(), &log).await?;
        let pid = child.id().ok_or_else(|| StartError::Ended(log.text()))?;
        Ok(Self { launch, child, directory, pid, url, log })
    }

    /// Starts it again in the same directory after it has ended. It may listen somewhere else.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        let (child, url) = spawn(&self.launch, self.directory.path(), &self.log).await?;
        self.pid = child.id().ok_or_else(|| StartError::Ended(self.log.text()))?;
        (self.child, self.url) = (child, url);
        Ok(())
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Asks it to stop (SIGTERM) and waits until it has; `None`: it has not within this time.
    pub async fn terminate(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        self.signal(Signal::TERM)?;
        self.wait(within).await
    }

    /// Sends it SIGHUP.
    pub fn hang_up(&self) -> io::Result<()> {
        self.signal(Signal::HUP)
    }

    /// Waits until it has ended; `None`: it has not within this time.
    pub async fn wait(&mut self, within: Duration) -> io::Result<Option<ExitStatus>> {
        timeout(within, self.child.wait()).await.ok().transpose()
    }

    /// Where it listens, such as `http://127.0.0.1:8000`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A client of it.
    ///
    /// # Panics
    /// If what it said is no URL.
    pub fn client(&self) -> Client {
        Client::new(&self.url).expect("it was taken from the output by its beginning")
    }

    /// The id of its process.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The directory it runs in.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it uses.
    pub fn usage(&self) -> io::Result<Usage> {
        Usage::of(self.pid)
    }

    /// The processor time it has used.
    pub fn cpu_time(&self) -> io::Result<Duration> {
        cpu_time(self.pid)
    }

    /// The end of its output.
    pub fn log(&self) -> String {
        self.log.text()
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        let pid = self.child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        let pid = pid.ok_or(io::ErrorKind::NotFound)?;
        Ok(kill_process(pid, signal)?)
    }
}

async fn spawn(launch: &Launch, directory: &Path, log: &Log) -> Result<(Child, String), StartError> {
    // A path with a directory in it counts from here, not from where the process will run.
    let program = match launch.program.components().count() {
        1 => launch.program.clone(),
        _ => std::path::absolute(&launch.program)?,
    };
    let mut command = Command::new(&program);
    command.args(&launch.arguments).envs(launch.environment.iter().cloned()).current_dir(directory);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => StartError::Missing(program),
        _ => StartError::Io(error),
    })?;
    let (urls, mut found) = mpsc::channel(1);
    if let Some(output) = child.stdout.take() {
        tokio::spawn(read_output(output, log.clone(), urls.clone()));
    }
    if let Some(output) = child.stderr.take() {
        tokio::spawn(read_output(output, log.clone(), urls.clone()));
    }
    drop(urls);
    match timeout(START_TIMEOUT, found.recv()).await {
        Ok(Some(url)) => Ok((child, url)),
        Ok(None) => Err(StartError::Ended(log.text())),
        Err(_) => Err(StartError::Silent(log.text())),
    }
}

/// Keeps the lines of an output and tells the URL in the first line that has one.
async fn read_output(output: impl AsyncRead + Unpin, log: Log, urls: mpsc::Sender<String>) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Some(url) = listening_url(&line) {
            // Only the first one is waited for.
            let _ = urls.try_send(url);
        }
        log.push(line);
    }
}

fn listening_url(line: &str) -> Option<String> {
    let (_, rest) = line.split_once("listening on ")?;
    let url = rest.split(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',')).next()?;
    url.starts_with("http://").then(|| url.trim_end_matches('/').to_owned())
}

/// The end of a process's output.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<VecDeque<String>>>);

impl Log {
    fn push(&self, line: String) {
        let mut lines = self.0.lock();
        if lines.len() == LOG_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn text(&self) -> String {
        self.0.lock().iter().map(|line| format!("  {line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Launch {
        Launch::program("/bin/sh", ["-c", script])
    }

    #[test]
    fn the_url_is_what_it_says_to_listen_on() {
        let found = |line| listening_url(line);

        assert_eq!(found("listening on http://127.0.0.1:8000"), Some("http://127.0.0.1:8000".to_owned()));
        assert_eq!(
            found("[2026 INFO weir] listening on http://[::1]:1/, 2 workers"),
            Some("http://[::1]:1".to_owned())
        );
        assert_eq!(found("warming http://127.0.0.1:9"), None);
        assert_eq!(found("listening on unix:/x"), None);
    }

    #[tokio::test]
    async fn a_process_is_started_and_asked_to_stop() {
        let script = "echo warming http://127.0.0.1:9; echo listening on http://127.0.0.1:7 >&2; exec sleep 1000";
        let mut weir = Weir::start(shell(script)).await.unwrap();

        assert_eq!(weir.url(), "http://127.0.0.1:7");
        assert!(weir.usage().unwrap().rss_bytes > 0);
        let status = weir.terminate(Duration::from_secs(10)).await.unwrap().unwrap();

        assert!(!status.success());
        assert!(weir.terminate(Duration::from_secs(10)).await.is_err());
    }

    #[tokio::test]
    async fn a_killed_process_starts_again_in_the_same_directory() {
        let script =
            "echo x >> starts; echo listening on http://127.0.0.1:$(wc -l < starts | tr -d ' '); exec sleep 1000";
        let mut weir = Weir::start(shell(script)).await.unwrap();
        let (pid, url) = (weir.pid(), weir.url().to_owned());

        weir.kill().await.unwrap();
        assert!(Usage::of(pid).is_err());
        weir.restart().await.unwrap();

        assert_eq!((url.as_str(), weir.url()), ("http://127.0.0.1:1", "http://127.0.0.1:2"));
    }

    #[tokio::test]
    async fn it_runs_where_it_is_told_to() {
        let place = tempfile::tempdir().unwrap();
        let script = "echo listening on http://127.0.0.1:7; exec sleep 1000";

        let weir = Weir::start(shell(script).within(place.path())).await.unwrap();

        assert_eq!(weir.directory().parent(), Some(place.path()));
    }

    #[tokio::test]
    async fn dropping_it_kills_it_and_removes_its_directory() {
        let weir = Weir::start(shell("echo listening on http://127.0.0.1:7; exec sleep 1000")).await.unwrap();
        let directory = weir.directory().to_owned();
        assert!(directory.exists());

        drop(weir);

        assert!(!directory.exists());
    }

    #[tokio::test]
    async fn one_that_ends_at_once_says_why() {
        let error = Weir::start(shell("echo no such key >&2; exit 2")).await.unwrap_err();

        assert!(matches!(error, StartError::Ended(log) if log == "  no such key\n"));
    }

    #[tokio::test]
    async fn a_missing_program_is_named() {
        let error = Weir::start(Launch::weir("/no/such/weir", "")).await.unwrap_err();

        assert!(error.to_string().starts_with("/no/such/weir does not exist"));
    }
}
