-- +goose Up
CREATE TABLE plan (
    id        TEXT    PRIMARY KEY,
    tenant    TEXT    NOT NULL,
    purpose   INTEGER NOT NULL,
    phase     INTEGER NOT NULL, -- operatorv1.PlanState.Phase
    digest    BLOB    NOT NULL UNIQUE,
    manifest  BLOB    NOT NULL, -- verbatim
    rehearsal BLOB    NOT NULL, -- planv1.Rehearsal
    findings  TEXT    NOT NULL, -- JSON
    changes   INTEGER NOT NULL,
    people    INTEGER NOT NULL,
    privileged INTEGER NOT NULL,
    made_by   TEXT    NOT NULL,
    made      TEXT    NOT NULL,
    -- The act that made it, in the tenant's log.
    entry     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX plan_tenant ON plan (tenant, id);

CREATE TABLE plan_chunk (
    plan   TEXT    NOT NULL,
    ordinal INTEGER NOT NULL,
    agent  TEXT    NOT NULL,
    bytes  BLOB    NOT NULL, -- verbatim
    PRIMARY KEY (plan, ordinal)
) STRICT, WITHOUT ROWID;

-- What an agent's guardrails say of a plan before anybody approves it.
CREATE TABLE plan_dry_run (
    plan       TEXT NOT NULL,
    agent      TEXT NOT NULL,
    guardrails TEXT NOT NULL,
    refusals   BLOB NOT NULL, -- agentv1.ReportProgressRequest
    PRIMARY KEY (plan, agent)
) STRICT, WITHOUT ROWID;

CREATE TABLE plan_approval (
    plan   TEXT    NOT NULL,
    actor  TEXT    NOT NULL,
    approval BLOB  NOT NULL, -- planv1.Approval
    -- The act that approved it, in the tenant's log.
    entry  INTEGER NOT NULL,
    PRIMARY KEY (plan, actor)
) STRICT, WITHOUT ROWID;

-- Whose account each create makes.
CREATE TABLE plan_creation (
    plan      TEXT NOT NULL,
    change    TEXT NOT NULL,
    connector TEXT NOT NULL,
    identity  TEXT NOT NULL,
    purpose   TEXT NOT NULL,
    PRIMARY KEY (plan, change)
) STRICT, WITHOUT ROWID;
