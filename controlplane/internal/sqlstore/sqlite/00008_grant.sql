-- +goose Up
-- An entitlement given by an act. Identities of the MSP are named "msp/<login>".
CREATE TABLE access_grant (
    tenant      TEXT NOT NULL,
    id          TEXT NOT NULL,
    identity    TEXT NOT NULL,
    entitlement TEXT NOT NULL,
    cause       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    ticket      TEXT NOT NULL,
    starts      TEXT NOT NULL,
    ends        TEXT NOT NULL, -- empty: until ended
    ended       TEXT NOT NULL DEFAULT '', -- when it was ended by an act
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
