-- +goose Up
CREATE TABLE dispatch_order (
    id       TEXT    PRIMARY KEY,
    tenant   TEXT    NOT NULL,
    agent    TEXT    NOT NULL,
    plan     TEXT    NOT NULL,
    epoch    INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    envelope BLOB    NOT NULL, -- DSSE, verbatim
    state    TEXT    NOT NULL, -- waiting, fetched, ended, refused, superseded
    expires  TEXT    NOT NULL,
    summary  BLOB    NOT NULL, -- auditv1.OrderEvent, of the end
    refusal  BLOB    NOT NULL DEFAULT x'', -- auditv1.Refusal, why the agent refused it
    UNIQUE (tenant, agent, epoch, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX dispatch_order_plan ON dispatch_order (plan);
CREATE INDEX dispatch_order_agent ON dispatch_order (tenant, agent, state);

-- The record that came for each change, and where it stands in the log.
CREATE TABLE change_receipt (
    plan    TEXT    NOT NULL,
    change  TEXT    NOT NULL,
    tenant  TEXT    NOT NULL,
    entry   INTEGER NOT NULL,
    receipt BLOB    NOT NULL, -- auditv1.Receipt
    PRIMARY KEY (plan, change)
) STRICT, WITHOUT ROWID;
