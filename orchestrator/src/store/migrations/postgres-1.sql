CREATE TABLE jobs (
    correlation_id    BYTEA  NOT NULL PRIMARY KEY CHECK (length(correlation_id) = 16),
    tenant            TEXT   COLLATE "C" NOT NULL,
    retry_token       TEXT   COLLATE "C" NOT NULL,
    request_hash      BYTEA  NOT NULL CHECK (length(request_hash) = 32),
    model             TEXT   COLLATE "C" NOT NULL,
    digest            BYTEA  CHECK (length(digest) = 32),
    seed              BIGINT NOT NULL,
    state             TEXT   COLLATE "C" NOT NULL CONSTRAINT jobs_state CHECK (state IN
        ('reserved', 'dispatched', 'streaming', 'done', 'failed', 'cancelled')),
    owner             BYTEA  NOT NULL CHECK (length(owner) = 32),
    lease_until_ms    BIGINT NOT NULL,
    fence             BIGINT NOT NULL CHECK (fence > 0),
    attempts          BIGINT NOT NULL DEFAULT 0,
    worker            BYTEA  CHECK (length(worker) = 32),
    streamed          BIGINT NOT NULL DEFAULT 0,
    prompt_tokens     BIGINT NOT NULL DEFAULT 0,
    completion_tokens BIGINT NOT NULL DEFAULT 0,
    finish            TEXT   COLLATE "C",
    error             TEXT   COLLATE "C",
    created_ms        BIGINT NOT NULL,
    updated_ms        BIGINT NOT NULL,
    UNIQUE (tenant, retry_token)
);
CREATE INDEX jobs_by_state ON jobs (state, updated_ms);

CREATE TABLE reservations (
    correlation_id BYTEA  NOT NULL PRIMARY KEY
        REFERENCES jobs (correlation_id) ON DELETE CASCADE,
    tenant         TEXT   COLLATE "C" NOT NULL,
    fence          BIGINT NOT NULL,
    max_tokens     BIGINT,
    opened_ms      BIGINT NOT NULL,
    closed_ms      BIGINT,
    outcome        TEXT   COLLATE "C"
);

CREATE TABLE known_models (
    name          TEXT   COLLATE "C" NOT NULL,
    version       TEXT   COLLATE "C" NOT NULL,
    digest        BYTEA  NOT NULL CHECK (length(digest) = 32),
    first_seen_ms BIGINT NOT NULL,
    PRIMARY KEY (name, version, digest)
);
