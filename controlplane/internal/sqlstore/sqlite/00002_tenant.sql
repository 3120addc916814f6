-- +goose Up
CREATE TABLE tenant (
    id      TEXT PRIMARY KEY,
    name    TEXT NOT NULL,
    owner   TEXT NOT NULL,
    zone    TEXT NOT NULL,
    state   TEXT NOT NULL CHECK (state IN ('active', 'offboarding', 'offboarded')),
    msp     INTEGER NOT NULL CHECK (msp IN (0, 1)),
    created INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- There is one MSP.
CREATE UNIQUE INDEX tenant_msp ON tenant (msp) WHERE msp = 1;
