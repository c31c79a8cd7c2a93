//! Profile: switches the pacers to a profile of weir's configuration.

use serde_json::{Value, json};

use super::{Site, SiteArguments};
use crate::client::ClientError;
use crate::report::Report;
use crate::target::{ApiError, TargetError};

/// Switches the pacers: `ttft` before a verification, `production` after it.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    /// The profile's name in weir's configuration; `production` is what the file says without one.
    name: String,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let site = Site::reach(&arguments.site).await?;
    let switched = switch(&site, &arguments.name).await?;
    let mut report = Report::new("profile");
    report.value("profile", &arguments.name);
    report.value("pacers", &switched["pacers"]);
    Ok(report)
}

/// Switches. The answer lists the pacers that have changed.
pub(super) async fn switch(site: &Site, name: &str) -> Result<Value, ApiError> {
    let switched = site.api.client().post(&format!("/api/admin/profile/{name}"), &json!({})).await?;
    if switched.status() == 200 { Ok(switched.json()) } else { Err(ClientError::Refused(Box::new(switched)).into()) }
}
