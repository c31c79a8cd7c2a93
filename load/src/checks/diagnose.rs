//! Diagnose: where the time goes between a client and the first token, and whether something on the way buffers.

use std::time::Duration;

use tokio::net::lookup_host;
use tokio::time::Instant;

use super::{Site, SiteArguments, question};
use crate::client::{Arrived, Client, Events, Request};
use crate::report::Report;
use crate::samples::rounded;
use crate::target::{ApiError, TargetError};

/// Sends one message, follows it step by step, and says in words what is slow.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    site: SiteArguments,
}

/// What takes longer than this without need is worth a word.
const SLOW: Duration = Duration::from_millis(200);
/// A wait of this length for a permit is worth a word.
const QUEUE_SLOW_MS: f64 = 100.0;
/// The share of tokens that may arrive together with the one before.
const TOGETHER_MAX: f64 = 0.5;

/// The moments of one stream.
#[derive(Debug)]
struct Steps {
    lookup: Duration,
    connect: Duration,
    /// There and back: a question that weir answers at once.
    way: Duration,
    head: Duration,
    ping: Duration,
    ttft: Duration,
    end: Duration,
    /// The figures that weir says itself, in milliseconds.
    timings: serde_json::Value,
    tokens: usize,
    /// Tokens that arrived with the same read as the one before.
    together: usize,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    let site = Site::reach(&arguments.site).await?;
    let steps = follow(&site).await?;
    let mut report = Report::new("diagnose");
    for (name, took) in [
        ("lookup_ms", steps.lookup),
        ("connect_ms", steps.connect),
        ("way_ms", steps.way),
        ("head_ms", steps.head),
        ("ping_ms", steps.ping),
        ("ttft_ms", steps.ttft),
        ("end_ms", steps.end),
    ] {
        report.value(name, rounded(took.as_secs_f64() * 1_000.0));
    }
    report.value("weir_says", &steps.timings);
    report.value("tokens", steps.tokens);
    report.value("tokens_together", steps.together);
    let findings = findings(&steps);
    report.check("nothing buffers between here and weir", !findings.iter().any(|finding| finding.buffers));
    for finding in &findings {
        report.line(finding.words.clone());
    }
    if findings.is_empty() {
        report.line("Nothing is slow on the way; what is left is the provider's own time.");
    }
    Ok(report)
}

async fn follow(site: &Site) -> Result<Steps, ApiError> {
    let thread = site.api.create_thread().await?;
    let client = site.api.client();
    let way = way(client).await?;
    let start = Instant::now();
    let found = lookup_host(client.authority()).await.map_err(crate::client::ClientError::Connect)?;
    drop(found);
    let lookup = start.elapsed();
    let start = Instant::now();
    let connection = client.connect().await?;
    let connect = start.elapsed();
    let request = client.complete(site.message(&thread, &question("diagnose")));
    let start = Instant::now();
    let mut events = Events::open(connection, &request).await?;
    let head = start.elapsed();
    let (mut arrived, sent) = (Vec::new(), events.sent());
    while let Some(event) = events.next().await? {
        arrived.push(event);
    }
    let after = |wanted: fn(&Arrived) -> bool| arrived.iter().find(|event| wanted(event)).map(|event| event.at - sent);
    let deltas: Vec<_> = arrived.iter().filter(|event| event.event.name == "delta").collect();
    let timings = arrived.iter().map(|event| event.event.json()).find(|data| data.get("ttft_ms").is_some());
    Ok(Steps {
        lookup,
        connect,
        way,
        head,
        ping: after(|_| true).unwrap_or_default(),
        ttft: after(|event| event.event.name == "delta").unwrap_or_default(),
        end: arrived.last().map(|event| event.at - sent).unwrap_or_default(),
        timings: timings.unwrap_or_default(),
        tokens: deltas.len(),
        together: deltas.windows(2).filter(|pair| pair[0].read == pair[1].read).count(),
    })
}

/// How long a question takes that weir answers at once, on a connection that is there already.
async fn way(client: &Client) -> Result<Duration, ApiError> {
    let mut connection = client.connect().await?;
    let asked = Instant::now();
    connection.send(&client.complete(Request::get("/health"))).await?;
    Ok(asked.elapsed())
}

/// Something that is slow.
#[derive(Debug)]
struct Finding {
    words: String,
    buffers: bool,
}

