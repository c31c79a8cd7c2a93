//! Gaps: whether tokens that are sent one by one arrive one by one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use crate::client::{ClientError, Events};
use crate::report::Report;
use crate::samples::Samples;
use crate::suites::beside::Way;
use crate::suites::prompt;
use crate::target::TargetError;

const LONG: &str = "text@tokens=200,gap_ms=5,bytes=16";
/// Between two tokens of [`LONG`].
const GAP: Duration = Duration::from_millis(5);
/// Streams whose tokens are watched at once, each way; more would measure the machine.
const STREAMS_MAX: usize = 5;

/// How far apart the tokens of one stream arrive.
#[derive(Debug, Default)]
struct Gaps {
    samples: Samples,
    tokens: u64,
    shared_reads: u64,
}

impl Gaps {
    async fn read(way: &Way, stream: &mut Events) -> Result<Self, ClientError> {
        let mut gaps = Self::default();
        let (mut last, mut last_shared) = (None, None);
        while let Some(arrived) = stream.next().await? {
            if !way.is_token(&arrived.event) {
                continue;
            }
            gaps.tokens += 1;
            if let Some((at, read)) = last.replace((arrived.at, arrived.read)) {
                gaps.samples.add(arrived.at - at);
                if read == arrived.read && last_shared.replace(read) != Some(read) {
                    gaps.shared_reads += 1;
                }
            }
        }
        Ok(gaps)
    }

    fn merge(mut self, other: &Gaps) -> Self {
        self.samples.merge(&other.samples);
        self.tokens += other.tokens;
        self.shared_reads += other.shared_reads;
        self
    }
}

/// Watches all ways at the same time, and tells what was seen.
pub(super) async fn report(report: &mut Report, ways: &[Arc<Way>], streams: usize) -> Result<(), TargetError> {
    let streams = streams.min(STREAMS_MAX);
    let watched = try_join_all(ways.iter().map(async |way| {
        let gaps = try_join_all((0..streams).map(async |n| {
            let mut stream = way.ask(way.ticket().await?, LONG, &prompt("gaps", n)).await?;
            Ok::<_, TargetError>(Gaps::read(way, &mut stream).await?)
        }));
        let gaps = gaps.await?.iter().fold(Gaps::default(), Gaps::merge);
        Ok::<_, TargetError>((way.name, gaps))
    }));
    let watched = watched.await?;
    report.value("token_gap_ms", u64::try_from(GAP.as_millis()).unwrap_or(u64::MAX));
    for (name, gaps) in &watched {
        report.value(&format!("gaps_{name}"), gaps.samples.summary());
        report.value(&format!("shared_reads_{name}"), format!("{} of {} tokens", gaps.shared_reads, gaps.tokens));
    }
    let of = |way| watched.iter().find(|(name, _)| *name == way).map(|(_, gaps)| gaps);
    let (Some(without), Some(with)) = (of("direct"), of("weir")) else { return Ok(()) };
    report.check("as many tokens with weir as without", with.tokens == without.tokens);
    // Tokens that share a read have been held back: at most a few more than the machine does by itself.
    let allowed = without.shared_reads + with.tokens / 20;
    report.check("tokens are not held back to be sent together", with.shared_reads <= allowed);
    Ok(())
}
