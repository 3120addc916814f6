-- +goose Up
CREATE TABLE log_head (
    tenant     TEXT PRIMARY KEY,
    size       INTEGER NOT NULL,
    -- Newest signed checkpoint: what it covers, and the note.
    sealed     INTEGER NOT NULL DEFAULT 0,
    checkpoint TEXT NOT NULL DEFAULT '',
    sealed_at  INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- Tiles of C2SP tlog-tiles: 256 hashes of 32 bytes, the last one of a level
-- growing.
CREATE TABLE log_tile (
    tenant TEXT NOT NULL,
    level  INTEGER NOT NULL,
    n      INTEGER NOT NULL,
    hashes BLOB NOT NULL,
    PRIMARY KEY (tenant, level, n)
) STRICT;

-- Entries as they were appended together: each with its length before it.
CREATE TABLE log_part (
    tenant  TEXT NOT NULL,
    first   INTEGER NOT NULL,
    count   INTEGER NOT NULL,
    entries BLOB NOT NULL,
    PRIMARY KEY (tenant, first)
) STRICT;

-- What can be erased of the control plane's own records.
CREATE TABLE log_body (
    tenant TEXT NOT NULL,
    entry  INTEGER NOT NULL,
    salt   BLOB,
    body   BLOB,
    PRIMARY KEY (tenant, entry)
) STRICT;

-- Agents' signed batches, verbatim but for what was erased in them.
CREATE TABLE log_batch (
    tenant TEXT NOT NULL,
    first  INTEGER NOT NULL,
    count  INTEGER NOT NULL,
    agent  TEXT NOT NULL,
    epoch  INTEGER NOT NULL,
    chain  INTEGER NOT NULL,
    batch  BLOB NOT NULL,
    PRIMARY KEY (tenant, first)
) STRICT;

CREATE UNIQUE INDEX log_batch_chain ON log_batch (tenant, agent, epoch, chain);

-- Per witness the newest checkpoint it cosigned, or why it refused.
CREATE TABLE log_cosignature (
    tenant  TEXT NOT NULL,
    witness TEXT NOT NULL,
    size    INTEGER NOT NULL,
    line    TEXT NOT NULL,
    refused TEXT NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (tenant, witness)
) STRICT, WITHOUT ROWID;
