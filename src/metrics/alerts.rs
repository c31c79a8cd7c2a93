//! Alerts: conditions over the newest requests that are worth a person's attention. Pure: time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::Finished;
use crate::chat::{OrgId, View};
use crate::config;
use crate::event::Status;
use crate::store::CallRole;

/// Percentiles are taken over this many requests.
const WINDOW: usize = 100;
/// Fewer requests than this say nothing about a rate.
const REQUESTS_MIN: usize = 20;
/// Requests that came this close together are one burst.
const BURST: Duration = Duration::from_secs(1);

/// Something that is worth a person's attention now.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Alert {
    /// `ttft`, `error_rate`, `queue_wait` or `coalescing`.
    pub name: &'static str,
    /// What was measured.
    pub value: f64,
    /// What is acceptable.
    pub threshold: f64,
    /// How long it has been so, in milliseconds.
    pub for_ms: u64,
    /// What to look at.
    pub message: &'static str,
}

/// Remembers since when each condition holds, in each organisation and in all together.
#[derive(Debug)]
pub(super) struct Watch {
    config: config::Alerts,
    everything: Since,
    /// Those of which one holds.
    orgs: HashMap<OrgId, Since>,
}

/// Since when conditions hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Since {
    ttft: Option<Instant>,
    queue_wait: Option<Instant>,
}

impl Watch {
    pub(super) fn new(config: config::Alerts) -> Self {
        Self { config, everything: Since::default(), orgs: HashMap::new() }
    }

    pub(super) fn configure(&mut self, config: config::Alerts) {
        self.config = config;
    }

    /// Forgets the organisations that are not there any more.
    pub(super) fn keep_only(&mut self, is_there: impl Fn(&OrgId) -> bool) {
        self.orgs.retain(|org, _| is_there(org));
    }

    fn since(&self, view: &View) -> Since {
        match view {
            View::Everything => self.everything,
            View::Org(org) => self.orgs.get(org).copied().unwrap_or_default(),
        }
    }

    fn remember(&mut self, view: &View, since: Since) {
        match view {
            View::Everything => self.everything = since,
            View::Org(org) if since == Since::default() => drop(self.orgs.remove(org)),
            View::Org(org) => drop(self.orgs.insert(org.clone(), since)),
        }
    }

    /// The alerts of `view` at `now`; `requests` are its own, the newest first.
    pub(super) fn evaluate<'a>(
        &mut self,
        view: &View,
        requests: impl Iterator<Item = &'a Finished> + Clone,
        now: Instant,
    ) -> Vec<Alert> {
        let hold = Duration::from_millis(self.config.hold_ms);
        let recent = requests.clone().take_while(|request| now.saturating_duration_since(request.at) <= hold);
        let ttft = p95(recent.clone().take(WINDOW).filter_map(|request| request.ttft_ms));
        let queue_wait = p95(recent.take(WINDOW).filter_map(|request| request.queue_wait_ms));
        let mut since = self.since(view);
        let ttft = held(&mut since.ttft, ttft, self.config.ttft_p95_ms as f64, hold, now);
        let queue_wait = held(&mut since.queue_wait, queue_wait, self.config.queue_wait_p95_ms as f64, hold, now);
        self.remember(view, since);
        let alert = |name, message| move |(value, threshold, for_ms)| Alert { name, value, threshold, for_ms, message };
        let alerts = [
            ttft.map(alert("ttft", "the first token is slow: look at queue, provider and connections")),
            queue_wait.map(alert("queue_wait", "requests wait for the pacer: raise its limits or lower the load")),
            self.error_rate(requests.clone()).map(alert("error_rate", "requests fail: look at errors by code")),
            self.coalescing(requests, now).map(alert("coalescing", "identical requests are not sharing calls")),
        ];
        alerts.into_iter().flatten().collect()
    }

    fn error_rate<'a>(&self, requests: impl Iterator<Item = &'a Finished>) -> Option<(f64, f64, u64)> {
        let newest: Vec<_> = requests.take(self.config.error_window).collect();
        let errors = newest.iter().filter(|request| request.status == Status::Error).count();
        let rate = errors as f64 / newest.len().max(1) as f64;
        let exceeded = newest.len() >= REQUESTS_MIN.min(self.config.error_window) && rate > self.config.error_rate;
        exceeded.then_some((rate, self.config.error_rate, 0))
    }

    /// Under a burst with at least one follower there should be many for each leader. A burst is told of for as long
    /// as a percentile must be exceeded, and forgotten then, whether or not anybody asks for anything after it.
    fn coalescing<'a>(
        &self,
        mut requests: impl Iterator<Item = &'a Finished>,
        now: Instant,
    ) -> Option<(f64, f64, u64)> {
        let told_for = Duration::from_millis(self.config.hold_ms).max(BURST);
        let newest = requests.next().filter(|newest| now.saturating_duration_since(newest.at) <= told_for)?;
        let near = requests.take_while(|request| newest.at.saturating_duration_since(request.at) <= BURST);
        let burst: Vec<_> = std::iter::once(newest).chain(near).collect();
        let followers = burst.iter().filter(|request| request.role == CallRole::Follower).count();
        let leaders = burst.len() - followers;
        let ratio = followers as f64 / leaders.max(1) as f64;
        let exceeded =
            burst.len() >= self.config.coalesce_burst_min && followers > 0 && ratio < self.config.coalesce_ratio_min;
        exceeded.then_some((ratio, self.config.coalesce_ratio_min, 0))
    }
}

