//! Ground: what one try stands on: the provider, weir, the relay, and if it is asked for somebody who is slow.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::relay;
use crate::client::{Client, ClientError};
use crate::mock::Mock;
use crate::target::{Api, ApiError, Launch, Settings, StartError, Target, TargetArguments, TargetError, Weir};

/// Where files are kept in memory: how long a disk takes is its own matter.
const MEMORY: &str = "/dev/shm";
/// How long what was left may take to be gone.
const REST_TIMEOUT: Duration = Duration::from_secs(10);

/// Why nothing can be compared.
#[derive(Debug)]
pub enum GroundError {
    /// Weir or the provider did not start, or does not answer.
    Target(TargetError),
    /// The relay did not start.
    Relay(StartError),
    /// The slow one cannot listen.
    Slow(io::Error),
    /// A process cannot be looked at.
    Usage(io::Error),
    /// What was to be measured never came.
    Nothing(&'static str),
}

impl fmt::Display for GroundError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GroundError::Target(error) => error.fmt(f),
            GroundError::Relay(error) => write!(f, "the relay: {error}"),
            GroundError::Slow(error) => write!(f, "the slow proxy cannot listen: {error}"),
            GroundError::Usage(error) => write!(f, "cannot look at a process: {error}"),
            GroundError::Nothing(what) => write!(f, "{what} was to be measured, and there was none"),
        }
    }
}

impl std::error::Error for GroundError {}

impl From<ApiError> for GroundError {
    fn from(error: ApiError) -> Self {
        GroundError::Target(TargetError::Api(error))
    }
}

impl From<ClientError> for GroundError {
    fn from(error: ClientError) -> Self {
        GroundError::Target(TargetError::from(error))
    }
}

/// What one try stands on. Dropping it ends all of it.
#[derive(Debug)]
pub(super) struct Ground {
    target: Target,
    api: Api,
    provider: Client,
    weir_pid: u32,
    relay: Option<(Weir, Client)>,
    /// The slow proxy.
    _slow: JoinSet<io::Result<()>>,
}

impl Ground {
    /// Starts weir, and the relay if it `has_relay`; what goes to weir is held back for `slow`.
    pub(super) async fn start(weir: Option<PathBuf>, has_relay: bool, slow: Duration) -> Result<Self, GroundError> {
        let mock_bind = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let arguments = TargetArguments { weir, url: None, ca_file: None, pid: None, mock_bind };
        let mut settings = Settings::cancelling();
        if tempfile::tempdir_in(MEMORY).is_ok() {
            settings = settings.within(MEMORY);
        }
        let target = Target::start(&arguments, settings).await.map_err(GroundError::Target)?;
        let weir_pid = target.weir.as_ref().map(Weir::pid).ok_or(GroundError::Target(TargetError::NoProcess))?;
        let provider = Client::new(&target.mock.url())?;
        let relay = if has_relay { Some(start_relay(&target.mock).await?) } else { None };
        let mut proxies = JoinSet::new();
        let api = if slow.is_zero() { target.api.clone() } else { slow_api(&target, slow, &mut proxies).await? };
        Ok(Self { target, api, provider, weir_pid, relay, _slow: proxies })
    }

    /// Weir's interface.
    pub(super) fn api(&self) -> &Api {
        &self.api
    }

    /// The provider, as it is.
    pub(super) fn mock(&self) -> &Mock {
        &self.target.mock
    }

    /// The provider, to be called directly.
    pub(super) fn provider(&self) -> &Client {
        &self.provider
    }

    /// The provider behind the relay.
    pub(super) fn relayed(&self) -> &Client {
        &self.relay().1
    }

    /// Weir's process.
    pub(super) fn weir_pid(&self) -> u32 {
        self.weir_pid
    }

    /// The relay's process.
    pub(super) fn relay_pid(&self) -> u32 {
        self.relay().0.pid()
    }

    fn relay(&self) -> &(Weir, Client) {
        self.relay.as_ref().expect("who compares costs has asked for a relay")
    }

    /// Waits until no call is left.
    pub(super) async fn at_rest(&self) -> Result<(), GroundError> {
        let rest = timeout(REST_TIMEOUT, self.mock().wait_until(|counts| counts.streams_live == 0)).await;
        rest.map(drop).map_err(|_| GroundError::Nothing("the end of all calls"))
    }
}

/// The relay is this program: whatever the machine and the build do to one, they do to the other.
async fn start_relay(mock: &Mock) -> Result<(Weir, Client), GroundError> {
    let program = std::env::current_exe().map_err(|error| GroundError::Relay(error.into()))?;
    let arguments = ["relay".to_owned(), "--to".to_owned(), mock.address().to_string()];
    let relay = Weir::start(Launch::program(program, arguments)).await.map_err(GroundError::Relay)?;
    let client = Client::new(&format!("{}/v1", relay.url()))?;
    Ok((relay, client))
}

async fn slow_api(target: &Target, slow: Duration, proxies: &mut JoinSet<io::Result<()>>) -> Result<Api, GroundError> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(GroundError::Slow)?;
    let url = format!("http://{}", listener.local_addr().map_err(GroundError::Slow)?);
    let authority = target.api.client().authority();
    let to = tokio::net::lookup_host(authority).await.ok().and_then(|mut found| found.next());
    let to = to.ok_or(GroundError::Nothing("weir's address"))?;
    proxies.spawn(async move { relay::serve(&listener, to, slow).await });
    Ok(Api::new(Client::new(&url)?))
}

/// A prompt that nobody else asks at the same time, so that nothing is shared by chance.
pub(super) fn prompt(words: &str, n: usize) -> String {
    format!("{words} ({n})")
}
