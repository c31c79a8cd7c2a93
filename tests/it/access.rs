//! Who may do what: every route of the server, asked by everybody who could ask. A route that is not listed here fails.
//!
//! No route is for the client alone that made a thing: threads and requests are the organisation's.

use std::collections::BTreeSet;

use load::client::{Client, Request};
use serde_json::{Value, json};

use crate::orgs::{keys, with_key};
use crate::support::gateway::{Gateway, message};
use crate::support::listener::Listener;

/// Who asks. The owner is a client of the organisation `acme`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    UnknownKey,
    Owner,
    Colleague,
    OwnAdmin,
    Stranger,
    ForeignAdmin,
    OperatorOfAll,
}

use Who::{Colleague, ForeignAdmin, Nobody, OperatorOfAll, OwnAdmin, Owner, Stranger, UnknownKey};

const EVERYBODY: [Who; 8] = [Nobody, UnknownKey, Owner, Colleague, OwnAdmin, Stranger, ForeignAdmin, OperatorOfAll];

/// Whom a route is for.
#[derive(Debug, Clone, Copy)]
enum For {
    /// Whoever asks.
    Anybody,
    /// Whoever has a key.
    Clients,
    /// Whoever has the key of an organisation; each sees its own.
    Members,
    /// Clients of the organisation that a thing belongs to.
    Org,
    /// Whoever has the key of an admin: the deployment, or what their view shows of it.
    Admins,
    /// Admins whose view shows the thing.
    AdminsOfOrg,
    /// Admins whose view is of all organisations.
    AdminsOfAll,
}

impl For {
    /// The status for those who may not; `None` for those who may.
    fn refuses(self, who: Who) -> Option<u16> {
        match (self, who) {
            (For::Anybody, _) => None,
            (_, Nobody | UnknownKey) => Some(401),
            (For::Clients, _) => None,
            (For::Members | For::Org, OperatorOfAll) => Some(403),
            (For::Members, _) => None,
            (For::Org, Stranger | ForeignAdmin) => Some(404),
            (For::Org, _) => None,
            (For::Admins | For::AdminsOfOrg, Owner | Colleague | Stranger) => Some(403),
            (For::AdminsOfAll, OperatorOfAll) => None,
            (For::AdminsOfAll, _) => Some(403),
            (For::AdminsOfOrg, ForeignAdmin) => Some(404),
            (For::Admins | For::AdminsOfOrg, _) => None,
        }
    }
}

/// How the owner's thread stands when somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Runs,
    HasEnded,
}

use Answer::{HasEnded, Runs};

/// Every route: its method and path, whom it is for, what it is asked about, what it answers.
const ROUTES: [(&str, &str, For, Answer, u16); 40] = [
    ("GET", "/health", For::Anybody, Runs, 200),
    ("GET", "/ready", For::Anybody, Runs, 200),
    ("GET", "/", For::Anybody, Runs, 200),
    ("GET", "/admin", For::Anybody, Runs, 200),
    ("GET", "/assets/{file}", For::Anybody, Runs, 200),
    // What everybody may know: it says nothing of anybody, and of the configuration only limits.
    ("GET", "/api/openapi.json", For::Anybody, Runs, 200),
    ("GET", "/api/session", For::Clients, Runs, 200),
    ("POST", "/api/session", For::Anybody, Runs, 200),
    ("DELETE", "/api/session", For::Anybody, Runs, 204),
    ("GET", "/api/providers", For::Clients, Runs, 200),
    ("POST", "/api/render", For::Members, Runs, 200),
    ("POST", "/api/threads", For::Members, Runs, 201),
    ("GET", "/api/threads", For::Members, Runs, 200),
    ("GET", "/api/threads/{thread}", For::Org, Runs, 200),
    ("PATCH", "/api/threads/{thread}", For::Org, Runs, 200),
    ("DELETE", "/api/threads/{thread}", For::Org, Runs, 204),
    ("POST", "/api/threads/{thread}/messages", For::Org, HasEnded, 200),
    ("POST", "/api/threads/{thread}/messages/stream", For::Org, HasEnded, 200),
    ("GET", "/api/threads/{thread}/messages/{message}", For::Org, Runs, 200),
    ("POST", "/api/threads/{thread}/regenerate", For::Org, HasEnded, 200),
    ("GET", "/api/threads/{thread}/stream", For::Org, Runs, 200),
    ("POST", "/api/threads/{thread}/stop", For::Org, Runs, 200),
    ("POST", "/api/threads/cancel/{request}", For::Org, Runs, 200),
    ("GET", "/api/requests/{request}", For::Org, Runs, 200),
    ("GET", "/api/requests/{request}/stream", For::Org, Runs, 200),
    ("POST", "/v1/chat/completions", For::Members, Runs, 200),
    ("POST", "/v1/responses", For::Members, Runs, 200),
    ("GET", "/v1/models", For::Members, Runs, 200),
    ("GET", "/v1/models/{model:.+}", For::Members, Runs, 200),
    ("GET", "/metrics", For::AdminsOfAll, Runs, 200),
    ("GET", "/api/metrics/performance", For::Admins, Runs, 200),
    ("GET", "/api/admin/pacers", For::Admins, Runs, 200),
    ("PATCH", "/api/admin/pacers/{provider}", For::Admins, Runs, 200),
    ("GET", "/api/admin/keys", For::Admins, Runs, 200),
    ("GET", "/api/admin/streams", For::Admins, Runs, 200),
    ("POST", "/api/admin/streams/{stream}/stop", For::AdminsOfOrg, Runs, 200),
    ("GET", "/api/admin/feed", For::Admins, Runs, 200),
    ("POST", "/api/admin/profile/{profile}", For::Admins, Runs, 200),
    ("POST", "/api/admin/reload", For::Admins, Runs, 200),
    ("GET", "/api/requests/{request}", For::Org, HasEnded, 200),
];

