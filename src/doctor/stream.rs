//! Stream: whether something between weir and a client holds an event stream back. Pure: compares when weir says that
//! it sent things with when they came. The way takes its time, too, of everything: only what is later than that is held.

use std::time::Duration;

use super::findings::Findings;
use crate::providers::Head;

/// Fewer pieces say nothing about the gaps between them.
const PIECES_MIN: usize = 8;
/// The share of pieces that may come together with the one before.
const TOGETHER_MAX: f64 = 0.5;
/// Pieces that weir itself sends closer than this may come together.
const GAP_MIN: Duration = Duration::from_millis(4);
/// A wait for the first piece that is long enough to see that the head did not wait for it.
const TTFT_MIN: Duration = Duration::from_millis(100);
/// How much later than the way takes the first piece may come.
const LATE_MAX: Duration = Duration::from_millis(400);

/// One event stream, as it came. Times count from the request.
#[derive(Debug, Clone, Default)]
pub(super) struct Heard {
    /// The head of the answer.
    pub(super) head: Head,
    /// The version of HTTP.
    pub(super) http: &'static str,
    /// The way there and back: the quickest of the answers to short questions before it.
    pub(super) way: Duration,
    /// When the head came.
    pub(super) head_at: Duration,
    /// When the first bytes of the body came.
    pub(super) first_byte_at: Option<Duration>,
    /// When the first event came.
    pub(super) ping_at: Option<Duration>,
    /// When each piece of content came.
    pub(super) pieces: Vec<Duration>,
    /// When the last event came.
    pub(super) end_at: Option<Duration>,
    /// To the first piece, as weir says.
    pub(super) ttft: Option<Duration>,
    /// To the end, as weir says.
    pub(super) latency: Option<Duration>,
    /// How it ended; `None`: it was cut.
    pub(super) status: Option<String>,
}

impl Heard {
    /// The mean gap between pieces, as weir sends them.
    fn gap_sent(&self) -> Option<Duration> {
        let gaps = u32::try_from(self.pieces.len().checked_sub(1)?).ok().filter(|gaps| *gaps > 0)?;
        Some(self.latency?.saturating_sub(self.ttft?) / gaps)
    }

    /// The gaps between pieces as they came, the shortest first.
    fn gaps(&self) -> Vec<Duration> {
        let mut gaps: Vec<_> = self.pieces.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).collect();
        gaps.sort_unstable();
        gaps
    }

    /// What the proxy calls itself.
    fn proxy(&self) -> Proxy {
        let said = ["server", "via"].map(|name| self.head.header(name).unwrap_or_default().to_ascii_lowercase());
        let names = |name: &str| said.iter().any(|said| said.contains(name));
        match () {
            () if names("nginx") => Proxy::Nginx,
            () if names("caddy") => Proxy::Caddy,
            () => Proxy::Other,
        }
    }
}

/// Who stands in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proxy {
    Nginx,
    Caddy,
    Other,
}

impl Proxy {
    fn against_buffering(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx: `proxy_buffering off;`, no `proxy_ignore_headers X-Accel-Buffering`, `gzip off;`",
            Proxy::Caddy => "Caddy: no `encode`, no `flush_interval` and no `response_buffers` for weir",
            Proxy::Other => "turn the proxy's buffering of responses off (nginx: `proxy_buffering off;`)",
        }
    }

    fn against_compression(self) -> &'static str {
        match self {
            Proxy::Nginx => "nginx: `gzip off;` (and `brotli off;`) where weir is",
            Proxy::Caddy => "Caddy: no `encode` for weir",
            Proxy::Other => "turn compression of text/event-stream off; weir's `no-transform` asks for that",
        }
    }
}

/// Says what is to be said of a stream.
pub(super) fn judge(heard: &Heard, findings: &mut Findings) {
    headers(heard, findings);
    let when = |at: Option<Duration>| at.map_or("never".to_owned(), |at| format!("{} ms", at.as_millis()));
    let says = format!(
        "HTTP/{}, the way there and back {}, head after {}, first byte {}, ping {}, first piece {} (weir: {}), end {} (weir: {})",
        heard.http,
        when(Some(heard.way)),
        when(Some(heard.head_at)),
        when(heard.first_byte_at),
        when(heard.ping_at),
        when(heard.pieces.first().copied()),
        when(heard.ttft),
        when(heard.end_at),
        when(heard.latency),
    );
    match heard.status.as_deref() {
        Some("complete") => findings.ok("stream", says),
        Some(status) => findings.fail("stream", format!("{says}; it ended as {status}"), "see weir's log"),
        None => {
            let to_do = "raise the proxy's read timeout; see weir's log for what it sent";
            findings.fail("stream", format!("{says}; it was cut before its end"), to_do);
        }
    }
    let held = held_back(heard);
    let gaps = heard.gaps();
    if !held.is_empty() {
        findings.fail(
            "buffering",
            format!("something buffers: {}", held.join("; ")),
            heard.proxy().against_buffering(),
        );
    } else if heard.pieces.len() < PIECES_MIN {
        let says = format!("{} pieces are too few to tell whether something buffers", heard.pieces.len());
        findings.warn("buffering", says, "ask another --provider or --model");
    } else if let (Some(sent), Some(median)) = (heard.gap_sent(), gaps.get(gaps.len() / 2)) {
        let (sent, median) = (sent.as_millis(), median.as_millis());
        findings.ok(
            "buffering",
            format!("nothing buffers: {} pieces, sent {sent} ms apart, came {median} ms apart", heard.pieces.len()),
        );
    }
}

