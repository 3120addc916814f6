-- +goose Up
CREATE TABLE ledger (
    tenant    TEXT NOT NULL,
    connector TEXT NOT NULL,
    anchor    TEXT NOT NULL,
    item      TEXT NOT NULL,
    attribute TEXT NOT NULL,
    -- Canonical form of one value: octets, not always text.
    value     BLOB NOT NULL,
    member    TEXT NOT NULL,
    cause     INTEGER NOT NULL,
    -- When the write happened by the agent's clock: a snapshot from before says
    -- nothing about it.
    written   INTEGER NOT NULL,
    identity  TEXT NOT NULL,
    entry     BLOB NOT NULL,
    PRIMARY KEY (tenant, connector, anchor, item, attribute, value, member, cause)
) STRICT;

CREATE INDEX ledger_member ON ledger (tenant, connector, member) WHERE member <> '';
CREATE INDEX ledger_identity ON ledger (tenant, identity) WHERE identity <> '';
