-- A CHECK is changed by making the table anew: https://sqlite.org/lang_altertable.html#otheralter
-- Tenant and key are unique since the id is a hash of them, so that one index keeps both.
CREATE TABLE jobs_of_3 (
    correlation_id    BLOB    NOT NULL PRIMARY KEY CHECK (length(correlation_id) = 16),
    tenant            TEXT    NOT NULL,
    retry_token       TEXT    NOT NULL,
    keyed             INTEGER NOT NULL CHECK (keyed IN (0, 1)),
    request_hash      BLOB    NOT NULL CHECK (length(request_hash) = 32),
    model             TEXT    NOT NULL,
    digest            BLOB             CHECK (length(digest) = 32),
    numerics_class    TEXT,
    seed              INTEGER NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN
        ('reserved', 'dispatched', 'streaming', 'done', 'failed', 'refused', 'cancelled')),
    owner             BLOB    NOT NULL CHECK (length(owner) = 32),
    lease_until_ms    INTEGER NOT NULL,
    deadline_ms       INTEGER,
    fence             INTEGER NOT NULL CHECK (fence > 0),
    attempts          INTEGER NOT NULL DEFAULT 0,
    worker            BLOB             CHECK (length(worker) = 32),
    failures          INTEGER NOT NULL DEFAULT 0,
    streamed          INTEGER NOT NULL DEFAULT 0,
    prompt_tokens     INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    finish            TEXT,
    error             TEXT,
    created_ms        INTEGER NOT NULL,
    updated_ms        INTEGER NOT NULL,
    keep_until_ms     INTEGER NOT NULL
) STRICT;
-- Whether callers gave their keys was not noted: none of them is forgotten before its time.
INSERT INTO jobs_of_3 (correlation_id, tenant, retry_token, keyed, request_hash, model, digest, seed,
        state, owner, lease_until_ms, fence, attempts, worker, failures, streamed, prompt_tokens,
        completion_tokens, finish, error, created_ms, updated_ms, keep_until_ms)
    SELECT correlation_id, tenant, retry_token, 1, request_hash, model, digest, seed,
        state, owner, lease_until_ms, fence, attempts, worker, state = 'failed', streamed,
        prompt_tokens, completion_tokens, finish, error, created_ms, updated_ms,
        updated_ms + 86400000
    FROM jobs;
DROP TABLE jobs;
ALTER TABLE jobs_of_3 RENAME TO jobs;
CREATE INDEX jobs_by_end ON jobs (keep_until_ms, state);
-- The id, too: one job of an owner is found by it, and not among all that are open.
CREATE INDEX jobs_open ON jobs (owner, correlation_id) WHERE state IN ('reserved', 'dispatched', 'streaming');
CREATE INDEX reservations_open ON reservations (correlation_id) WHERE closed_ms IS NULL;

CREATE TABLE results (
    correlation_id BLOB    NOT NULL PRIMARY KEY
        REFERENCES jobs (correlation_id) ON DELETE CASCADE,
    fence          INTEGER NOT NULL,
    bytes          INTEGER NOT NULL,
    keep_until_ms  INTEGER NOT NULL,
    sealed         BLOB    NOT NULL
) STRICT;
CREATE INDEX results_by_end ON results (keep_until_ms);

CREATE TABLE dead_letters (
    correlation_id BLOB    NOT NULL PRIMARY KEY CHECK (length(correlation_id) = 16),
    tenant         TEXT    NOT NULL,
    model          TEXT    NOT NULL,
    fence          INTEGER NOT NULL,
    code           TEXT    NOT NULL,
    reason         TEXT    NOT NULL,
    attempts       BLOB    NOT NULL,
    created_ms     INTEGER NOT NULL,
    keep_until_ms  INTEGER NOT NULL,
    replays        INTEGER NOT NULL DEFAULT 0,
    replayed_ms    INTEGER,
    sealed         BLOB    NOT NULL
) STRICT;
CREATE INDEX dead_letters_by_time ON dead_letters (created_ms, correlation_id);

CREATE TABLE tenant_keys (
    tenant     TEXT    NOT NULL PRIMARY KEY,
    wrapped    BLOB    NOT NULL,
    created_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE store_key (
    only_one INTEGER NOT NULL PRIMARY KEY CHECK (only_one = 1),
    key_id   BLOB    NOT NULL CHECK (length(key_id) = 8)
) STRICT;