fn headers(heard: &Heard, findings: &mut Findings) {
    let header = |name: &str| heard.head.header(name).unwrap_or_default().to_ascii_lowercase();
    let (kind, cache, encoding) = (header("content-type"), header("cache-control"), header("content-encoding"));
    if !kind.starts_with("text/event-stream") {
        findings.fail(
            "headers",
            format!("Content-Type is not text/event-stream but {kind:?}"),
            "let the proxy leave it",
        );
    } else if !cache.contains("no-transform") {
        let to_do = "let the proxy leave it: caches and compressors on the way go by it";
        findings.warn("headers", "weir's Cache-Control: no-transform did not arrive", to_do);
    } else {
        let hint = match header("x-accel-buffering").as_str() {
            "" => "X-Accel-Buffering was taken out (nginx acts on it)",
            _ => "X-Accel-Buffering arrived",
        };
        findings.ok("headers", format!("Content-Type and Cache-Control arrived, {hint}"));
    }
    if !["", "identity"].contains(&encoding.as_str()) {
        let says = format!("the stream is compressed ({encoding}), which holds events back");
        findings.fail("compression", says, heard.proxy().against_compression());
    }
}

/// Every sign that something waits before it passes things on.
fn held_back(heard: &Heard) -> Vec<String> {
    let mut signs = Vec::new();
    let (way, first) = (heard.way, heard.pieces.first().copied());
    if let (Some(ttft), Some(ping)) = (heard.ttft.filter(|ttft| *ttft >= TTFT_MIN), heard.ping_at)
        && ping.saturating_sub(way).as_secs_f64() > 0.8 * ttft.as_secs_f64()
    {
        let (ping, way, ttft) = (ping.as_millis(), way.as_millis(), ttft.as_millis());
        signs.push(format!(
            "the ping, which weir sends at once, came after {ping} ms, {way} of them for the way; the first piece left \
             after {ttft}"
        ));
    }
    if let (Some(ttft), Some(first)) = (heard.ttft, first)
        && first.saturating_sub(ttft + way) > LATE_MAX
    {
        let (late, way) = ((first - ttft).as_millis(), way.as_millis());
        signs.push(format!("the first piece came {late} ms after weir had sent it, {way} of them for the way"));
    }
    if let Some(sent) = heard.gap_sent().filter(|sent| *sent >= GAP_MIN && heard.pieces.len() >= PIECES_MIN) {
        let gaps = heard.gaps();
        let together = gaps.iter().filter(|gap| **gap < sent / 8).count();
        if together as f64 > TOGETHER_MAX * gaps.len() as f64 {
            let (sent, all) = (sent.as_millis(), heard.pieces.len());
            signs.push(format!("{together} of {all} pieces came together with the one before, sent {sent} ms apart"));
        }
    }
    signs
}

