//! What operators run against their weir: each command finds a good one good, and says what is wrong with another.

use std::net::TcpListener;

use clap::{Args, Parser};
use load::checks::{alerts, compare, diagnose, profile, smoke, suite};
use load::report::Report;
use load::suites::junk;
use tokio::time::timeout;

use crate::support::gateway::{FAST, Gateway, PATIENCE, message};

/// A pace that is narrow without the profile.
const PROFILE: &str = "[profiles.ttft.providers.mock]\nrps = 1000.0\nconcurrency = 100\nburst = 100";
/// Enough of them to be a rate.
const FAILURES: usize = 20;
const MODEL: &str = "text@tokens=30,gap_ms=5";
const KEY: &str = "sk-weir-test";
const DIGEST: &str = "a8cb3a47c642e82386ef7afaf9fbde5020ad9625e4095ad5eb382ada6578a84c";

#[derive(Parser)]
struct Line<A: Args> {
    #[command(flatten)]
    arguments: A,
}

/// What a command line means.
fn line<A: Args>(gateway: &Gateway, words: &[&str]) -> A {
    let url = format!("http://{}", gateway.address());
    Line::parse_from(["load", "--url", &url].into_iter().chain(words.iter().copied())).arguments
}

/// The rate that the mock is called with.
async fn rps(gateway: &Gateway) -> f64 {
    let pacers = gateway.get("/api/admin/pacers").await;
    let pacer = pacers.as_array().unwrap().iter().find(|pacer| pacer["provider"] == "mock");
    pacer.unwrap()["rps"].as_f64().unwrap()
}

fn lines(report: &Report) -> String {
    report.lines().join("\n")
}

async fn run_suite(gateway: &Gateway, words: &[&str]) -> Report {
    let arguments: suite::Arguments = line(gateway, words);
    suite::run(&arguments, std::future::pending()).await
}

#[actix_web::test]
async fn the_suite_signs_a_good_weir_off_and_puts_the_pacers_back() {
    let gateway = Gateway::with("rps = 50.0\nconcurrency = 60\nburst = 60", PROFILE).await;

    let report = run_suite(&gateway, &["-n", "6", "--burst", "20", "--model", MODEL]).await;

    assert!(report.holds(), "{report}");
    assert_eq!(report.lines().len(), 3);
    assert!(lines(&report).matches("PASS").count() == 2 && lines(&report).contains("OK"), "{report}");
    assert_eq!(rps(&gateway).await, 50.0);
    gateway.at_rest().await;
}

#[actix_web::test]
async fn an_interrupted_suite_puts_the_pacers_back() {
    let gateway = Gateway::with("rps = 50.0\nconcurrency = 60\nburst = 60", PROFILE).await;
    let arguments: suite::Arguments = line(&gateway, &["--model", "silent"]);
    let in_the_middle = async {
        gateway.called(|counts| counts.streams_live > 0).await;
        assert_eq!(rps(&gateway).await, 1_000.0);
        Ok(())
    };

    let report = suite::run(&arguments, in_the_middle).await;

    assert!(!report.holds());
    assert_eq!(rps(&gateway).await, 50.0);
}

#[actix_web::test]
async fn a_suite_goes_to_the_address_of_operators_where_that_is_another_one() {
    let gateway = Gateway::with_all("admin_bind = \"127.0.0.1:0\"", FAST, PROFILE).await;
    let words = ["-n", "2", "--burst", "0", "--model", MODEL];
    let without = run_suite(&gateway, &words).await;
    assert!(!without.holds() && lines(&without).contains("answered 404"), "there are no metrics: {without}");
    let admin = format!("http://{}", gateway.admin_address());

    let report = run_suite(&gateway, &[&words[..], &["--admin-url", &admin]].concat()).await;

    assert!(report.holds(), "{report}");
    assert_eq!(report.json()["values"]["profile"], "ttft");
}

#[actix_web::test]
async fn a_suite_that_fails_half_way_is_recorded_as_no_go() {
    let gateway = Gateway::start().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("results.md");
    let recording = ["--record", file.to_str().unwrap()];

    let failed = run_suite(&gateway, &[&["--model", "auth", "-n", "2"], &recording[..]].concat()).await;
    let down = Line::parse_from(["load", "--url", "http://127.0.0.1:1"].iter().chain(&recording)).arguments;
    let down = suite::run(&down, std::future::pending()).await;

    assert!(!failed.holds() && !down.holds(), "{failed}{down}");
    let kept = std::fs::read_to_string(file).unwrap();
    assert_eq!(kept.matches(" GMT: NO GO\n").count(), 2, "{kept}");
    assert!(kept.contains("\n- Not measured to the end: an answer lacks a first piece: {"), "{kept}");
    assert!(kept.contains("\n- Not measured to the end: nothing to measure at http://127.0.0.1:1: "), "{kept}");
    assert!(kept.contains("\n| measured to the end | FAIL |\n"), "{kept}");
}

