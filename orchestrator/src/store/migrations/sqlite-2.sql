ALTER TABLE known_models ADD COLUMN last_offered_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE known_models ADD COLUMN offered_by BLOB CHECK (length(offered_by) = 32);
UPDATE known_models SET last_offered_ms = unixepoch() * 1000;
