//! Junk: whatever clients make up (models, paths, threads, keys, organisations, headers), nothing of it stays in weir:
//! no series of its metrics, no memory.

mod requests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use self::requests::Junk;
use crate::checks::{Access, Key, Site, WAIT_MAX_MS};
use crate::client::{Client, ClientError};
use crate::report::Report;
use crate::samples::rounded;
use crate::target::{ApiError, MOCK, Settings, Target, TargetArguments, TargetError};

/// Sends what nobody has asked for, and watches the series of the metrics and the memory.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// With --url: a key that may read the metrics of all organisations, where weir wants one.
    #[arg(long, env = "WEIR_API_KEY", hide_env_values = true)]
    key: Option<Key>,
    /// Requests.
    #[arg(short = 'n', long, default_value_t = 100_000)]
    requests: u64,
    /// Requests before those, until what weir keeps within bounds is full: its database's caches, the newest requests
    /// [default: 100000 where the process is known, else none].
    #[arg(long)]
    warm_up: Option<u64>,
    /// Clients at once.
    #[arg(short = 'c', long, default_value_t = 64)]
    clients: u64,
    /// Chooses what they send [default: by chance].
    #[arg(long)]
    seed: Option<u64>,
    /// The most series that may come to those from before.
    #[arg(long, default_value_t = 4)]
    series_max: u64,
    /// The most that memory may grow from the middle of the run to its end, in mebibytes; checked where the process is
    /// known, from 10,000 requests on.
    #[arg(long, default_value_t = 8.0)]
    growth_max: f64,
}

const WARM_UP: u64 = 100_000;
const SAMPLE_INTERVAL: Duration = Duration::from_millis(250);
/// A shorter run says nothing about memory.
const GROWTH_REQUESTS_MIN: u64 = 10_000;
/// The share of requests that may get no answer: those on connections that weir has just closed.
const UNANSWERED_MAX: f64 = 0.01;
const MIB: f64 = 1_048_576.0;

/// How weir was at one moment.
#[derive(Debug, Clone, Copy)]
struct Sample {
    /// Requests that had been answered.
    done: u64,
    series: u64,
    /// `None`: the process is not known.
    rss_bytes: Option<u64>,
}

/// What came of the requests, together.
#[derive(Debug, Default)]
struct Answers {
    done: AtomicU64,
    /// By status; 0: none.
    statuses: Mutex<BTreeMap<u16, u64>>,
}

/// Runs it.
pub async fn run(arguments: &Arguments) -> Result<Report, TargetError> {
    // What weir remembers of requests for a while is soon as much as it will be.
    let settings = Settings::default().stream("retain_ms = 1000").stream("cancel_intent_ms = 1000");
    let target = Target::start(&arguments.target, settings).await?;
    let operator = operator(&target, arguments).await?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let has_mock = has_mock(&operator).await?;
    let warm_up = arguments.warm_up.unwrap_or(if target.usage().is_ok() { WARM_UP } else { 0 });
    let answers = Arc::<Answers>::default();
    let mut samples = vec![sample(&target, &operator, &answers).await?];
    let mut clients = JoinSet::new();
    let mut rng = Rng::with_seed(seed);
    for client in 0..arguments.clients {
        let count = share(warm_up + arguments.requests, arguments.clients, client);
        // Without a key: where one is needed, nobody gets that far.
        let thread = if has_mock { target.api.create_thread().await.ok() } else { None };
        let junk = Junk::new(rng.fork(), thread);
        clients.spawn(send_all(target.api.client().clone(), junk, count, answers.clone()));
    }
    let mut ticks = interval(SAMPLE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            ended = clients.join_next() => if ended.is_none() { break },
            _ = ticks.tick() => samples.push(sample(&target, &operator, &answers).await?),
        }
    }
    samples.push(sample(&target, &operator, &answers).await?);
    let mut report = Report::new("junk");
    report.value("seed", seed.to_string());
    report.value("to_a_provider", has_mock);
    report.value("warm_up", warm_up);
    report_answers(&mut report, &answers, warm_up + arguments.requests);
    report_series(&mut report, arguments, &samples);
    report_memory(&mut report, arguments, warm_up, &samples);
    let health = target.api.client().get("/health").await?;
    report.check("it is in good health", health.status() == 200);
    Ok(report)
}

/// A client with the key, if one was given.
async fn operator(target: &Target, arguments: &Arguments) -> Result<Client, TargetError> {
    let own = target.weir.as_ref().map(|weir| weir.url().to_owned());
    let url = own.or_else(|| arguments.target.url.clone()).unwrap_or_default();
    let key = arguments.key.clone();
    let access = Access { key, ca_file: None, provider: None, model: None, timeout_ms: WAIT_MAX_MS };
    Ok(Site::at(&url, &access).await?.api.client().clone())
}

/// Whether there is the provider that knows no model of what is made up: then it gets some, too.
async fn has_mock(operator: &Client) -> Result<bool, TargetError> {
    let providers = operator.get("/api/providers").await?.json();
    let rows = providers.as_array().map(Vec::as_slice).unwrap_or_default();
    Ok(rows.iter().any(|row| row["name"] == MOCK && row["available"] == true))
}

