//! Behind nginx, as operators run it: with the settings that the project recommends, and with nginx's own.

use tokio::time::timeout;

use crate::support::done;
use crate::support::gateway::{FAST, Gateway, PATIENCE};
use crate::support::nginx::{Nginx, PLAIN, RECOMMENDED};

#[actix_web::test]
async fn every_event_comes_through_nginx_before_the_next_one_is_said() {
    let gateway = Gateway::start().await;
    for settings in [RECOMMENDED, PLAIN] {
        let nginx = Nginx::before(gateway.address(), settings).await;
        let thread = gateway.thread().await;

        // The provider says nothing, then two pieces, and the rest when it is allowed to.
        let mut events = nginx.stream(&thread, "gate@after=2,tokens=4").await;

        for name in ["ping", "meta", "delta", "delta"] {
            let heard = timeout(PATIENCE, events.next_named(name)).await;
            heard.unwrap_or_else(|_| panic!("{name} is held back with {settings}")).unwrap();
        }
        gateway.called(|counts| counts.answers_held == 1).await;
        gateway.mock.open_gate();
        let rest = timeout(PATIENCE, events.rest()).await.expect("the end comes in time").unwrap();
        assert_eq!(done(&rest)["status"], "complete");
    }
    gateway.at_rest().await;
}

#[actix_web::test]
async fn whoever_leaves_nginx_leaves_weir() {
    let gateway = Gateway::with(FAST, "[stream]\non_disconnect = \"cancel\"\ndisconnect_grace_ms = 0").await;
    for (settings, left) in [(RECOMMENDED, 1), (PLAIN, 2)] {
        let nginx = Nginx::before(gateway.address(), settings).await;
        let mut events = nginx.stream(&gateway.thread().await, "text@gap_ms=3600000").await;
        timeout(PATIENCE, events.next_named("delta")).await.expect("the first piece comes in time").unwrap();

        drop(events);

        gateway.called(|counts| counts.calls_aborted == left).await;
    }
    gateway.at_rest().await;
}
