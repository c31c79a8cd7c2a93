//! What weir does for its clients when a provider has had enough, fails again and again, or comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::future::join_all;
use load::client::{Request, Response};
use load::mock::{Mock, Rate};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use weir::actors::pacer;
use weir::chat::ProviderName;

use crate::support::gateway::{Gateway, config, message};
use crate::support::virtual_weir::VirtualWeir;

/// What the provider really bears, below what weir is told.
const BEARS: Rate = Rate { rps: 3.0, burst: 1 };

/// A pace that is too fast for the provider, and callers who are patient.
const EAGER: &str =
    "rps = 20.0\nconcurrency = 50\nburst = 5\nqueue_max = 10000\nqueue_wait_max_ms = 3600000\nretries_max = 0";

/// Runs in a world of its own in which time jumps to the next timer.
pub(crate) fn in_virtual_time<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, run)
}

fn virtual_config(provider: &str) -> String {
    config("http://127.0.0.1:1/v1", "unused", provider, "")
}

/// Asks a question in a thread of its own and waits for the whole answer.
async fn ask(weir: &VirtualWeir, org: &str, text: &str, model: &str) -> Response {
    let thread = weir.send(Request::post("/api/threads", &json!({})).header("x-org-id", org)).await.json();
    let path = format!("/api/threads/{}/messages", thread["id"].as_str().unwrap());
    weir.send(Request::post(path, &message(text, model)).header("x-org-id", org)).await
}

/// Asks `count` different questions at once; tells when each answer had come.
async fn flood(weir: &VirtualWeir, org: &str, count: usize) -> Vec<Instant> {
    let answers = (0..count).map(async |at| {
        let answer = ask(weir, org, &format!("{org} {at}"), "text@tokens=2,gap_ms=1").await;
        assert_eq!(answer.status(), 200, "{}", answer.json());
        Instant::now()
    });
    join_all(answers).await
}

fn between(times: &[Instant], from: Instant, seconds: std::ops::Range<u64>) -> usize {
    let within = |at: &&Instant| seconds.contains(&(**at - from).as_secs());
    times.iter().filter(within).count()
}

async fn pacer_row(weir: &VirtualWeir) -> pacer::Status {
    let pacer = &weir.api.pacers[&ProviderName::new("mock")];
    pacer.ask(pacer::Snapshot).await.unwrap()
}

// --- A provider that is called too fast ---------------------------------------------------------------------------

#[test]
fn a_limit_that_nobody_configured_is_found_and_used_without_a_client_hearing_of_it() {
    in_virtual_time(async {
        let weir = VirtualWeir::with_rate(&virtual_config(EAGER), BEARS).await;
        let began = Instant::now();

        let answered = flood(&weir, "a", 700).await;

        let settled = between(&answered, began, 60..180);
        assert!((324..=372).contains(&settled), "{settled} answers in 120 s at 3 a second");
        let refused = weir.mock.counts().calls_refused;
        assert!(refused < 70, "{refused} of {} calls were refused", weir.mock.counts().calls_started);
        assert!(pacer_row(&weir).await.effective_rps < 5.0);
    });
}

#[test]
fn a_limit_that_has_gone_is_forgotten() {
    in_virtual_time(async {
        let weir = VirtualWeir::start(&virtual_config(EAGER)).await;
        ask(&weir, "a", "first", "flaky@k=1,status=429").await;
        let reduced = pacer_row(&weir).await.effective_rps;

        flood(&weir, "a", 1_500).await;

        assert!((10.0..12.0).contains(&reduced), "{reduced}");
        assert_eq!(pacer_row(&weir).await.effective_rps, 20.0);
    });
}

#[test]
fn two_organisations_share_a_limit_fairly_although_one_floods() {
    in_virtual_time(async {
        let weir = VirtualWeir::with_rate(&virtual_config(EAGER), BEARS).await;
        let began = Instant::now();
        let guest = async {
            sleep(Duration::from_secs(60)).await;
            flood(&weir, "guest", 60).await
        };

        let (flooding, guest) = futures_util::join!(flood(&weir, "flooding", 500), guest);

        let last = guest.iter().max().unwrap();
        let both_wait = 60..(*last - began).as_secs();
        let (ours, theirs) = (between(&guest, began, both_wait.clone()), between(&flooding, began, both_wait));
        assert!(ours.abs_diff(theirs) <= 3, "{ours} answers for the guest, {theirs} for the one who floods");
    });
}

#[test]
fn a_provider_that_refuses_for_longer_than_a_caller_can_wait_is_told_with_its_pause() {
    in_virtual_time(async {
        let weir = VirtualWeir::start(&virtual_config("rps = 20.0\nqueue_wait_max_ms = 5000")).await;
        let asked = Instant::now();

        let answer = ask(&weir, "a", "hi", "rate_limited@after_s=2").await;

        assert_eq!((answer.status(), answer.error_code().as_deref()), (429, Some("upstream_rate_limit")));
        assert_eq!(answer.head.header("retry-after"), Some("2"));
        assert_eq!((weir.mock.counts().calls_started, asked.elapsed().as_secs()), (3, 4));
    });
}

