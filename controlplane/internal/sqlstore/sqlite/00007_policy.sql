-- +goose Up
CREATE TABLE policy_version (
    name    TEXT NOT NULL,
    version TEXT NOT NULL,
    digest  BLOB NOT NULL,
    files   TEXT NOT NULL, -- JSON: the files as their author wrote them
    applied TEXT NOT NULL,
    PRIMARY KEY (name, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE policy_binding (
    tenant     TEXT PRIMARY KEY,
    name       TEXT NOT NULL,
    version    TEXT NOT NULL,
    parameters TEXT NOT NULL -- JSON object of texts
) STRICT, WITHOUT ROWID;
