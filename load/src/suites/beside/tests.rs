//! What is decided about comparisons.

use super::*;
use crate::mock::Mock;

fn arguments(beside: Option<Beside>, nginx: &str) -> BesideArguments {
    BesideArguments { beside, nginx: nginx.into() }
}

#[test]
fn the_median_lies_between_the_rounds_and_the_spread_around_them() {
    let of = |rounds: &[f64]| Spread::of(rounds.iter().copied().map(Some));

    assert_eq!(of(&[3.0, 1.0, 2.5]), Some(Spread { median: 2.5, min: 1.0, max: 3.0 }));
    assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]), Some(Spread { median: 2.5, min: 1.0, max: 4.0 }));
    assert_eq!(Spread::of([None, Some(1.0)]), of(&[1.0]));
    assert_eq!(of(&[]), None);
}

#[test]
fn there_is_no_ratio_to_nothing() {
    assert_eq!(ratio(Some(3.0), Some(2.0)), Some(1.5));
    assert_eq!(ratio(Some(-1.0), Some(2.0)), Some(-0.5));
    for (one, other) in [(Some(1.0), Some(0.0)), (Some(1.0), Some(-0.1)), (None, Some(1.0)), (Some(1.0), None)] {
        assert_eq!(ratio(one, other), None, "{one:?} to {other:?}");
    }
}

#[test]
fn nothing_costs_nothing_only_if_something_was_counted() {
    assert_eq!(each_us(Duration::from_millis(3), 1_000), Some(3.0));
    assert_eq!(each_us(Duration::from_millis(3), 0), None);
}

#[test]
fn every_way_is_first_and_last_equally_often() {
    let client = Client::new("http://127.0.0.1:1").unwrap();
    let names = ["a", "b", "c"];
    let ways = names.map(|name| Arc::new(Way { name, kind: Kind::Openai(client.clone()) }));
    let rounds: Vec<Vec<_>> = (0..6).map(|round| in_turns(&ways, round).iter().map(|way| way.name).collect()).collect();

    for name in names {
        for place in 0..3 {
            assert_eq!(rounds.iter().filter(|round| round[place] == name).count(), 2, "{name} at {place}: {rounds:?}");
        }
        for other in names.iter().filter(|other| **other != name) {
            let after = rounds.iter().filter(|round| round.windows(2).any(|pair| pair == [name, *other]));
            assert_eq!(after.count(), 2, "{other} after {name}: {rounds:?}");
        }
    }
}

#[tokio::test]
async fn without_nginx_the_report_says_so_and_what_is_measured_still_holds() {
    let mut report = Report::new("x");
    let mock = Mock::start().await;

    let none = proxy(&arguments(Some(Beside::Nginx), "/no/such/nginx"), mock.address(), 1, &mut report).await;

    assert!(none.is_none() && report.holds());
    assert!(matches!(report.lines(), [line] if line.starts_with("Not compared with nginx: ")), "{report}");
}

#[tokio::test]
async fn nobody_is_started_who_was_not_asked_for() {
    let mut report = Report::new("x");
    let mock = Mock::start().await;

    assert!(proxy(&arguments(None, "nginx"), mock.address(), 1, &mut report).await.is_none());
    assert!(report.lines().is_empty());
}
