-- Tenant and key are unique since the id is a hash of them, so that one index keeps both. A second one
-- would refuse what the first one settles when two orchestrators record the same key at once.
ALTER TABLE jobs
    ADD COLUMN keyed          BIGINT CHECK (keyed IN (0, 1)),
    ADD COLUMN numerics_class TEXT COLLATE "C",
    ADD COLUMN deadline_ms    BIGINT,
    ADD COLUMN failures       BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN keep_until_ms  BIGINT,
    DROP CONSTRAINT jobs_tenant_retry_token_key,
    DROP CONSTRAINT jobs_state,
    ADD CONSTRAINT jobs_state CHECK (state IN
        ('reserved', 'dispatched', 'streaming', 'done', 'failed', 'refused', 'cancelled'));
-- Whether callers gave their keys was not noted: none of them is forgotten before its time.
UPDATE jobs SET keyed = 1, keep_until_ms = updated_ms + 86400000,
    failures = CASE WHEN state = 'failed' THEN 1 ELSE 0 END;
ALTER TABLE jobs ALTER COLUMN keyed SET NOT NULL, ALTER COLUMN keep_until_ms SET NOT NULL;
DROP INDEX jobs_by_state;
CREATE INDEX jobs_by_end ON jobs (keep_until_ms, state);
-- The id, too: one job of an owner is found by it, and not among all that are open.
CREATE INDEX jobs_open ON jobs (owner, correlation_id) WHERE state IN ('reserved', 'dispatched', 'streaming');
CREATE INDEX reservations_open ON reservations (correlation_id) WHERE closed_ms IS NULL;

CREATE TABLE results (
    correlation_id BYTEA  NOT NULL PRIMARY KEY
        REFERENCES jobs (correlation_id) ON DELETE CASCADE,
    fence          BIGINT NOT NULL,
    bytes          BIGINT NOT NULL,
    keep_until_ms  BIGINT NOT NULL,
    sealed         BYTEA  NOT NULL
);
-- What is sealed looks random: trying to make it shorter is in vain.
ALTER TABLE results ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE INDEX results_by_end ON results (keep_until_ms);

CREATE TABLE dead_letters (
    correlation_id BYTEA  NOT NULL PRIMARY KEY CHECK (length(correlation_id) = 16),
    tenant         TEXT   COLLATE "C" NOT NULL,
    model          TEXT   COLLATE "C" NOT NULL,
    fence          BIGINT NOT NULL,
    code           TEXT   COLLATE "C" NOT NULL,
    reason         TEXT   COLLATE "C" NOT NULL,
    attempts       BYTEA  NOT NULL,
    created_ms     BIGINT NOT NULL,
    keep_until_ms  BIGINT NOT NULL,
    replays        BIGINT NOT NULL DEFAULT 0,
    replayed_ms    BIGINT,
    sealed         BYTEA  NOT NULL
);
ALTER TABLE dead_letters ALTER COLUMN sealed SET STORAGE EXTERNAL;
CREATE INDEX dead_letters_by_time ON dead_letters (created_ms, correlation_id);

CREATE TABLE tenant_keys (
    tenant     TEXT   COLLATE "C" NOT NULL PRIMARY KEY,
    wrapped    BYTEA  NOT NULL,
    created_ms BIGINT NOT NULL
);

CREATE TABLE store_key (
    only_one BIGINT NOT NULL PRIMARY KEY CHECK (only_one = 1),
    key_id   BYTEA  NOT NULL CHECK (length(key_id) = 8)
);

-- In SQLite's kind who lives is not on the disk: one process at a time has the file.
CREATE TABLE orchestrators (
    id             BYTEA  NOT NULL PRIMARY KEY CHECK (length(id) = 32),
    region         TEXT   COLLATE "C" NOT NULL,
    started_ms     BIGINT NOT NULL,
    lease_until_ms BIGINT NOT NULL
);
