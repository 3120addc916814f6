-- +goose Up
CREATE TABLE identity (
    tenant        TEXT    NOT NULL,
    id            TEXT    NOT NULL,
    kind          TEXT    NOT NULL,
    label         TEXT    NOT NULL,
    attributes    TEXT    NOT NULL, -- JSON object of string lists
    refs          TEXT    NOT NULL, -- JSON list of references to other identities
    suspended     INTEGER NOT NULL DEFAULT 0,
    starts        TEXT    NOT NULL DEFAULT '', -- RFC 3339 or empty
    ends          TEXT    NOT NULL DEFAULT '',
    -- Complete snapshots in a row without the subject, and since when.
    missing       INTEGER NOT NULL DEFAULT 0,
    missing_since TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

-- The source objects an identity comes from.
CREATE TABLE source_link (
    tenant    TEXT NOT NULL,
    connector TEXT NOT NULL,
    anchor    TEXT NOT NULL,
    identity  TEXT NOT NULL,
    -- The last snapshot that lacked the object, so that folding twice counts once.
    snapshot  TEXT NOT NULL,
    -- What the source last said (JSON), and how long it has said nothing.
    said          TEXT    NOT NULL,
    missing       INTEGER NOT NULL,
    missing_since TEXT    NOT NULL,
    PRIMARY KEY (tenant, connector, anchor)
) STRICT, WITHOUT ROWID;
CREATE INDEX source_link_identity ON source_link (tenant, identity);

-- The target objects an identity owns.
CREATE TABLE account (
    tenant    TEXT    NOT NULL,
    connector TEXT    NOT NULL,
    anchor    TEXT    NOT NULL,
    identity  TEXT    NOT NULL,
    purpose   TEXT    NOT NULL,
    type      TEXT    NOT NULL,
    created   INTEGER NOT NULL, -- 1 when Reeve created it
    PRIMARY KEY (tenant, connector, anchor)
) STRICT, WITHOUT ROWID;
CREATE INDEX account_identity ON account (tenant, identity);

CREATE TABLE open_case (
    tenant     TEXT NOT NULL,
    id         TEXT NOT NULL,
    kind       TEXT NOT NULL,
    connector  TEXT NOT NULL,
    subject    TEXT NOT NULL,
    candidates TEXT NOT NULL, -- JSON list
    sentence   TEXT NOT NULL,
    opened     TEXT NOT NULL,
    decision   TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
