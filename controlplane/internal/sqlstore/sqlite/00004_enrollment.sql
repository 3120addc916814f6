-- +goose Up
CREATE TABLE agent (
    tenant      TEXT NOT NULL,
    agent       TEXT NOT NULL,
    -- The one name under which its SVID is accepted.
    spiffe_id   TEXT NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('active', 'suspended', 'revoked')),
    epoch       INTEGER NOT NULL,
    -- The renewal counter that is accepted next, and what the last one led to.
    counter     INTEGER NOT NULL,
    csr_digest  BLOB NOT NULL,
    certificates BLOB NOT NULL,
    quarantine  TEXT NOT NULL DEFAULT '',
    version     TEXT NOT NULL DEFAULT '',
    created     INTEGER NOT NULL,
    seen        INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, agent)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX agent_spiffe_id ON agent (spiffe_id);

CREATE TABLE agent_invite (
    tenant     TEXT NOT NULL,
    agent      TEXT NOT NULL,
    token_hash BLOB NOT NULL,
    expires    INTEGER NOT NULL,
    -- Digest of the request that won the token, and what it was answered.
    used       BLOB,
    answer     BLOB,
    PRIMARY KEY (tenant, agent, token_hash)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX agent_invite_hash ON agent_invite (token_hash);

CREATE TABLE agent_key (
    tenant     TEXT NOT NULL,
    agent      TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    purpose    INTEGER NOT NULL,
    public_key BLOB NOT NULL,
    begun      INTEGER NOT NULL,
    -- 0 while the key counts.
    ended      INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant, agent, epoch, purpose)
) STRICT, WITHOUT ROWID;

CREATE INDEX agent_key_public ON agent_key (public_key);