#[actix_web::test]
async fn a_burst_beyond_the_limit_of_a_real_provider_is_answered_without_a_429() {
    let mock = Mock::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Some(BEARS)).await.unwrap();
    let gateway = Gateway::before(mock, EAGER).await;
    let threads = join_all((0..4).map(|_| gateway.thread())).await;

    let answers = threads
        .iter()
        .enumerate()
        .map(async |(at, thread)| gateway.send(thread, &message(&format!("question {at}"), "text@tokens=2")).await);
    let answers: Vec<Response> = join_all(answers).await;

    assert_eq!(answers.iter().map(Response::status).collect::<Vec<_>>(), [200; 4]);
    assert!(gateway.mock.counts().calls_refused > 0, "the provider did refuse");
    let pacers = gateway.get("/api/admin/pacers").await;
    let row = pacers.as_array().unwrap().iter().find(|row| row["provider"] == "mock").unwrap();
    assert!(row["effective_rps"].as_f64() < Some(20.0) && row["rps"] == json!(20.0), "{row}");
    gateway.at_rest().await;
}

// --- A provider that fails again and again ------------------------------------------------------------------------

/// No second tries, so that each question is one call.
const FRAGILE: &str = "rps = 1000.0\nconcurrency = 50\nburst = 100\nretries_max = 0\n\
                       breaker_failures = 3\nbreaker_open_ms = 5000\nheaders_timeout_ms = 2000";

async fn breaker(weir: &VirtualWeir) -> Value {
    let rows = weir.send(Request::get("/api/admin/pacers")).await.json();
    rows.as_array().unwrap().iter().find(|row| row["provider"] == "mock").unwrap()["breaker"].clone()
}

#[test]
fn a_provider_that_fails_is_left_alone_and_tried_again_later() {
    in_virtual_time(async {
        let weir = VirtualWeir::start(&virtual_config(FRAGILE)).await;
        assert_eq!(breaker(&weir).await, "closed");
        for (at, model) in ["server_error", "overloaded", "slow_head@hold_ms=9000"].iter().enumerate() {
            let failed = ask(&weir, "a", &format!("question {at}"), model).await;
            assert!(failed.error_code().unwrap().starts_with("upstream_"), "{model}");
        }

        let refused = ask(&weir, "a", "is anybody there?", "mock").await;

        assert_eq!((refused.status(), refused.error_code().as_deref()), (503, Some("breaker_open")));
        let retry_after: u64 = refused.head.header("retry-after").unwrap().parse().unwrap();
        assert!((5..=7).contains(&retry_after));
        assert_eq!((weir.mock.counts().calls_started, breaker(&weir).await), (3, json!("open")));
        sleep(Duration::from_secs(retry_after)).await;
        assert_eq!(breaker(&weir).await, "half_open");
        assert_eq!(ask(&weir, "a", "is anybody there?", "mock").await.status(), 200);
        assert_eq!(breaker(&weir).await, "closed");
    });
}

#[test]
fn what_is_the_fault_of_the_request_does_not_open_the_breaker() {
    in_virtual_time(async {
        let weir = VirtualWeir::start(&virtual_config(FRAGILE)).await;
        for at in 0..4 {
            for model in ["not_found", "auth", "quota"] {
                ask(&weir, "a", &format!("question {at}"), model).await;
            }
        }

        assert_eq!(ask(&weir, "a", "is anybody there?", "mock").await.status(), 200);
    });
}

#[test]
fn a_retry_that_meets_an_open_breaker_tells_what_the_provider_said() {
    in_virtual_time(async {
        let fragile = FRAGILE.replace("retries_max = 0", "retries_max = 5");
        let weir = VirtualWeir::start(&virtual_config(&fragile)).await;

        let failed = ask(&weir, "a", "hi", "overloaded").await;

        assert_eq!((failed.status(), failed.error_code().as_deref()), (503, Some("upstream_overloaded")));
        assert_eq!(weir.mock.counts().calls_started, 3);
    });
}

#[test]
fn retries_do_not_multiply_the_calls_to_a_provider_that_fails_everybody() {
    in_virtual_time(async {
        let patient = FRAGILE.replace("retries_max = 0", "retries_max = 3").replace("failures = 3", "failures = 0");
        let weir = VirtualWeir::start(&virtual_config(&patient)).await;
        let questions = (0..100).map(async |at| ask(&weir, "a", &format!("question {at}"), "overloaded").await);

        let answers = join_all(questions).await;

        assert!(answers.iter().all(|answer| answer.error_code().as_deref() == Some("upstream_overloaded")));
        assert_eq!(weir.mock.counts().calls_started, 130, "one retry for five calls, and ten");
    });
}
