//! Smoke: whether one stream begins, goes on and ends as it should.

use super::{Site, SiteArguments, question};
use crate::report::Report;
use crate::samples::rounded;
use crate::target::{Answer, TargetError};

/// Sends one message and looks at its stream: headers, the first bytes, the frames, the end.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    /// The longest that the first bytes may take, in milliseconds.
    #[arg(long, default_value_t = 200.0)]
    ping_max_ms: f64,
}

/// Frames that are shown.
const FRAMES_SHOWN: usize = 4;

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let site = Site::reach(&arguments.site).await?;
    let mut events = site.ask(&question("smoke")).await?;
    let mut report = Report::new("smoke");
    let head = events.head().clone();
    for (name, expected) in
        [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")]
    {
        let said = head.header(name).unwrap_or_default();
        report.check(format!("{name}: {expected}"), said.contains(expected));
    }
    report.check(
        "x-request-id and x-stream-id",
        ["x-request-id", "x-stream-id"].iter().all(|name| head.header(name).is_some()),
    );
    report.check("not compressed", head.header("content-encoding").is_none());

    let sent = events.sent();
    let mut answer = Answer::default();
    let mut frames = Vec::new();
    while let Some(arrived) = events.next().await? {
        let after_ms = rounded((arrived.at - sent).as_secs_f64() * 1_000.0);
        if frames.is_empty() {
            report.check("the first event is a ping", arrived.event.name == "ping");
            report.value("ping_ms", after_ms);
            report.check(format!("within {} ms", arguments.ping_max_ms), after_ms <= arguments.ping_max_ms);
        }
        if frames.len() < FRAMES_SHOWN {
            frames.push(format!("{after_ms:>9} ms  {:<6} {}", arrived.event.name, arrived.event.data));
        }
        answer.take(&arrived, sent);
    }
    answer.whole = true;
    report.value("frames", frames);
    report.value("ttft_ms", answer.ttft.map(|ttft| rounded(ttft.as_secs_f64() * 1_000.0)));
    report.value("status", answer.status());
    report.check("text comes", !answer.text.is_empty());
    report.check("one done, and nothing after it", answer.defect().is_none());
    report.check("the answer is complete", answer.status() == "complete");
    Ok(report)
}
