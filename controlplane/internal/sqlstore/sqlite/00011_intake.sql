-- +goose Up
-- How far each agent's chain is durable here.
CREATE TABLE chain (
    tenant TEXT NOT NULL,
    agent  TEXT NOT NULL,
    epoch  INTEGER NOT NULL,
    length INTEGER NOT NULL,
    link   BLOB NOT NULL,
    PRIMARY KEY (tenant, agent, epoch)
) STRICT, WITHOUT ROWID;