#[cfg(test)]
mod tests {
    use super::super::findings::Verdict;
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    /// Fifty pieces, 20 ms apart from 300 ms on, as they came.
    fn good() -> Heard {
        let headers =
            [("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache, no-transform")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        Heard {
            head: Head { status: 200, headers },
            http: "1.1",
            way: 2 * MILLI,
            head_at: 3 * MILLI,
            first_byte_at: Some(3 * MILLI),
            ping_at: Some(3 * MILLI),
            pieces: (0..50).map(|n| (302 + 20 * n) * MILLI).collect(),
            end_at: Some(1_310 * MILLI),
            ttft: Some(300 * MILLI),
            latency: Some(1_305 * MILLI),
            status: Some("complete".to_owned()),
        }
    }

    fn with_header(heard: Heard, name: &str, value: &str) -> Heard {
        let mut headers = heard.head.headers;
        headers.retain(|(known, _)| known != name);
        headers.push((name.to_owned(), value.to_owned()));
        Heard { head: Head { status: 200, headers }, ..heard }
    }

    /// What is wrong with it: each check's name and what helps.
    fn wrong(heard: &Heard) -> Vec<(String, String)> {
        let mut findings = Findings::default();
        judge(heard, &mut findings);
        let wrong = findings.all().iter().filter(|finding| finding.verdict != Verdict::Ok);
        wrong.map(|finding| (finding.check.clone(), finding.to_do.clone().unwrap())).collect()
    }

    fn checks(heard: &Heard) -> Vec<String> {
        wrong(heard).into_iter().map(|(check, _)| check).collect()
    }

    #[test]
    fn a_stream_that_comes_as_it_was_sent_is_well() {
        assert_eq!(wrong(&good()), []);
    }

    #[test]
    fn each_sign_of_a_buffer_is_enough() {
        let all_at_the_end = Heard { pieces: vec![1_306 * MILLI; 50], ..good() };
        let in_two_lumps =
            Heard { pieces: (0..50).map(|n| if n < 25 { 800 } else { 1_306 } * MILLI).collect(), ..good() };
        let late_ping = Heard { ping_at: Some(299 * MILLI), ..good() };
        let late = Heard { pieces: good().pieces.iter().map(|at| *at + 500 * MILLI).collect(), ..good() };

        for heard in [all_at_the_end, in_two_lumps, late_ping, late] {
            assert_eq!(checks(&heard), ["buffering"], "{heard:?}");
        }
    }

    /// The same, so much further away.
    fn further(heard: Heard, way: Duration) -> Heard {
        Heard {
            way: heard.way + way,
            head_at: heard.head_at + way,
            first_byte_at: heard.first_byte_at.map(|at| at + way),
            ping_at: heard.ping_at.map(|at| at + way),
            pieces: heard.pieces.iter().map(|at| *at + way).collect(),
            end_at: heard.end_at.map(|at| at + way),
            ..heard
        }
    }

    #[test]
    fn a_long_way_is_no_buffer_and_hides_none() {
        let quick = Heard { ttft: Some(110 * MILLI), ..good() };
        let quick = Heard { pieces: quick.pieces.iter().map(|at| *at - 190 * MILLI).collect(), ..quick };
        let all_at_the_end = Heard { pieces: vec![1_306 * MILLI; 50], ..good() };
        let late_ping = Heard { ping_at: Some(299 * MILLI), ..good() };
        for way in [150, 500, 2_000] {
            assert_eq!(wrong(&further(good(), way * MILLI)), [], "{way} ms");
            assert_eq!(wrong(&further(quick.clone(), way * MILLI)), [], "{way} ms");
            assert_eq!(checks(&further(all_at_the_end.clone(), way * MILLI)), ["buffering"], "{way} ms");
            assert_eq!(checks(&further(late_ping.clone(), way * MILLI)), ["buffering"], "{way} ms");
        }
    }

    #[test]
    fn the_fix_is_that_of_the_proxy_that_names_itself() {
        let buffered = Heard { pieces: vec![1_306 * MILLI; 50], ..good() };
        let fix = |heard: &Heard| wrong(heard)[0].1.clone();

        assert!(
            fix(&with_header(buffered.clone(), "server", "nginx/1.22.1")).starts_with("nginx: `proxy_buffering off;`")
        );
        assert!(fix(&with_header(buffered.clone(), "via", "1.1 Caddy")).starts_with("Caddy: no `encode`"));
        assert!(fix(&buffered).starts_with("turn the proxy's buffering"));
        let compressed = with_header(with_header(good(), "server", "nginx"), "content-encoding", "gzip");
        assert_eq!(wrong(&compressed).len(), 1);
        assert!(fix(&compressed).starts_with("nginx: `gzip off;`"));
    }

    #[test]
    fn headers_that_were_replaced_and_ends_that_never_came_are_told() {
        assert_eq!(checks(&with_header(good(), "content-type", "text/plain")), ["headers"]);
        assert_eq!(checks(&with_header(good(), "cache-control", "private")), ["headers"]);
        assert_eq!(checks(&Heard { status: None, ..good() }), ["stream"]);
        assert_eq!(checks(&Heard { status: Some("error".to_owned()), ..good() }), ["stream"]);
        assert_eq!(checks(&Heard { pieces: good().pieces[..3].to_vec(), ..good() }), ["buffering"]);
    }

    #[test]
    fn a_provider_that_sends_everything_at_once_is_no_proxy_that_buffers() {
        let fast = Heard { pieces: vec![302 * MILLI; 50], latency: Some(310 * MILLI), ..good() };

        assert_eq!(checks(&fast), Vec::<String>::new());
    }
}
