-- +goose Up

-- The digest over the current snapshot's objects (connectorv1.SetDigest), so that a
-- delta is verified by what changed; and the snapshot last read whole.
ALTER TABLE connector ADD COLUMN digests BLOB;
ALTER TABLE connector ADD COLUMN whole TEXT NOT NULL DEFAULT '';
