//! Suite: the sign-off of a weir that runs: time to first token, cancel, queue, sharing, and weir's own figures.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::future::Future;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::SystemTime;

use futures_util::future::join_all;

use super::{Site, SiteArguments, profile, question};
use crate::client::{Events, Response};
use crate::report::{Report, machine};
use crate::samples::Samples;
use crate::target::{Answer, ApiError, TargetError};

/// Measures the time to the first token, cancels and sharing, compares them with weir's own figures, and prints the
/// three lines of the sign-off.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
    /// Where weir's metrics and administration are, if it has an address of their own for them (server.admin_bind)
    /// [default: --url].
    #[arg(long, value_name = "URL")]
    admin_url: Option<String>,
    /// Answers that are measured.
    #[arg(short, default_value_t = 20)]
    n: usize,
    /// How many at once.
    #[arg(short, default_value_t = 2)]
    concurrency: usize,
    /// Identical sends of the burst; 0: none.
    #[arg(long, default_value_t = 50)]
    burst: usize,
    /// The profile during the run; what was there before is `production` afterwards. "": the pacers stay as they are.
    #[arg(long, default_value = "ttft")]
    profile: String,
    /// Appends the result to this Markdown file.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
}

/// The targets of the sign-off.
const TTFT_P95_MAX_MS: f64 = 1_500.0;
const CANCEL_MAX_MS: f64 = 300.0;
/// A wait that is as good as none.
const QUEUE_WAIT_OK_MS: f64 = 50.0;

/// The targets of a run: where clients go, and where operators do.
#[derive(Debug)]
struct Sides {
    site: Site,
    admin: Site,
}

impl Sides {
    async fn reach(arguments: &Arguments) -> Result<Self, TargetError> {
        let site = Site::reach(&arguments.site).await?;
        let admin = match &arguments.admin_url {
            Some(url) => Site::at(url, &arguments.site.access).await?,
            None => site.clone(),
        };
        Ok(Self { site, admin })
    }
}

/// Runs it, unless it is `interrupted`: then the pacers are put back all the same. What it cannot do fails the report,
/// which is recorded in any case.
pub async fn run(arguments: &Arguments, interrupted: impl Future<Output = Result<(), String>>) -> Report {
    let mut report = Report::new("suite");
    if let Err(error) = sign_off(arguments, interrupted, &mut report).await {
        report.check("measured to the end", false);
        report.line(format!("• Not measured to the end: {}", one_line(&error)));
    }
    if let Some(file) = &arguments.record {
        let recorded = record(file, &arguments.site.url, &report);
        report.check(format!("recorded in {}", file.display()), recorded.is_ok());
    }
    report
}

async fn sign_off(
    arguments: &Arguments,
    interrupted: impl Future<Output = Result<(), String>>,
    report: &mut Report,
) -> Result<(), TargetError> {
    let mut interrupted = pin!(interrupted);
    let sides = tokio::select! {
        sides = Sides::reach(arguments) => sides?,
        _ = &mut interrupted => {
            report.check("not interrupted", false);
            return Ok(());
        }
    };
    let is_switched = switch(&sides.admin, &arguments.profile, report).await?;
    let measured = tokio::select! {
        measured = measure(&sides, arguments, report) => Some(measured),
        _ = interrupted => None,
    };
    if is_switched && let Err(error) = profile::switch(&sides.admin, "production").await {
        report.check("the pacers are put back", false);
        report.line(format!("• The pacers are still those of {}: {}", arguments.profile, one_line(&error)));
    }
    match measured {
        Some(measured) => measured?,
        None => report.check("not interrupted", false),
    }
    Ok(())
}

