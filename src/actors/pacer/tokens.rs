//! Tokens: how many of them calls may cost a minute, although what a call costs is known only afterwards. Pure: time is
//! an argument.
//!
//! ```text
//! with the permit  a quarter of the call's bytes (an image counts as 1000 tokens)
//!                  + max_tokens, or without it the running mean of the answers so far
//! afterwards       what the provider counts; nothing when it has not accepted the call; else the estimate stays
//! ```
//! A call waits until its estimate is there, or the bucket is full, so that one which is larger than a minute's tokens
//! passes too. What it takes beyond them is owed, at most as much again.

use std::time::Duration;

use tokio::time::Instant;

use crate::bucket::Bucket;
use crate::chat::{ChatRequest, Content, Part};
use crate::event::Usage;

/// Bytes of a call that make a token.
const BYTES: usize = 4;
/// What an image counts.
const IMAGE_TOKENS: usize = 1_000;
/// The length of an answer when none has been seen yet.
const OUTPUT_GUESS: f64 = 500.0;
/// How much the newest answer counts in the running means.
const WEIGHT: f64 = 0.1;
/// More tokens than this have no answer, whatever a provider says.
const USAGE_MAX: u64 = 100_000_000;

/// What a call is expected to cost, as far as its request tells.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Tokens that go upstream.
    pub input: u32,
    /// The longest answer that is asked for.
    pub output_max: Option<u32>,
}

