//! Table: every operation of the route table, with what it reads, takes, answers and fails with.

use serde_json::{Value, json};

use super::failures::{ANSWER, REQUEST, THREAD, TURN, V1};
use super::operation::{For, Group, Operation};
use super::schemas::{Schemas, about, array, whole};
use super::{bodies, events, v1};
use crate::config::Config;
use crate::failure::Code;
use crate::http::server::Surface::{self, Chat, Everything, Operations};
use crate::http::{admin, cancel, health, messages, openai, reload, rendering, requests, session, threads};
use crate::metrics::Performance;
use crate::store::Thread;

const ALL: &[Surface] = &[Everything, Chat, Operations];
const OF_CLIENTS: &[Surface] = &[Everything, Chat];
const OF_OPERATORS: &[Surface] = &[Everything, Operations];

/// What the header of a message says.
const OF_MESSAGES: &[&str] = &["X-Request-Id", "X-Priority", "X-Coalesce"];
/// Where a stream goes on.
const RESUME: &[&str] = &["Last-Event-ID", "last_event_id"];

/// Every operation of every server.
pub(super) fn operations(config: &Config, schemas: &mut Schemas) -> Vec<Operation> {
    let mut all = everywhere(schemas);
    all.extend(of_threads(config, schemas));
    all.extend(of_answers(config, schemas));
    all.extend(of_v1(config, schemas));
    all.extend(of_operators(config, schemas));
    all
}

fn everywhere(schemas: &mut Schemas) -> Vec<Operation> {
    let public = Group { surfaces: ALL, tag: "server", is_for: For::Anybody };
    let signing = Group { tag: "session", ..public };
    let who = schemas.of::<session::Identity<'_>>();
    let asset = json!({ "type": "string" });
    vec![
        public.get("/health", "health", "Whether the process serves.").answers(
            200,
            "It does.",
            schemas.of::<health::Healthy>(),
        ),
        public
            .get("/ready", "ready", "Whether the process wants work.")
            .answers(200, "It does.", schemas.of::<health::Ready>())
            .fails(&[Code::Draining, Code::Storage]),
        public.get("/api/openapi.json", "describe", "This description.").answers(
            200,
            "OpenAPI 3.1",
            json!({ "type": "object", "required": ["openapi", "info", "paths", "components"] }),
        ),
        public
            .get("/assets/{file}", "read_asset", "A file that the pages load.")
            .answers_as(200, "The file.", "text/javascript", asset.clone())
            .answers_as(200, "The file.", "text/css", asset.clone())
            .answers_as(200, "The file.", "image/svg+xml", asset)
            .sends(200, &["Content-Security-Policy"])
            .fails(&[Code::NotFound]),
        Group { is_for: For::Clients, ..signing }.get("/api/session", "read_session", "Who asks.").answers(
            200,
            "By key or by cookie.",
            who.clone(),
        ),
        signing
            .post("/api/session", "sign_in", "Signs a browser in by a key.")
            .takes(true, &bodies::key())
            .answers(200, "The cookie stands for the key.", who)
            .sends(200, &["Set-Cookie"])
            .fails(&[Code::Unauthorized]),
        signing
            .delete("/api/session", "sign_out", "Signs a browser out.")
            .answers_nothing(204, "The session has ended, the cookie is taken back.")
            .sends(204, &["Set-Cookie"]),
    ]
}

