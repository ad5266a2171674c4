ALTER TABLE known_models ADD COLUMN last_offered_ms BIGINT NOT NULL DEFAULT 0;
ALTER TABLE known_models ADD COLUMN offered_by BYTEA CHECK (length(offered_by) = 32);
UPDATE known_models SET last_offered_ms = 1000 * extract(epoch FROM now())::BIGINT;