#[actix_web::test]
async fn a_profile_that_is_not_there_is_told_from_one_that_may_not_be_switched() {
    let open = Gateway::start().await;
    let words = ["-n", "1", "--burst", "0", "--model", MODEL];
    let tables =
        format!("{PROFILE}\n[[auth.keys]]\nid = \"chat\"\norg = \"acme\"\nrole = \"user\"\nsha256 = {DIGEST:?}");
    let closed = Gateway::with_tables(&tables).await;

    let unknown = run_suite(&open, &words).await;
    let forbidden = run_suite(&closed, &[&words[..], &["--key", KEY]].concat()).await;

    assert_eq!(unknown.json()["values"]["profile"], "there is no ttft: pacers as they are", "{unknown}");
    assert_eq!(forbidden.json()["values"]["profile"], serde_json::Value::Null, "{forbidden}");
    assert!(!forbidden.holds() && lines(&forbidden).contains("answered 403"), "{forbidden}");
    assert_eq!(closed.mock.counts().calls_started, 0, "nothing is asked in vain");
}

#[actix_web::test]
async fn smoke_and_diagnose_have_nothing_to_say_against_a_good_weir() {
    let gateway = Gateway::start().await;

    let smoked = smoke::run(&line(&gateway, &["--model", MODEL])).await.unwrap();
    let diagnosed = diagnose::run(&line(&gateway, &["--model", MODEL])).await.unwrap();

    assert!(smoked.holds(), "{smoked}");
    assert!(diagnosed.holds(), "{diagnosed}");
}

#[actix_web::test]
async fn alerts_are_the_exit_code() {
    let gateway = Gateway::start().await;
    let arguments: alerts::Arguments = line(&gateway, &[]);
    assert!(alerts::run(&arguments).await.unwrap().holds());
    let thread = gateway.thread().await;
    for n in 0..FAILURES {
        gateway.send(&thread, &message(&format!("question {n}"), "auth")).await;
    }

    let report = alerts::run(&arguments).await.unwrap();

    assert!(!report.holds(), "{report}");
}

#[actix_web::test]
async fn a_profile_that_does_not_exist_is_named() {
    let gateway = Gateway::with_tables(PROFILE).await;
    assert!(profile::run(&line(&gateway, &["ttft"])).await.unwrap().holds());

    let error = profile::run(&line(&gateway, &["nosuch"])).await.unwrap_err();

    assert!(error.to_string().contains("404") && error.to_string().contains("ttft"), "{error}");
}

#[actix_web::test]
async fn a_weir_compared_with_itself_is_as_fast() {
    let gateway = Gateway::start().await;
    let url = format!("http://{}", gateway.address());
    let words = ["load", &url, &url, "-n", "5", "--model", MODEL];
    let arguments = Line::<compare::Arguments>::parse_from(words).arguments;

    let report = compare::run(&arguments).await.unwrap();

    let ratio = report.json()["values"]["ttft_b_over_a"].clone();
    assert!(ratio["low_95"].as_f64() <= ratio["high_95"].as_f64(), "{report}");
}

#[actix_web::test]
async fn where_nothing_runs_the_words_are_clear() {
    let arguments = Line::parse_from(["load", "--url", "http://127.0.0.1:1"]).arguments;

    let error = smoke::run(&arguments).await.unwrap_err();

    assert!(error.to_string().starts_with("nothing to measure at http://127.0.0.1:1"), "{error}");
}

#[actix_web::test]
async fn where_nobody_ever_answers_the_wait_ends() {
    // The kernel takes connections in for it, and nobody reads them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let words = ["load", "--url", &url, "--timeout-ms", "20"];

    let alerts = timeout(PATIENCE, alerts::run(&Line::parse_from(words).arguments)).await.expect("an end");
    let smoke = timeout(PATIENCE, smoke::run(&Line::parse_from(words).arguments)).await.expect("an end");

    for error in [alerts.unwrap_err(), smoke.unwrap_err()] {
        assert!(error.to_string().ends_with("no answer, or no more of it, within 20 ms"), "{error}");
    }
}

#[actix_web::test]
async fn whatever_clients_make_up_adds_no_series_to_the_metrics() {
    let gateway = Gateway::start().await;

    let report = junk::run(&line(&gateway, &["-n", "2000", "-c", "16", "--seed", "1"])).await.unwrap();

    assert!(report.holds(), "{report}");
    let values = report.json()["values"].clone();
    assert_eq!(values["series_peak"], values["series_before"], "{report}");
    assert!(gateway.mock.counts().calls_started > 50, "some of it reaches a provider");
    gateway.at_rest().await;
}