/// What nobody else may read.
const SECRET: &str = "the plan for the takeover";

/// The owner's thread.
struct Thing {
    thread: String,
    request: String,
    stream: String,
    message: String,
    _listener: Listener,
}

impl Thing {
    async fn new(owner: &Client, answer: Answer) -> Self {
        let made = owner.post("/api/threads", &json!({ "title": SECRET })).await.unwrap().json();
        let thread = made["id"].as_str().unwrap().to_owned();
        let mut body = message(SECRET, if answer == Runs { "silent" } else { "mock" });
        body["coalesce"] = false.into();
        let send = Request::post(format!("/api/threads/{thread}/messages/stream"), &body);
        let mut listener = Listener::open(owner, send).await;
        let meta = listener.next_named("meta").await.event.json();
        if answer == HasEnded {
            listener.rest().await;
        }
        let text = |name: &str| meta[name].as_str().unwrap().to_owned();
        let (request, stream, message) = (text("request_id"), text("stream_id"), text("message_id"));
        Self { thread, request, stream, message, _listener: listener }
    }

    /// A route's path with the ids of this thing.
    fn path(&self, template: &str) -> String {
        template
            .replace("{thread}", &self.thread)
            .replace("{request}", &self.request)
            .replace("{stream}", &self.stream)
            .replace("{message}", &self.message)
            .replace("{provider}", "mock")
            .replace("{profile}", "production")
            .replace("{model:.+}", "mock/mock")
            .replace("{file}", "app.js")
    }

    /// All that can be known of it, as its owner sees it, but for how long its call has taken to connect: that comes by
    /// itself.
    async fn state(&self, owner: &Client) -> [Value; 2] {
        let get = async |path: String| owner.get(&path).await.unwrap().json();
        let mut request = get(format!("/api/requests/{}", self.request)).await;
        assert!(request.as_object_mut().unwrap().remove("connect_ms").is_some());
        [get(format!("/api/threads/{}", self.thread)).await, request]
    }
}

/// The body that a route wants.
fn body(method: &str, path: &str) -> Option<Value> {
    let is_message = path.ends_with("/messages") || path.ends_with("/messages/stream");
    match method {
        "POST" if path == "/v1/responses" => Some(json!({ "model": "mock/mock", "input": "hello" })),
        "POST" if path.starts_with("/v1") => {
            Some(json!({ "model": "mock/mock", "messages": [{ "role": "user", "content": "hello" }] }))
        }
        "POST" if path == "/api/render" => Some(json!({ "text": "hello" })),
        "POST" if path == "/api/session" => Some(json!({ "key": "colleague" })),
        "POST" if is_message => Some(message("and then?", "mock")),
        "PATCH" if path.starts_with("/api/threads") => Some(json!({ "pinned": true })),
        "POST" | "PATCH" => Some(json!({})),
        _ => None,
    }
}

