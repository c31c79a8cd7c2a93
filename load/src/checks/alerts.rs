//! Alerts: whether weir has a reason to complain, for cron.

use super::{Site, SiteArguments};
use crate::report::Report;
use crate::target::TargetError;

/// Asks weir for its alerts; ends with 1 while there are any.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    /// Requests that the figures cover.
    #[arg(short, default_value_t = 100)]
    n: usize,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let site = Site::reach(&arguments.site).await?;
    let performance = site.api.performance(arguments.n).await?;
    let mut report = Report::new("alerts");
    report.value("requests", &performance["window"]["count"]);
    report.value("ttft_p95_ms", &performance["ttft_ms"]["p95"]);
    report.value("error_rate", &performance["error_rate"]);
    report.value("queue_wait_p95_ms", &performance["queue_wait_ms"]["p95"]);
    report.value("coalesce", &performance["coalesce"]);
    let alerts = performance["alerts"].as_array().cloned().unwrap_or_default();
    for alert in &alerts {
        report.check(alert["message"].as_str().map_or_else(|| alert.to_string(), str::to_owned), false);
    }
    report.check("no alert", alerts.is_empty());
    Ok(report)
}