impl Weight {
    /// Of a request whose call has so many bytes.
    pub fn new(request: &ChatRequest, call_bytes: usize) -> Self {
        let parts = request.messages.iter().flat_map(|message| match &message.content {
            Content::Text(_) => &[],
            Content::Parts(parts) => parts.as_slice(),
        });
        let urls = parts.filter_map(|part| match part {
            Part::Text { .. } => None,
            Part::ImageUrl { image_url } => Some(image_url.url.as_str()),
        });
        let (images, image_bytes) = urls.fold((0, 0), |(count, bytes): (usize, usize), url| {
            (count + 1, bytes + if url.starts_with("data:") { url.len() } else { 0 })
        });
        let input = call_bytes.saturating_sub(image_bytes) / BYTES + images * IMAGE_TOKENS;
        Self { input: u32::try_from(input).unwrap_or(u32::MAX), output_max: request.max_tokens }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Tokens {
    /// Tokens a minute; 0: as many as one likes.
    tpm: u32,
    bucket: Bucket,
    output_mean: f64,
    /// Of what calls cost as a whole.
    cost_mean: Option<f64>,
}

impl Tokens {
    /// A minute's tokens are there.
    pub(super) fn new(tpm: u32, now: Instant) -> Self {
        Self { tpm, bucket: Bucket::new(f64::from(tpm), now), output_mean: OUTPUT_GUESS, cost_mean: None }
    }

    /// Changes the limit. What is there or owed stays, as far as the new limit allows.
    pub(super) fn set_tpm(&mut self, tpm: u32, now: Instant) {
        self.fill(now);
        let level = if self.tpm == 0 { f64::from(tpm) } else { self.bucket.level() };
        self.tpm = tpm;
        self.bucket = Bucket::new(level.clamp(-self.max(), self.max()), now);
    }

    /// What may be spent at once; below zero, what is owed; `None` when there is no limit.
    pub(super) fn available(&self) -> Option<f64> {
        (self.tpm > 0).then(|| self.bucket.level())
    }

    /// What a call costs on the average, once one is known.
    pub(super) fn cost_mean(&self) -> Option<f64> {
        self.cost_mean
    }

    /// What a call is expected to cost. More than there ever is need not be there.
    fn expected(&self, weight: Weight) -> f64 {
        f64::from(weight.input) + weight.output_max.map_or(self.output_mean, f64::from)
    }

    /// What has to be there for a call.
    pub(super) fn needed(&self, weight: Weight) -> f64 {
        self.expected(weight).min(self.max())
    }

    pub(super) fn fill(&mut self, now: Instant) {
        self.bucket.fill(self.rate(), self.max(), now);
    }

    /// Whether `needed` is there. It is when rounding alone says that it is not.
    pub(super) fn has(&self, needed: f64) -> bool {
        self.tpm == 0 || self.bucket.level() + 1e-9 * self.max() >= needed
    }

    /// Until `needed` is there.
    pub(super) fn wait_for(&self, needed: f64) -> Duration {
        if self.tpm == 0 { Duration::ZERO } else { self.bucket.wait_for(needed, self.rate()) }
    }

    /// Takes what a call is expected to cost; returns what that was, unless there is no limit.
    pub(super) fn take(&mut self, weight: Weight) -> Option<f64> {
        let charged = self.expected(weight).min(self.bucket.level() + self.max());
        (self.tpm > 0).then(|| {
            self.bucket.take(charged, self.max());
            charged
        })
    }

    /// A call for which `charged` was taken has cost `cost`.
    pub(super) fn settle(&mut self, charged: f64, cost: f64) {
        let owed_most = self.bucket.level() + self.max();
        self.bucket.take((cost - charged).min(owed_most), self.max());
    }

    /// A call has cost this.
    pub(super) fn learn(&mut self, usage: &Usage) {
        let output = usage.output.min(USAGE_MAX) as f64;
        self.output_mean += (output - self.output_mean) * WEIGHT;
        let cost = cost(usage);
        let mean = self.cost_mean.unwrap_or(cost);
        self.cost_mean = Some(mean + (cost - mean) * WEIGHT);
    }

    fn rate(&self) -> f64 {
        f64::from(self.tpm) / 60.0
    }

    fn max(&self) -> f64 {
        f64::from(self.tpm)
    }
}

/// What a provider counts for a call.
pub(super) fn cost(usage: &Usage) -> f64 {
    usage.input.saturating_add(usage.output).min(USAGE_MAX) as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ChatMessage, ImageUrl, ProviderName, Role};

    const SECOND: Duration = Duration::from_secs(1);

    fn weight(input: u32, output_max: u32) -> Weight {
        Weight { input, output_max: Some(output_max) }
    }

    fn usage(input: u64, output: u64) -> Usage {
        Usage { input, output, ..Usage::default() }
    }

    #[test]
    fn images_count_by_their_number_and_not_by_their_bytes() {
        let image = |url: String| Part::ImageUrl { image_url: ImageUrl { url, detail: None } };
        let picture = format!("data:image/png;base64,{}", "A".repeat(100_000));
        let parts = vec![image(picture.clone()), image("https://example.org/a.png".into())];
        let said = ChatMessage { content: Content::Parts(parts), ..ChatMessage::text(Role::User, "") };
        let request = ChatRequest {
            provider: ProviderName::new("p"),
            model: "m".into(),
            system: None,
            messages: vec![ChatMessage::text(Role::User, "hi"), said],
            temperature: None,
            max_tokens: Some(7),
            tools: Vec::new(),
            extra: serde_json::Map::new(),
        };

        let weighed = Weight::new(&request, picture.len() + 400);

        assert_eq!(weighed, weight(2_100, 7));
        assert_eq!(Weight::new(&request, 0).input, 2_000);
    }

    #[test]
    fn what_is_too_much_comes_back_and_what_is_too_little_is_taken() {
        let now = Instant::now();
        let mut tokens = Tokens::new(6_000, now);
        let charged = tokens.take(weight(1_000, 2_000)).unwrap();
        assert_eq!((charged, tokens.available()), (3_000.0, Some(3_000.0)));

        tokens.settle(charged, 500.0);
        assert_eq!(tokens.available(), Some(5_500.0));
        tokens.settle(0.0, 700.0);
        assert_eq!(tokens.available(), Some(4_800.0));

        tokens.fill(now + 5 * SECOND);
        assert_eq!(tokens.available(), Some(5_300.0), "100 a second");
        tokens.settle(3_000.0, 0.0);
        assert_eq!(tokens.available(), Some(6_000.0), "never more than a minute's");
    }

    #[test]
    fn a_call_beyond_a_minute_passes_when_the_bucket_is_full_and_owes_a_minute_at_most() {
        let now = Instant::now();
        let mut tokens = Tokens::new(6_000, now);
        let huge = weight(1_000_000, 1);
        assert!(tokens.has(tokens.needed(huge)));

        let charged = tokens.take(huge).unwrap();

        assert_eq!((charged, tokens.available()), (12_000.0, Some(-6_000.0)));
        assert_eq!(tokens.wait_for(tokens.needed(huge)).as_secs(), 120);
        tokens.settle(charged, 1e8);
        assert_eq!(tokens.available(), Some(-6_000.0));
        tokens.fill(now + 120 * SECOND);
        assert!(tokens.has(tokens.needed(huge)));
    }

    #[test]
    fn without_a_longest_answer_the_mean_of_the_answers_counts() {
        let mut tokens = Tokens::new(60_000, Instant::now());
        let open = Weight { input: 100, output_max: None };
        assert_eq!(tokens.needed(open), 600.0);

        (0..100).for_each(|_| tokens.learn(&usage(10, 40)));

        assert!((140.0..141.0).contains(&tokens.needed(open)), "{}", tokens.needed(open));
        assert_eq!(tokens.cost_mean(), Some(50.0));
        tokens.learn(&usage(u64::MAX, u64::MAX));
        assert!(tokens.needed(open) <= 60_000.0 && tokens.cost_mean().unwrap() < 2e7, "nonsense is bounded");
    }

    #[test]
    fn without_a_limit_nothing_is_taken_and_a_new_limit_begins_full() {
        let now = Instant::now();
        let mut tokens = Tokens::new(0, now);
        assert_eq!((tokens.take(weight(1, 1)), tokens.available()), (None, None));
        assert!(tokens.has(1e9) && tokens.wait_for(1e9).is_zero());

        tokens.set_tpm(600, now);
        assert_eq!(tokens.available(), Some(600.0));
        tokens.take(weight(700, 0));
        tokens.set_tpm(60, now);
        assert_eq!(tokens.available(), Some(-60.0));
        tokens.set_tpm(0, now);
        assert_eq!(tokens.available(), None);
    }
}
