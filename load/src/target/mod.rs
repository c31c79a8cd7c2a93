//! Target: the weir that is measured, with the mock as its provider: a process of its own, or one that runs already.

mod api;
mod config;
mod usage;
mod weir;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use api::{Answer, Api, ApiError};
pub use config::{FAULTY, MOCK, NARROW, Settings};
pub use usage::{Usage, cpu_time, cpu_time_of_threads};
pub use weir::{Launch, StartError, Weir};

use crate::client::{Client, ClientError};
use crate::mock::Mock;

/// How long weir's health may take.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(30);

/// Which weir to measure.
#[derive(Debug, Clone, clap::Args)]
pub struct TargetArguments {
    /// The program to start [default: weir, beside this program].
    #[arg(long, value_name = "PATH")]
    pub weir: Option<PathBuf>,
    /// Measures one that runs already instead. It must have the providers `mock`, `narrow` (concurrency 1) and
    /// `faulty` (short timeouts) of the dialect openai_chat, with any_model and the mock's URL.
    #[arg(long, conflicts_with = "weir")]
    pub url: Option<String>,
    /// A PEM file of certificates to trust beside the public ones, with --url https://….
    #[arg(long, requires = "url", value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
    /// The process to look at, with --url.
    #[arg(long, requires = "url")]
    pub pid: Option<u32>,
    /// Where the mock listens.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub mock_bind: SocketAddr,
}

/// Why there is nothing to measure.
#[derive(Debug)]
pub enum TargetError {
    /// The mock cannot listen.
    Mock(io::Error),
    /// Weir did not start.
    Start(StartError),
    /// Nothing answers where one should run.
    Down(String, ClientError),
    /// What answers there is no healthy weir.
    Unhealthy(String, u16),
    /// The measurement needs a process, and none is known.
    NoProcess,
    /// The measurement ends the process, which it does to one of its own alone.
    NotOwn,
    /// The process cannot be looked at.
    Usage(io::Error),
    /// A process may not open as many files as it needs.
    Files {
        /// How many it needs.
        needed: usize,
        /// How many it may have.
        limit: usize,
        /// The most streams that it can have.
        most: usize,
    },
    /// It does not answer as it should.
    Api(ApiError),
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TargetError::Mock(error) => write!(f, "the mock cannot listen: {error}"),
            TargetError::Start(error) => error.fmt(f),
            TargetError::Down(url, error) => write!(f, "nothing to measure at {url}: {error}"),
            TargetError::Unhealthy(url, status) => {
                write!(f, "{url}/health answered {status}: that is no weir in good health")
            }
            TargetError::NoProcess => f.write_str("this needs the process: give --pid, or let it start weir itself"),
            TargetError::NotOwn => f.write_str("this kills weir, one that it starts itself: leave --url out"),
            TargetError::Usage(error) => write!(f, "cannot look at the process: {error}"),
            TargetError::Files { needed, limit, most } => write!(
                f,
                "this needs {needed} open files in one process, which may have {limit} (ulimit -Hn): at most {most} \
                 streams"
            ),
            TargetError::Api(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TargetError {}

impl From<StartError> for TargetError {
    fn from(error: StartError) -> Self {
        TargetError::Start(error)
    }
}

impl From<ApiError> for TargetError {
    fn from(error: ApiError) -> Self {
        TargetError::Api(error)
    }
}

impl From<ClientError> for TargetError {
    fn from(error: ClientError) -> Self {
        TargetError::Api(ApiError::Client(error))
    }
}

/// A weir and its provider.
#[derive(Debug)]
pub struct Target {
    /// Its provider.
    pub mock: Mock,
    /// Its interface.
    pub api: Api,
    /// Its process, if it was started here.
    pub weir: Option<Weir>,
    pid: Option<u32>,
}

impl Target {
    /// Starts the mock, and weir unless one runs already, and asks it for its health.
    pub async fn start(arguments: &TargetArguments, settings: Settings) -> Result<Self, TargetError> {
        let mock = Mock::bind(arguments.mock_bind, None).await.map_err(TargetError::Mock)?;
        let provider_url = mock.url();
        Self::start_with(arguments, settings, mock, &provider_url).await
    }

    /// The same with a provider at this URL, which may be another one than the mock.
    pub async fn start_with(
        arguments: &TargetArguments,
        settings: Settings,
        mock: Mock,
        provider_url: &str,
    ) -> Result<Self, TargetError> {
        let (weir, url) = match &arguments.url {
            Some(url) => (None, url.clone()),
            None => {
                let program = arguments.weir.clone().unwrap_or_else(beside_this_program);
                let mut launch = Launch::weir(program, settings.config(provider_url));
                if let Some(directory) = settings.directory() {
                    launch = launch.within(directory);
                }
                let weir = Weir::start(launch).await?;
                let url = weir.url().to_owned();
                (Some(weir), url)
            }
        };
        let client = Client::new(&url)?.trusting(arguments.ca_file.as_deref())?;
        // What --url names may be anything, also something that never answers.
        match client.clone().within(HEALTH_TIMEOUT).get("/health").await {
            Ok(health) if health.status() == 200 => {}
            Ok(health) => return Err(TargetError::Unhealthy(url, health.status())),
            Err(error) => return Err(TargetError::Down(url, error)),
        }
        let pid = weir.as_ref().map(Weir::pid).or(arguments.pid);
        Ok(Self { mock, api: Api::new(client), weir, pid })
    }

    /// What weir's process uses.
    pub fn usage(&self) -> Result<Usage, TargetError> {
        Usage::of(self.pid.ok_or(TargetError::NoProcess)?).map_err(TargetError::Usage)
    }

    /// The processor time that weir's process has used.
    pub fn cpu_time(&self) -> Result<Duration, TargetError> {
        cpu_time(self.pid.ok_or(TargetError::NoProcess)?).map_err(TargetError::Usage)
    }
}

fn beside_this_program() -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    here.with_file_name("weir")
}