/// A value that has been above its threshold for the whole hold time.
fn held(
    since: &mut Option<Instant>,
    value: Option<f64>,
    threshold: f64,
    hold: Duration,
    now: Instant,
) -> Option<(f64, f64, u64)> {
    let Some(value) = value.filter(|value| *value > threshold) else {
        *since = None;
        return None;
    };
    let lasted = now.saturating_duration_since(*since.get_or_insert(now));
    (lasted >= hold).then(|| (value, threshold, u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX)))
}

fn p95(values: impl Iterator<Item = u32>) -> Option<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    let rank = (values.len() * 95).div_ceil(100);
    values.get(rank.checked_sub(1)?).map(|value| f64::from(*value))
}

#[cfg(test)]
mod tests {
    use super::super::tests::finished;
    use super::*;

    impl Watch {
        /// How many organisations it remembers.
        pub(in super::super) fn size(&self) -> usize {
            self.orgs.len()
        }
    }

    fn names(alerts: &[Alert]) -> Vec<&str> {
        alerts.iter().map(|alert| alert.name).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_token_alerts_when_it_has_lasted_five_minutes() {
        let mut watch = Watch::new(config::Alerts::default());
        let mut last = Vec::new();
        for _ in 0..=10 {
            let slow = [finished(1_600, Status::Complete)];
            last = watch.evaluate(&View::Everything, slow.iter(), Instant::now());
            tokio::time::advance(Duration::from_secs(29)).await;
        }
        assert_eq!(names(&last), Vec::<&str>::new());
        tokio::time::advance(Duration::from_secs(30)).await;

        let slow = [finished(1_600, Status::Complete)];
        assert_eq!(names(&watch.evaluate(&View::Everything, slow.iter(), Instant::now())), ["ttft"]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_good_minute_resets_the_clock() {
        let mut watch = Watch::new(config::Alerts::default());
        let slow = [finished(1_600, Status::Complete)];
        watch.evaluate(&View::Everything, slow.iter(), Instant::now());
        tokio::time::advance(Duration::from_secs(299)).await;
        let good = [finished(10, Status::Complete)];
        watch.evaluate(&View::Everything, good.iter(), Instant::now());
        tokio::time::advance(Duration::from_secs(2)).await;

        let slow = [finished(1_600, Status::Complete)];
        assert_eq!(names(&watch.evaluate(&View::Everything, slow.iter(), Instant::now())), Vec::<&str>::new());
    }

    #[test]
    fn two_errors_in_a_hundred_requests_alert_and_one_does_not() {
        let mut watch = Watch::new(config::Alerts::default());
        let mut requests: Vec<_> = (0..99).map(|_| finished(1, Status::Complete)).collect();
        requests.push(finished(1, Status::Error));
        assert_eq!(names(&watch.evaluate(&View::Everything, requests.iter(), Instant::now())), Vec::<&str>::new());

        requests[0] = finished(1, Status::Error);
        assert_eq!(names(&watch.evaluate(&View::Everything, requests.iter(), Instant::now())), ["error_rate"]);
    }

    #[test]
    fn a_burst_of_many_leaders_and_few_followers_alerts() {
        let mut watch = Watch::new(config::Alerts::default());
        let mut requests: Vec<_> = (0..30).map(|_| finished(1, Status::Complete)).collect();
        requests[0].role = CallRole::Follower;

        assert_eq!(names(&watch.evaluate(&View::Everything, requests.iter(), Instant::now())), ["coalescing"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_that_nothing_has_followed_is_not_told_of_for_ever() {
        let mut watch = Watch::new(config::Alerts::default());
        let mut requests: Vec<_> = (0..30).map(|_| finished(1, Status::Complete)).collect();
        requests[0].role = CallRole::Follower;
        let mut told = || names(&watch.evaluate(&View::Everything, requests.iter(), Instant::now())).len();

        tokio::time::advance(Duration::from_secs(300)).await;
        assert_eq!(told(), 1);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(told(), 0);
    }

    #[test]
    fn an_error_rate_over_few_requests_is_told_where_it_is_asked_for() {
        let mut watch = Watch::new(config::Alerts { error_window: 5, ..config::Alerts::default() });
        let requests = [(); 5].map(|()| finished(1, Status::Error));
        let mut told = |count| !watch.evaluate(&View::Everything, requests[..count].iter(), Instant::now()).is_empty();

        assert_eq!((told(4), told(5)), (false, true));
    }
}