/// What one of several does of the whole.
fn share(whole: u64, of: u64, nth: u64) -> u64 {
    whole / of.max(1) + u64::from(nth < whole % of.max(1))
}

/// Sends junk, on as few connections as weir allows.
async fn send_all(client: Client, mut junk: Junk, count: u64, answers: Arc<Answers>) {
    let mut kept = None;
    for _ in 0..count {
        let request = client.complete(junk.next());
        let answered = async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => client.connect().await?,
            };
            let head = connection.send(&request).await?;
            let closes = head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
            let response = connection.whole(head).await?;
            kept = (!closes).then_some(connection);
            Ok::<_, ClientError>(response.status())
        };
        let status = answered.await.unwrap_or(0);
        *answers.statuses.lock().entry(status).or_default() += 1;
        answers.done.fetch_add(1, Ordering::Relaxed);
    }
}

async fn sample(target: &Target, operator: &Client, answers: &Answers) -> Result<Sample, TargetError> {
    let metrics = operator.get("/metrics").await?;
    if metrics.status() != 200 {
        return Err(TargetError::Api(ApiError::Client(ClientError::Refused(Box::new(metrics)))));
    }
    let text = String::from_utf8_lossy(&metrics.body);
    let series = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).count() as u64;
    let rss_bytes = match target.usage() {
        Ok(usage) => Some(usage.rss_bytes),
        Err(TargetError::NoProcess) => None,
        Err(error) => return Err(error),
    };
    Ok(Sample { done: answers.done.load(Ordering::Relaxed), series, rss_bytes })
}

fn report_answers(report: &mut Report, answers: &Answers, requests: u64) {
    let statuses = answers.statuses.lock();
    let of = |status| statuses.get(&status).copied().unwrap_or(0);
    let named: BTreeMap<_, _> = { statuses.iter() }
        .map(|(status, count)| (if *status == 0 { "none".to_owned() } else { status.to_string() }, count))
        .collect();
    report.value("requests", statuses.values().sum::<u64>());
    report.value("answers", named);
    report.check("every request was sent", statuses.values().sum::<u64>() == requests);
    report.check("nothing of it is a defect of weir (500)", of(500) == 0);
    report.check("requests are answered", of(0) as f64 <= UNANSWERED_MAX * requests as f64);
}

fn report_series(report: &mut Report, arguments: &Arguments, samples: &[Sample]) {
    let before = samples.first().map_or(0, |sample| sample.series);
    let peak = samples.iter().map(|sample| sample.series).max().unwrap_or(0);
    report.value("series_before", before);
    report.value("series_peak", peak);
    let max = arguments.series_max;
    report.check(format!("at most {max} series come to those from before"), before > 0 && peak <= before + max);
}

fn report_memory(report: &mut Report, arguments: &Arguments, warm_up: u64, samples: &[Sample]) {
    let peak = samples.iter().filter_map(|sample| sample.rss_bytes).max();
    let Some(peak) = peak else { return };
    let growth = growth(warm_up, arguments.requests, samples);
    report.value("rss_mib_before", samples[0].rss_bytes.map(|bytes| rounded(bytes as f64 / MIB)));
    report.value("rss_mib_peak", rounded(peak as f64 / MIB));
    report.value("rss_mib_growth", growth.map(rounded));
    if arguments.requests >= GROWTH_REQUESTS_MIN {
        let max = arguments.growth_max;
        let holds = growth.is_some_and(|growth| growth <= max);
        report.check(format!("from the middle to the end memory grows by at most {max} MiB"), holds);
    }
}

/// How much more memory the last tenth of the run after the warm-up has than the tenth around its middle, in mebibytes.
fn growth(warm_up: u64, requests: u64, samples: &[Sample]) -> Option<f64> {
    let median = |from: f64, to: f64| {
        let is_meant = |sample: &&Sample| {
            let at = (sample.done as f64 - warm_up as f64) / requests.max(1) as f64;
            (from..=to).contains(&at)
        };
        let mut sizes: Vec<_> = samples.iter().filter(is_meant).filter_map(|sample| sample.rss_bytes).collect();
        sizes.sort_unstable();
        sizes.get(sizes.len() / 2).map(|bytes| *bytes as f64 / MIB)
    };
    Some(median(0.9, 1.0)? - median(0.45, 0.55)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_are_the_whole() {
        for (whole, of) in [(100_000, 64), (7, 3), (2, 5), (0, 4)] {
            assert_eq!((0..of).map(|nth| share(whole, of, nth)).sum::<u64>(), whole);
        }
    }

    #[test]
    fn growth_is_from_the_middle_to_the_end() {
        let at = |done, mib: u64| Sample { done, series: 1, rss_bytes: Some(mib * 1_048_576) };
        let samples = [at(0, 10), at(50, 20), at(110, 40), at(150, 50), at(195, 61), at(200, 62)];

        assert_eq!(growth(100, 100, &samples), Some(12.0));
        assert_eq!(growth(100, 100, &samples[..3]), None);
    }
}
