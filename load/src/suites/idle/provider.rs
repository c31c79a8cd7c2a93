//! Provider: the mock as a process of its own, so that its files are not those of the clients.

use crate::client::{Client, ClientError, Request};
use crate::target::{ApiError, Launch, StartError, TargetError, Weir};

/// A mock that runs by itself.
#[derive(Debug)]
pub(super) struct Provider {
    process: Weir,
    client: Client,
}

impl Provider {
    /// Starts this program once more, as a mock.
    pub(super) async fn start() -> Result<Self, TargetError> {
        let program = std::env::current_exe().map_err(StartError::Io)?;
        let process = Weir::start(Launch::program(program, ["mock"])).await?;
        // What it is asked about itself is not below the path of its calls.
        let client = Client::new(process.url().trim_end_matches("/v1"))?;
        Ok(Self { process, client })
    }

    /// Where it takes calls.
    pub(super) fn url(&self) -> &str {
        self.process.url()
    }

    /// How many answers it is giving.
    pub(super) async fn running(&self) -> Result<u64, ApiError> {
        let stats = self.client.get("/__stats").await?.json();
        stats["streams_live"].as_u64().ok_or_else(|| ApiError::Lacks("streams_live", stats.to_string()))
    }

    /// Lets so many answers go on.
    pub(super) async fn open_gates(&self, count: usize) -> Result<(), ApiError> {
        let response = self.client.send(Request::new("POST", format!("/__open/{count}"))).await?;
        match response.status() {
            200 => Ok(()),
            _ => Err(ClientError::Refused(Box::new(response)).into()),
        }
    }
}
