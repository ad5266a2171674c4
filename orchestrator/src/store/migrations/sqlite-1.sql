CREATE TABLE jobs (
    correlation_id    BLOB    NOT NULL PRIMARY KEY CHECK (length(correlation_id) = 16),
    tenant            TEXT    NOT NULL,
    retry_token       TEXT    NOT NULL,
    request_hash      BLOB    NOT NULL CHECK (length(request_hash) = 32),
    model             TEXT    NOT NULL,
    digest            BLOB             CHECK (length(digest) = 32),
    seed              INTEGER NOT NULL,
    state             TEXT    NOT NULL CHECK (state IN
        ('reserved', 'dispatched', 'streaming', 'done', 'failed', 'cancelled')),
    owner             BLOB    NOT NULL CHECK (length(owner) = 32),
    lease_until_ms    INTEGER NOT NULL,
    fence             INTEGER NOT NULL CHECK (fence > 0),
    attempts          INTEGER NOT NULL DEFAULT 0,
    worker            BLOB             CHECK (length(worker) = 32),
    streamed          INTEGER NOT NULL DEFAULT 0,
    prompt_tokens     INTEGER NOT NULL DEFAULT 0,
    completion_tokens INTEGER NOT NULL DEFAULT 0,
    finish            TEXT,
    error             TEXT,
    created_ms        INTEGER NOT NULL,
    updated_ms        INTEGER NOT NULL,
    UNIQUE (tenant, retry_token)
) STRICT;
CREATE INDEX jobs_by_state ON jobs (state, updated_ms);

CREATE TABLE reservations (
    correlation_id BLOB    NOT NULL PRIMARY KEY
        REFERENCES jobs (correlation_id) ON DELETE CASCADE,
    tenant         TEXT    NOT NULL,
    fence          INTEGER NOT NULL,
    max_tokens     INTEGER,
    opened_ms      INTEGER NOT NULL,
    closed_ms      INTEGER,
    outcome        TEXT
) STRICT;

CREATE TABLE known_models (
    name          TEXT    NOT NULL,
    version       TEXT    NOT NULL,
    digest        BLOB    NOT NULL CHECK (length(digest) = 32),
    first_seen_ms INTEGER NOT NULL,
    PRIMARY KEY (name, version, digest)
) STRICT;
