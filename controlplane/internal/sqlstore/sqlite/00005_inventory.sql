-- +goose Up
-- A configured connector as its agent reports it.
CREATE TABLE connector (
    tenant          TEXT    NOT NULL,
    alias           TEXT    NOT NULL,
    agent           TEXT    NOT NULL,
    state           BLOB    NOT NULL, -- agentv1.ConnectorState
    fingerprint     TEXT    NOT NULL, -- SHA-256 of the source's facts, hex
    confirmed       TEXT    NOT NULL DEFAULT '', -- the fingerprint that was confirmed
    suspended       TEXT    NOT NULL DEFAULT '',
    -- The snapshot that readers see; 0 before the first.
    current         INTEGER NOT NULL DEFAULT 0,
    -- The snapshot being received; 0 when none.
    receiving       INTEGER NOT NULL DEFAULT 0,
    receiving_id    TEXT    NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, alias)
) STRICT, WITHOUT ROWID;

CREATE TABLE snapshot (
    tenant    TEXT    NOT NULL,
    connector TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    header    BLOB    NOT NULL, -- planv1.SnapshotHeader
    method    TEXT    NOT NULL,
    problems  BLOB    NOT NULL, -- agentv1.SnapshotEnd without header
    PRIMARY KEY (tenant, connector, seq)
) STRICT, WITHOUT ROWID;

-- One row an object and a span of snapshots. A snapshot being received has a
-- number above current, so its rows are not seen until it has ended.
CREATE TABLE object (
    tenant     TEXT    NOT NULL,
    connector  TEXT    NOT NULL,
    anchor     TEXT    NOT NULL,
    type       TEXT    NOT NULL,
    digest     BLOB    NOT NULL,
    body       BLOB    NOT NULL, -- connectorv1.Object
    valid_from INTEGER NOT NULL,
    valid_to   INTEGER           -- NULL while the object is there
) STRICT;

CREATE UNIQUE INDEX object_live ON object (tenant, connector, anchor) WHERE valid_to IS NULL;
CREATE INDEX object_by_anchor ON object (tenant, connector, anchor);
CREATE INDEX object_closed ON object (tenant, connector, valid_to) WHERE valid_to IS NOT NULL;
