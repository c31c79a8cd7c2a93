//! What needs a real nginx.

use super::*;
use crate::mock::Mock;

#[tokio::test]
async fn an_nginx_passes_answers_on_and_is_gone_afterwards() {
    let mut report = Report::new("x");
    let mock = Mock::start().await;
    let nginx =
        proxy(&BesideArguments { beside: Some(Beside::Nginx), nginx: "nginx".into() }, mock.address(), 1, &mut report)
            .await;
    let nginx = nginx.expect("nginx is installed (Debian: nginx-light)");
    let way = Way::nginx(&nginx).unwrap();

    let mut events = way.ask(way.ticket().await.unwrap(), "text@tokens=3,gap_ms=0", "hello").await.unwrap();
    let events: Vec<_> = events.rest().await.unwrap().into_iter().map(|arrived| arrived.event).collect();

    assert_eq!(events.iter().filter(|event| way.is_token(event)).count(), 3);
    assert_eq!(events.iter().filter(|event| way.is_end(event)).count(), 1);
    assert!(way.is_end(events.last().unwrap()));
    assert!(nginx.workers().unwrap() > 0);
    assert!(nginx.cpu_time().is_ok());
    drop(nginx);
    mock.wait_until(|counts| counts.connections_live == 0).await;
}
