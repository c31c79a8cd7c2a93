-- A turn changes as few pages as it can: each one that a commit changes is written to the log as a whole, and two
-- indexes of what runs and one of the requests of each thread were three of eleven.
--
-- What runs is found by `store.running_from`: requests before it have ended, and so have their answers. A request that
-- opened a turn is found by its answer (`messages.request_number`), any other one of a thread by `requests_by_thread`.
-- Those from before this migration are all found by their thread.
--
-- Words are compared one by one: for a list of more than two, SQLite makes a table in memory with each row that it
-- checks.

CREATE TABLE requests_anew (
    number          INTEGER NOT NULL PRIMARY KEY,
    org_id          TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    idempotency_key TEXT,
    body_digest     BLOB    NOT NULL CHECK (length(body_digest) = 32),
    role            TEXT    NOT NULL CHECK (role = 'leader' OR role = 'follower'),
    thread_id       TEXT,
    found_by_thread INTEGER NOT NULL CHECK (found_by_thread IN (0, 1)),
    user_message_id TEXT,
    message_id      TEXT,
    stream_id       TEXT    NOT NULL,
    provider        TEXT    NOT NULL,
    model           TEXT    NOT NULL,
    status          TEXT    NOT NULL CHECK (status = 'streaming' OR status = 'complete' OR status = 'cancelled' OR
                                            status = 'interrupted' OR status = 'error'),
    finish_reason   TEXT,
    facts           TEXT    NOT NULL DEFAULT '{}' CHECK (json_valid(facts)),
    created_at      INTEGER NOT NULL,
    ended_at        INTEGER,
    UNIQUE (org_id, id)
) STRICT;

INSERT INTO requests_anew
SELECT rowid, org_id, id, idempotency_key, body_digest, role, thread_id, thread_id IS NOT NULL, user_message_id,
       message_id, stream_id, provider, model, status, finish_reason, facts, created_at, ended_at
FROM requests ORDER BY rowid;

DROP TABLE requests;
ALTER TABLE requests_anew RENAME TO requests;

CREATE UNIQUE INDEX requests_by_key ON requests (org_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE INDEX requests_with_key ON requests (created_at) WHERE idempotency_key IS NOT NULL;
CREATE INDEX requests_without_thread ON requests (created_at) WHERE thread_id IS NULL;
CREATE INDEX requests_by_thread ON requests (thread_id) WHERE found_by_thread = 1;

-- As before, without the index of what runs, with the number of the request that opened the turn.
CREATE TABLE messages_anew (
    id             TEXT    NOT NULL PRIMARY KEY,
    thread_id      TEXT    NOT NULL REFERENCES threads (id) ON DELETE CASCADE,
    sequence       INTEGER NOT NULL CHECK (sequence >= 0),
    parent_id      TEXT,
    role           TEXT    NOT NULL CHECK (role = 'system' OR role = 'user' OR role = 'assistant' OR role = 'tool'),
    status         TEXT    NOT NULL CHECK (status = 'streaming' OR status = 'complete' OR status = 'cancelled' OR
                                           status = 'interrupted' OR status = 'error'),
    provider       TEXT,
    model          TEXT,
    created_at     INTEGER NOT NULL,
    finish_reason  TEXT,
    stream_id      TEXT,
    fence          INTEGER NOT NULL DEFAULT 1,
    request_number INTEGER,
    usage          TEXT,
    content        TEXT    NOT NULL,
    parts          TEXT,
    reasoning      TEXT,
    citations      TEXT,
    tool_calls     TEXT,
    meta           TEXT,
    opaque         TEXT,
    UNIQUE (thread_id, sequence)
) STRICT;

INSERT INTO messages_anew
SELECT id, thread_id, sequence, parent_id, role, status, provider, model, created_at, finish_reason, stream_id, fence,
       NULL, usage, content, parts, reasoning, citations, tool_calls, meta, opaque
FROM messages ORDER BY rowid;

DROP TABLE messages;
ALTER TABLE messages_anew RENAME TO messages;

ALTER TABLE store ADD COLUMN running_from INTEGER NOT NULL DEFAULT 0;

-- The numbers of deleted requests at the end are given again: what gets one of them must not be taken for ended.
CREATE TRIGGER requests_deleted AFTER DELETE ON requests
WHEN OLD.number > (SELECT coalesce(max(number), 0) FROM requests)
BEGIN
    UPDATE store SET running_from = min(running_from, (SELECT coalesce(max(number), 0) + 1 FROM requests));
END;
