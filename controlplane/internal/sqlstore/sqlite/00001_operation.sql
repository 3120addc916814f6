-- +goose Up
-- Operation ids that were committed: resolves a commit whose answer was lost.
CREATE TABLE operation (
    id TEXT PRIMARY KEY
) STRICT, WITHOUT ROWID;
