-- Threads, their messages, and the requests that made them.

CREATE TABLE threads (
    id                   TEXT    NOT NULL PRIMARY KEY,
    org_id               TEXT    NOT NULL,
    title                TEXT    NOT NULL,
    description          TEXT,
    user_id              TEXT,
    last_message_preview TEXT,
    last_provider        TEXT,
    last_model           TEXT,
    created_at           INTEGER NOT NULL,
    updated_at           INTEGER NOT NULL,
    pinned               INTEGER NOT NULL DEFAULT 0 CHECK (pinned IN (0, 1))
) STRICT;

CREATE INDEX threads_by_update ON threads (org_id, updated_at, id);

-- A message's text stands in `content`, without images; `parts` holds the whole as JSON when there is more than text.
-- `stream_id` names the stream that may write the message while it is `streaming`; `fence` is 1, and is not asked for:
-- there is one process. What may be long stands last, so that SQLite need not walk through it to get at the rest.
CREATE TABLE messages (
    id            TEXT    NOT NULL PRIMARY KEY,
    thread_id     TEXT    NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    sequence      INTEGER NOT NULL CHECK (sequence >= 0),
    parent_id     TEXT,
    role          TEXT    NOT NULL CHECK (role IN ('system', 'user', 'assistant', 'tool')),
    status        TEXT    NOT NULL CHECK (status IN ('streaming', 'complete', 'cancelled', 'interrupted', 'error')),
    provider      TEXT,
    model         TEXT,
    created_at    INTEGER NOT NULL,
    finish_reason TEXT,
    stream_id     TEXT,
    fence         INTEGER NOT NULL DEFAULT 1,
    usage         TEXT,
    content       TEXT    NOT NULL,
    parts         TEXT,
    reasoning     TEXT,
    citations     TEXT,
    tool_calls    TEXT,
    meta          TEXT,
    opaque        TEXT,
    UNIQUE (thread_id, sequence)
) STRICT;

CREATE INDEX messages_running ON messages (id) WHERE status = 'streaming';

CREATE TABLE requests (
    org_id          TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    idempotency_key TEXT,
    body_digest     BLOB    NOT NULL CHECK (length(body_digest) = 32),
    role            TEXT    NOT NULL CHECK (role IN ('leader', 'follower')),
    thread_id       TEXT    REFERENCES threads (id) ON DELETE CASCADE,
    user_message_id TEXT,
    message_id      TEXT,
    stream_id       TEXT    NOT NULL,
    provider        TEXT    NOT NULL,
    model           TEXT    NOT NULL,
    status          TEXT    NOT NULL CHECK (status IN ('streaming', 'complete', 'cancelled', 'interrupted', 'error')),
    finish_reason   TEXT,
    facts           TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(facts)),
    created_at      INTEGER NOT NULL,
    ended_at        INTEGER,
    PRIMARY KEY (org_id, id)
) STRICT;

CREATE UNIQUE INDEX requests_by_key ON requests (org_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX requests_with_key ON requests (created_at) WHERE idempotency_key IS NOT NULL;
CREATE INDEX requests_without_thread ON requests (created_at) WHERE thread_id IS NULL;
CREATE INDEX requests_of_thread ON requests (thread_id) WHERE thread_id IS NOT NULL;
CREATE INDEX requests_running ON requests (id) WHERE status = 'streaming';

-- One row about the store itself. Opening writes it, and so does every probe.
CREATE TABLE store (
    id        INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    opened_at INTEGER NOT NULL,
    probed_at INTEGER NOT NULL
) STRICT;

INSERT INTO store (id, opened_at, probed_at) VALUES (1, 0, 0);