/// The status of an answer, and its text; of an event stream what comes first.
async fn ask(client: &Client, method: &'static str, path: &str, body: Option<Value>) -> (u16, String) {
    let request = Request::new(method, path);
    let request = client.complete(body.iter().fold(request, |request, body| request.json(body)));
    let mut connection = client.connect().await.unwrap();
    let head = connection.send(&request).await.unwrap();
    let status = head.status;
    let is_stream = head.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    let text = match is_stream {
        true => connection.next_piece().await.unwrap().unwrap_or_default(),
        false => connection.whole(head).await.unwrap().body,
    };
    (status, String::from_utf8_lossy(&text).into_owned())
}

fn client(gateway: &Gateway, who: Who) -> Client {
    let key = match who {
        Nobody => return gateway.client.clone(),
        UnknownKey => "unknown",
        Owner => "owner",
        Colleague => "colleague",
        OwnAdmin => "own-admin",
        Stranger => "stranger",
        ForeignAdmin => "foreign-admin",
        OperatorOfAll => "ops",
    };
    with_key(gateway, key)
}

#[actix_web::test]
async fn everybody_may_do_what_is_theirs_and_nothing_else() {
    let keys = keys(&[
        ("owner", "acme", "user"),
        ("colleague", "acme", "user"),
        ("own-admin", "acme", "admin"),
        ("stranger", "rival", "user"),
        ("foreign-admin", "rival", "admin"),
        ("ops", "*", "admin"),
    ]);
    let gateway = Gateway::with_tables(&keys).await;
    let owner = client(&gateway, Owner);
    for (method, template, is_for, answer, good) in ROUTES {
        let thing = Thing::new(&owner, answer).await;
        let before = thing.state(&owner).await;
        let path = thing.path(template);
        for (who, status) in EVERYBODY.into_iter().filter_map(|who| Some((who, is_for.refuses(who)?))) {
            let (found, text) = ask(&client(&gateway, who), method, &path, body(method, template)).await;
            assert_eq!(found, status, "{who:?}: {method} {template}: {text}");
            check_silence(&thing, &path, &text);
        }
        assert_eq!(thing.state(&owner).await, before, "{method} {template}: who is refused changes nothing");
        for who in EVERYBODY.into_iter().filter(|who| is_for.refuses(*who).is_none()) {
            let thing = Thing::new(&owner, answer).await;
            let path = thing.path(template);
            let (found, text) = ask(&client(&gateway, who), method, &path, body(method, template)).await;
            assert_eq!(found, good, "{who:?}: {method} {template}: {text}");
            if matches!(who, Nobody | UnknownKey | Stranger | ForeignAdmin) {
                check_silence(&thing, &path, &text);
            }
        }
    }
}

/// An answer to a stranger tells nothing that they did not say themselves.
#[track_caller]
fn check_silence(thing: &Thing, path: &str, text: &str) {
    for secret in [SECRET, &thing.thread, &thing.request, &thing.stream, &thing.message] {
        assert!(path.contains(secret) || !text.contains(secret), "{path} tells {secret}: {text}");
    }
}

/// The route table as it is written.
const TABLE: &str = include_str!("../../src/http/mod.rs");

/// Methods and paths of the route table.
pub(crate) fn routes() -> BTreeSet<(String, String)> {
    let mut table = BTreeSet::new();
    let (routes, _) = TABLE.split_once("async fn no_such_path").unwrap();
    for route in routes.split("at(\"").skip(1) {
        let (path, methods) = route.split_once('"').unwrap();
        // `HEAD` follows from `GET`.
        let words =
            [("document", "GET"), ("stream", "GET"), ("post", "POST"), ("patch", "PATCH"), ("delete", "DELETE")];
        for (word, method) in words {
            if methods.contains(&format!(".{word}(")) {
                table.insert((method.to_owned(), path.to_owned()));
            }
        }
    }
    table
}

#[test]
fn every_route_is_listed() {
    let table = routes();
    let listed: BTreeSet<_> =
        ROUTES.iter().map(|(method, path, ..)| ((*method).to_owned(), (*path).to_owned())).collect();
    let differences: Vec<_> = listed.symmetric_difference(&table).collect();
    assert!(differences.is_empty(), "each route needs a line that says whom it is for: {differences:?}");
    // What is added in another way would be overlooked.
    let services = TABLE.matches("service(").count() - TABLE.matches("default_service(").count();
    assert_eq!(services, TABLE.matches("at(\"").count());
    for other in ["scope(", ".configure(", "resource(\"", "web::route("] {
        assert!(!TABLE.contains(other), "{other}");
    }
}