fn findings(steps: &Steps) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut say = |buffers, words: String| findings.push(Finding { words, buffers });
    if steps.lookup > SLOW {
        say(false, format!("The name takes {} ms to resolve.", steps.lookup.as_millis()));
    }
    if steps.connect > SLOW {
        say(
            false,
            format!(
                "A connection takes {} ms: the way is long, or the server is out of places.",
                steps.connect.as_millis()
            ),
        );
    }
    let own = |name: &str| steps.timings[name].as_f64();
    if let Some(queue_ms) = own("queue_wait_ms").filter(|queue_ms| *queue_ms > QUEUE_SLOW_MS) {
        say(
            false,
            format!("The message waits {queue_ms} ms for a permit: the provider's rps or concurrency is used up."),
        );
    }
    if let Some(connect_ms) = own("connect_ms").filter(|connect_ms| *connect_ms > QUEUE_SLOW_MS) {
        say(false, format!("weir needs {connect_ms} ms to connect to the provider: warm_connections would save that."));
    }
    if steps.way > SLOW {
        say(false, format!("The way there and back takes {} ms, for everything that comes.", steps.way.as_millis()));
    }
    // Only what is later than the way takes is held by somebody.
    let [ping, ttft] = [steps.ping, steps.ttft].map(|took| took.saturating_sub(steps.way));
    if ping > SLOW && ping.as_secs_f64() > 0.8 * ttft.as_secs_f64() {
        say(
            true,
            format!(
                "The first bytes, which weir sends at once, come after {} ms, with the first token: a proxy buffers.",
                steps.ping.as_millis()
            ),
        );
    }
    if let Some(ttft_ms) = own("ttft_ms") {
        let late_ms = ttft.as_secs_f64() * 1_000.0 - ttft_ms;
        if late_ms > SLOW.as_secs_f64() * 1_000.0 {
            say(true, format!("The first token arrives {late_ms:.0} ms later than the way takes: a proxy buffers."));
        }
    }
    let together = steps.together as f64 / steps.tokens.saturating_sub(1).max(1) as f64;
    let lasts = steps.end.saturating_sub(steps.ttft) > SLOW;
    if steps.tokens > 10 && lasts && together > TOGETHER_MAX {
        say(
            true,
            format!(
                "{} of {} tokens arrive together with the one before: something on the way, or the provider, collects them.",
                steps.together, steps.tokens
            ),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn steps() -> Steps {
        let millis = Duration::from_millis;
        Steps {
            lookup: millis(1),
            connect: millis(1),
            way: millis(1),
            head: millis(2),
            ping: millis(2),
            ttft: millis(402),
            end: millis(1_400),
            timings: json!({"ttft_ms": 400, "queue_wait_ms": 0, "connect_ms": 0}),
            tokens: 50,
            together: 2,
        }
    }

    fn words(steps: &Steps) -> Vec<(bool, String)> {
        findings(steps).into_iter().map(|finding| (finding.buffers, finding.words)).collect()
    }

    #[test]
    fn a_stream_that_comes_as_it_is_sent_is_nothing_to_talk_about() {
        assert_eq!(words(&steps()), []);
    }

    #[test]
    fn what_buffers_is_told_from_what_is_slow() {
        let buffered =
            Steps { ping: Duration::from_millis(1_380), ttft: Duration::from_millis(1_390), together: 49, ..steps() };
        let said = words(&buffered);
        assert!(said.len() >= 2 && said.iter().all(|(buffers, _)| *buffers), "{said:?}");

        let queued = Steps { timings: json!({"ttft_ms": 400, "queue_wait_ms": 300, "connect_ms": 0}), ..steps() };
        let said = words(&queued);
        assert!(matches!(said.as_slice(), [(false, words)] if words.contains("permit")), "{said:?}");

        let collected = words(&Steps { together: 40, ..steps() });
        assert!(matches!(collected.as_slice(), [(true, words)] if words.contains("40 of 50")), "{collected:?}");
    }

    #[test]
    fn a_long_way_is_told_and_is_no_buffer() {
        let way = Duration::from_millis(450);
        let further = |steps: Steps| Steps {
            connect: way,
            way: steps.way + way,
            head: steps.head + way,
            ping: steps.ping + way,
            ttft: steps.ttft + way,
            end: steps.end + way,
            ..steps
        };
        let quick = Steps { ttft: Duration::from_millis(22), timings: json!({"ttft_ms": 20}), ..steps() };
        for steps in [further(steps()), further(quick)] {
            let said = words(&steps);
            assert!(said.len() == 2 && said.iter().all(|(buffers, _)| !buffers), "{said:?}");
            assert!(said[1].1.starts_with("The way there and back takes 451 ms"), "{said:?}");
        }

        let held = further(Steps { ttft: Duration::from_millis(802), ..steps() });
        let said = words(&held);
        assert!(matches!(&said[2..], [(true, words)] if words.contains("401 ms later")), "{said:?}");
    }
}