fn of_threads(config: &Config, schemas: &mut Schemas) -> Vec<Operation> {
    let threads = Group { surfaces: OF_CLIENTS, tag: "threads", is_for: For::Members };
    let limits = &config.limits;
    let page_default = threads::PAGE_DEFAULT.min(limits.page_max);
    let thread = schemas.of::<Thread>();
    vec![
        threads
            .post("/api/threads", "create_thread", "Makes a thread.")
            .takes(false, &bodies::new_thread(limits))
            .answers(201, "The thread.", schemas.of::<threads::NewlyMade>())
            .sends(201, &["Location"])
            .fails(&[Code::Storage]),
        threads
            .get("/api/threads", "list_threads", "The organisation's threads, the latest first.")
            .query("limit", "Threads of a page.", &with_default(page_default, limits.page_max))
            .query("before", "A cursor from `X-Next-Cursor`.", &json!({ "type": "string", "pattern": CURSOR }))
            .answers(200, "A page.", array(&thread))
            .sends(200, &["X-Next-Cursor"])
            .fails(&[Code::Storage]),
        threads
            .get("/api/threads/{thread}", "read_thread", "A thread with its newest messages.")
            .query("limit", "Messages of a page.", &with_default(threads::MESSAGES_MAX, threads::MESSAGES_MAX))
            .query("before", "A cursor from `X-Next-Cursor`.", &json!({ "type": "integer", "format": "int64" }))
            .reads(&["render"])
            .answers(200, "The thread.", schemas.of::<threads::WholeThread>())
            .sends(200, &["X-Next-Cursor"])
            .fails(THREAD),
        threads
            .patch("/api/threads/{thread}", "change_thread", "Renames or pins a thread.")
            .takes(false, &bodies::thread_changes(limits))
            .answers(200, "The thread.", thread)
            .fails(THREAD),
        threads
            .delete("/api/threads/{thread}", "delete_thread", "Deletes a thread; a running answer is cancelled first.")
            .answers_nothing(204, "There is no such thread any more.")
            .fails(THREAD),
        threads
            .get("/api/threads/{thread}/messages/{message}", "read_message", "One message.")
            .reads(&["render"])
            .answers(200, "The message.", schemas.of::<rendering::Shown>())
            .fails(&[Code::NotFound, Code::ThreadNotFound, Code::Storage]),
        threads
            .get("/api/requests/{request}", "read_request", "How a request stands, or stood.")
            .answers(200, "Its state.", schemas.of::<requests::State<'_>>())
            .fails(REQUEST),
        Group { is_for: For::Clients, ..threads }.get("/api/providers", "list_providers", "Who can answer.").answers(
            200,
            "The configured providers.",
            array(&schemas.of::<health::Listed<'_>>()),
        ),
        Group { is_for: For::Anybody, tag: "server", ..threads }
            .get("/", "chat_page", "The chat page.")
            .answers_as(200, "HTML", "text/html", json!({ "type": "string" }))
            .sends(200, &["Content-Security-Policy"]),
    ]
}

fn of_answers(config: &Config, schemas: &mut Schemas) -> Vec<Operation> {
    let threads = Group { surfaces: OF_CLIENTS, tag: "answers", is_for: For::Members };
    let message = schemas.named("NewMessage", bodies::message(&config.limits));
    let regenerate = schemas.named("Regenerate", bodies::regenerate(&config.limits));
    let stream = events::of_threads(schemas);
    let cancelled = schemas.of::<cancel::Cancelled<'_>>();
    vec![
        threads
            .post("/api/threads/{thread}/messages", "send_message", "Sends a message; waits for the whole answer.")
            .reads(OF_MESSAGES)
            .reads(&["Idempotency-Key"])
            .takes(true, &message)
            .answers(200, "The turn, when it has ended.", schemas.of::<messages::Turn<'_>>())
            .sends(200, &["Server-Timing"])
            .fails(&[THREAD, TURN, ANSWER].concat()),
        threads
            .post("/api/threads/{thread}/messages/stream", "stream_message", "Sends a message; streams the answer.")
            .reads(OF_MESSAGES)
            .reads(&["Idempotency-Key"])
            .takes(true, &message)
            .streams("The answer, from its beginning.", stream.clone())
            .sends(200, &["X-Stream-Id", "Server-Timing"])
            .fails(&[THREAD, TURN, ANSWER].concat()),
        threads
            .post("/api/threads/{thread}/regenerate", "regenerate", "Answers the last user message anew.")
            .reads(OF_MESSAGES)
            .reads(&["Idempotency-Key"])
            .takes(false, &regenerate)
            .streams("The new answer.", stream.clone())
            .sends(200, &["X-Stream-Id", "Server-Timing"])
            .fails(&[THREAD, TURN, ANSWER].concat()),
        threads
            .get("/api/threads/{thread}/stream", "stream_thread", "Listens to the running answer of a thread.")
            .reads(RESUME)
            .streams("The answer, from where the client is.", stream.clone())
            .sends(200, &["X-Stream-Id"])
            .answers_nothing(204, "None runs.")
            .fails(THREAD),
        threads
            .get("/api/requests/{request}/stream", "stream_request", "Listens to a request's answer, also afterwards.")
            .reads(RESUME)
            .streams("The answer, from where the client is.", stream)
            .sends(200, &["X-Stream-Id"])
            .answers_nothing(204, "The client has seen its end.")
            .fails(REQUEST),
        threads
            .post("/api/threads/{thread}/stop", "stop_thread", "Withdraws every request of the running answer.")
            .answers(200, "It is stopped.", schemas.of::<cancel::Stopped<'_>>())
            .fails(THREAD),
        threads
            .post("/api/threads/cancel/{request}", "cancel_request", "Withdraws a request, in every phase.")
            .answers(200, "It is withdrawn, or had ended before.", cancelled.clone())
            .answers(404, "There is no such request; if it comes soon it counts as cancelled.", cancelled)
            .fails(&[Code::Storage]),
    ]
}

fn of_v1(config: &Config, schemas: &mut Schemas) -> Vec<Operation> {
    let v1 = Group { surfaces: OF_CLIENTS, tag: "openai", is_for: For::Members };
    let completion = schemas.named("ChatCompletionRequest", v1::completion(&config.limits));
    let response = schemas.named("ResponseRequest", v1::response(&config.limits));
    let whole_response = v1::objects(schemas);
    let also = "In one piece, or with `stream: true` as it comes.";
    vec![
        v1.post("/v1/chat/completions", "create_chat_completion", "OpenAI's chat completions.")
            .reads(OF_MESSAGES)
            .takes(true, &completion)
            .answers(200, also, schemas.of::<openai::completion::Completion<'_>>())
            .answers_as(200, also, "text/event-stream", events::of_completions(schemas))
            .sends(200, &["Server-Timing"])
            .may_send(200, &["X-Stream-Id", "X-Accel-Buffering"], "With a stream.")
            .fails(&[V1, ANSWER].concat()),
        v1.post("/v1/responses", "create_response", "OpenAI's responses, stateless.")
            .reads(OF_MESSAGES)
            .takes(true, &response)
            .answers(200, also, whole_response)
            .answers_as(200, also, "text/event-stream", events::of_responses(schemas))
            .sends(200, &["Server-Timing"])
            .may_send(200, &["X-Stream-Id", "X-Accel-Buffering"], "With a stream.")
            .fails(&[V1, ANSWER].concat()),
        v1.get("/v1/models", "list_models", "The models of all providers that can be called.").answers(
            200,
            "The models.",
            schemas.of::<openai::models::ModelList>(),
        ),
        v1.get("/v1/models/{model}", "read_model", "One model, by any name that a request may use for it.")
            .answers(200, "The model.", schemas.of::<openai::models::Model>())
            .fails(&[Code::ModelNotFound, Code::ProviderUnavailable]),
    ]
}

fn of_operators(config: &Config, schemas: &mut Schemas) -> Vec<Operation> {
    let operators = Group { surfaces: OF_OPERATORS, tag: "operations", is_for: For::Admins };
    let window_max = config.metrics.window_max;
    let last_n_default = admin::LAST_N_DEFAULT.min(window_max);
    let pacer = schemas.of::<admin::PacerRow>();
    let streams = schemas.of::<crate::actors::coalescer::StreamStatus>();
    let page = json!({ "type": "string" });
    vec![
        operators.get("/metrics", "metrics", "Totals for Prometheus; needs a key of all organisations.").answers_as(
            200,
            "The text format 0.0.4.",
            "text/plain",
            json!({ "type": "string" }),
        ),
        operators
            .get("/api/metrics/performance", "performance", "How the last requests went.")
            .query("last_n", "Requests that it covers.", &with_default(last_n_default, window_max))
            .answers(200, "The report.", schemas.of::<Performance>()),
        operators.get("/api/admin/pacers", "list_pacers", "How the pacers stand.").answers(
            200,
            "The pacers.",
            array(&pacer),
        ),
        operators
            .patch("/api/admin/pacers/{provider}", "change_pacer", "Changes a pacer until the next start.")
            .takes(false, &bodies::pace())
            .answers(200, "The pacer.", pacer)
            .fails(&[Code::NotFound]),
        operators.get("/api/admin/streams", "list_streams", "The running answers.").answers(
            200,
            "The streams.",
            array(&streams),
        ),
        operators
            .post("/api/admin/streams/{stream}/stop", "stop_stream", "Ends a running answer for everybody.")
            .answers(200, "It has ended.", schemas.of::<admin::StreamStopped>())
            .fails(&[Code::NotFound]),
        operators
            .get("/api/admin/feed", "feed", "What the dashboard shows, once a second.")
            .streams("Until the client leaves.", events::of_feed(schemas)),
        operators
            .post("/api/admin/profile/{profile}", "switch_profile", "Switches all pacers to a profile.")
            .answers(200, "It is in effect.", schemas.of::<admin::Switched<'_>>())
            .fails(&[Code::NotFound]),
        operators
            .post("/api/admin/reload", "reload", "Reads the configuration again.")
            .answers(200, "What has changed.", schemas.of::<reload::ReloadDone>())
            .fails(&[Code::Unprocessable]),
        Group { is_for: For::Anybody, tag: "server", ..operators }
            .get("/admin", "admin_page", "The dashboard.")
            .answers_as(200, "HTML", "text/html", page)
            .sends(200, &["Content-Security-Policy"]),
    ]
}

/// A place in the list of threads.
const CURSOR: &str = "^[0-9a-f]{1,15}\\.[A-Za-z0-9_-]{1,80}$";

fn with_default(default: usize, max: usize) -> Value {
    let mut schema = whole(1, max as u64);
    schema["default"] = default.into();
    schema
}

/// Parameters that several operations read, by their names among the components.
pub(super) fn parameters() -> Value {
    let parameter = |place: &str, name: &str, description: &str, schema: Value| json!({ "name": name, "in": place, "required": place == "path", "description": description, "schema": schema });
    let any = || json!({ "type": "string" });
    let in_path = |name: &str, description: &str| parameter("path", name, description, any());
    let key = format!("^[!-~]([ -~]{{0,{}}}[!-~])?$", messages::IDEMPOTENCY_KEY_LEN_MAX - 2);
    json!({
        "thread": in_path("thread", "A thread's id."),
        "message": in_path("message", "A message's id."),
        "request": in_path("request", "A request's id."),
        "stream": in_path("stream", "A stream's id."),
        "provider": in_path("provider", "A provider's name in the configuration."),
        "profile": in_path("profile", "A profile's name in the configuration; `production` is what stands without one."),
        "model": in_path("model", "A model's name; slashes in it may stand as they are."),
        "file": in_path("file", "The file's name."),
        "render": parameter("query", "render", "`html`: answers that have ended carry their Markdown as safe HTML.",
            json!({ "const": "html" })),
        "last_event_id": parameter("query", "last_event_id", "As the header `Last-Event-ID`.", any()),
        "Last-Event-ID": parameter("header", "Last-Event-ID", "The last event that the client has seen.", any()),
        "X-Org-Id": parameter("header", "X-Org-Id",
            "The organisation, on a server without keys or with a key of all; else it may only repeat the key's.",
            json!({ "type": "string", "pattern": "^[A-Za-z0-9_.-]{1,64}$" })),
        "X-Request-Id": parameter("header", "X-Request-Id", "The request's id, if the client chooses it.",
            json!({ "type": "string", "pattern": bodies::REQUEST_ID })),
        "X-Priority": parameter("header", "X-Priority", "`background`: nobody waits for the answer.",
            json!({ "type": "string", "enum": ["user", "background"], "default": "user" })),
        "X-Coalesce": parameter("header", "X-Coalesce", "`off`: share no call with equal requests.",
            json!({ "type": "string", "enum": ["on", "off"], "default": "on" })),
        "Idempotency-Key": parameter("header", "Idempotency-Key",
            "The same key with the same body is the same request, also after it has ended.",
            json!({ "type": "string", "pattern": key })),
    })
}

/// The headers of responses.
pub(super) fn headers() -> Value {
    let header = |is_required: bool, description: &str, schema: Value| json!({ "required": is_required, "description": description, "schema": schema });
    let text = || json!({ "type": "string" });
    let count = || json!({ "type": "integer", "minimum": 0 });
    json!({
        "X-Request-Id": header(true, "The name of the request in answers, errors and the log.", text()),
        "X-Content-Type-Options": header(true, "What it is called is what it is.", json!({ "const": "nosniff" })),
        "Cache-Control": header(true, "Answers are not to be kept.", text()),
        "X-Accel-Buffering": header(true, "Asks proxies to hand events on as they come.", json!({ "const": "no" })),
        "X-Stream-Id": header(true, "The stream that is listened to.", text()),
        "X-Next-Cursor": header(false, "The next `before`, when there is more.", text()),
        "Location": header(true, "Where the thread is.", text()),
        "Set-Cookie": header(true, "The cookie of the session.", text()),
        "Content-Security-Policy": header(true, "Nothing but the pages' own files may run.", text()),
        "Server-Timing": header(false, "Where the time went, in milliseconds.", text()),
        "WWW-Authenticate": header(true, "How to ask.", json!({ "const": "Bearer" })),
        "Retry-After": header(false, "When a retry is worth while, in seconds.", count()),
        "retry-after-ms": header(false, "The same in milliseconds.", count()),
        "x-should-retry": header(true, "Whether the same request can succeed later.",
            about("For OpenAI's clients.", json!({ "type": "boolean" }))),
    })
}