/// Whether the pacers are switched: weir may not have the profile. Any other refusal is an error.
async fn switch(admin: &Site, name: &str, report: &mut Report) -> Result<bool, ApiError> {
    if name.is_empty() {
        return Ok(false);
    }
    let is_unknown = |response: &Response| response.status() == 404 && response.json()["error"]["param"] == "profile";
    let (said, is_switched) = match profile::switch(admin, name).await {
        Ok(_) => (name.to_owned(), true),
        Err(ApiError::Client(error)) if error.refusal().is_some_and(is_unknown) => {
            (format!("there is no {name}: pacers as they are"), false)
        }
        Err(error) => {
            if !matches!(&error, ApiError::Client(refused) if refused.refusal().is_some()) {
                // Weir may have heard it, and its answer been lost.
                let _ = profile::switch(admin, "production").await;
            }
            return Err(error);
        }
    };
    report.value("profile", said);
    Ok(is_switched)
}

/// What it says, where a line has room for it.
fn one_line(said: &impl ToString) -> String {
    said.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

async fn measure(sides: &Sides, arguments: &Arguments, report: &mut Report) -> Result<(), ApiError> {
    let Sides { site, admin } = sides;
    report.value("answers", format!("{}, {} at once", arguments.n, arguments.concurrency));
    let (ttft, cancel) = answers(site, arguments).await?;
    let performance = admin.api.performance(arguments.n.max(1)).await?;
    report.value("ttft", ttft.summary());
    report.value("cancel", cancel.summary());
    report.value("weir_ttft_p95_ms", &performance["ttft_ms"]["p95"]);
    report.value("weir_cancel_p95_ms", &performance["cancel_ms"]["p95"]);
    report.value("error_rate", &performance["error_rate"]);
    let own = performance["ttft_ms"]["p95"].as_f64().zip(ttft.percentile_ms(95.0));
    report.check(
        "weir's own time to first token is not longer than the client's",
        own.is_some_and(|(weir, seen)| weir <= seen + 1.0),
    );
    report.check("no errors", performance["error_rate"].as_f64() == Some(0.0));
    if arguments.burst > 1 {
        burst(site, arguments.burst, report).await?;
    }
    lines(report, ttft.percentile_ms(95.0), cancel.percentile_ms(95.0), performance["queue_wait_ms"]["p95"].as_f64());
    Ok(())
}

/// The samples of both times: each answer is cancelled at its first piece, which is all that is wanted of it.
async fn answers(site: &Site, arguments: &Arguments) -> Result<(Samples, Samples), ApiError> {
    let workers = arguments.concurrency.clamp(1, arguments.n.max(1));
    let runs = (0..workers).map(async |worker| {
        let mut taken = Vec::new();
        for n in (worker..arguments.n).step_by(workers) {
            taken.push(site.ask_and_cancel(&question(n)).await?);
        }
        Ok::<_, ApiError>(taken)
    });
    let (mut ttft, mut cancel) = (Samples::default(), Samples::default());
    for taken in join_all(runs).await {
        for taken in taken? {
            ttft.add(taken.ttft);
            cancel.extend(taken.cancel);
        }
    }
    Ok((ttft, cancel))
}

/// Identical sends to one thread, which are one turn.
async fn burst(site: &Site, n: usize, report: &mut Report) -> Result<(), ApiError> {
    let thread = site.api.create_thread().await?;
    let request = site.api.client().complete(site.message(&thread, &question("burst")));
    let sends = (0..n).map(async |_| {
        let mut events = Events::open(site.api.client().connect().await?, &request).await?;
        Answer::read(&mut events).await
    });
    let answers: Vec<_> = join_all(sends).await.into_iter().filter_map(Result::ok).collect();
    let complete = answers.iter().filter(|answer| answer.status() == "complete" && answer.defect().is_none()).count();
    let leaders = answers.iter().filter(|answer| answer.role == "leader").count();
    let messages = site.api.thread(&thread).await?["messages"].as_array().map_or(0, Vec::len);
    report.value("burst_complete", format!("{complete}/{n}"));
    report.check("every send of the burst is answered completely", complete == n);
    report.check("one of them leads", leaders == 1);
    report.check("they are one turn of two messages", messages == 2);
    Ok(())
}

/// The three lines, in the form in which sign-offs are kept.
fn lines(report: &mut Report, ttft_ms: Option<f64>, cancel_ms: Option<f64>, queue_wait_ms: Option<f64>) {
    let number = |value: Option<f64>| value.map_or_else(|| "no".to_owned(), |value| format!("{value:.0}"));
    let fast = ttft_ms.is_some_and(|ttft_ms| ttft_ms <= TTFT_P95_MAX_MS);
    let stops = cancel_ms.is_some_and(|cancel_ms| cancel_ms < CANCEL_MAX_MS);
    let flows = queue_wait_ms.is_some_and(|wait_ms| wait_ms <= QUEUE_WAIT_OK_MS);
    let queue = if flows { "OK (≈0)" } else { "INVESTIGATE" };
    report.check("time to first token", fast);
    report.check("cancel", stops);
    report.line(format!("• TTFT (streaming) p95: {} ms (target ≤ 1,500 ms) — {}", number(ttft_ms), verdict(fast)));
    report.line(format!("• Cancel latency: {} ms (target < 300 ms) — {}", number(cancel_ms), verdict(stops)));
    report.line(format!("• Queue wait p95 (TTFT run): {} ms — {queue}", number(queue_wait_ms)));
}

/// Appends the result to a file of results, in Markdown.
fn record(file: &Path, url: &str, report: &Report) -> std::io::Result<()> {
    let result = if report.holds() { "GO" } else { "NO GO" };
    let mut entry = format!("\n## {}: {result}\n\n", httpdate::fmt_http_date(SystemTime::now()));
    let json = report.json();
    let (values, checks) = (&json["values"], json["checks"].as_array());
    let said = |name: &str| values[name].as_str().unwrap_or("none").to_owned();
    let _ = writeln!(
        entry,
        "{url}; answers: {}; profile: {}; measured from {}.\n",
        said("answers"),
        said("profile"),
        machine()
    );
    for line in report.lines() {
        let _ = writeln!(entry, "{}", line.replacen("• ", "- ", 1));
    }
    let _ = writeln!(entry, "\n| criterion | status |\n|---|---|");
    for check in checks.into_iter().flatten() {
        let (what, holds) = (check["check"].as_str().unwrap_or_default(), check["ok"] == true);
        let _ = writeln!(entry, "| {what} | {} |", verdict(holds));
    }
    OpenOptions::new().create(true).append(true).open(file)?.write_all(entry.as_bytes())
}

fn verdict(holds: bool) -> &'static str {
    if holds { "PASS" } else { "FAIL" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_lines_have_their_form_and_their_verdicts() {
        let mut good = Report::new("suite");
        lines(&mut good, Some(412.4), Some(3.2), Some(0.0));
        assert_eq!(
            good.lines(),
            [
                "• TTFT (streaming) p95: 412 ms (target ≤ 1,500 ms) — PASS",
                "• Cancel latency: 3 ms (target < 300 ms) — PASS",
                "• Queue wait p95 (TTFT run): 0 ms — OK (≈0)",
            ]
        );
        assert!(good.holds());

        let mut bad = Report::new("suite");
        lines(&mut bad, Some(1_500.6), None, Some(900.0));
        assert!(bad.lines()[0].ends_with("1501 ms (target ≤ 1,500 ms) — FAIL"));
        assert!(bad.lines()[1].ends_with("no ms (target < 300 ms) — FAIL"));
        assert!(bad.lines()[2].ends_with("900 ms — INVESTIGATE"));
        assert!(!bad.holds());
    }

    #[test]
    fn results_are_added_to_those_that_are_there() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("results.md");
        let mut report = Report::new("suite");
        lines(&mut report, Some(1.0), Some(1.0), Some(0.0));
        record(&file, "http://a", &report).unwrap();
        report.check("something", false);
        record(&file, "http://b", &report).unwrap();

        let kept = std::fs::read_to_string(file).unwrap();
        let (first, second) = kept.split_once("http://b; ").unwrap();
        assert!(first.contains(" GMT: GO\n\nhttp://a; ") && first.contains(" GMT: NO GO\n"), "{kept}");
        assert!(second.contains("\n- TTFT (streaming) p95: 1 ms (target ≤ 1,500 ms) — PASS\n"), "{kept}");
        assert!(second.contains("\n| cancel | PASS |\n| something | FAIL |\n"), "{kept}");
    }
}
