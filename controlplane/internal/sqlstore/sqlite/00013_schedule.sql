-- +goose Up
-- Work that comes round. A row is claimed by moving next_run, so two replicas
-- never run the same round.
CREATE TABLE schedule (
    tenant   TEXT NOT NULL,
    name     TEXT NOT NULL,
    cron     TEXT NOT NULL, -- five fields, in the tenant's zone
    work     TEXT NOT NULL, -- observe, plan
    next_run TEXT NOT NULL,
    last_run TEXT NOT NULL DEFAULT '',
    outcome  TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX schedule_next ON schedule (next_run);
