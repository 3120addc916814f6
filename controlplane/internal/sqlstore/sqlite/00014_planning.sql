-- +goose Up
-- Plans are looked up by where they stand: those that ended pile up.
CREATE INDEX plan_phase ON plan (phase, tenant);
CREATE INDEX dispatch_order_open ON dispatch_order (state) WHERE state IN ('waiting', 'fetched');
CREATE INDEX change_receipt_change ON change_receipt (tenant, change);

-- 1 after somebody accepted that a source has new anchors, until it was folded in.
ALTER TABLE connector ADD COLUMN rebind INTEGER NOT NULL DEFAULT 0;

-- How many operators must approve a plan, by the tenant's policy.
ALTER TABLE plan ADD COLUMN operators INTEGER NOT NULL DEFAULT 1;

-- What a case would link is an account of this type and purpose.
ALTER TABLE open_case ADD COLUMN type TEXT NOT NULL DEFAULT '';
ALTER TABLE open_case ADD COLUMN purpose TEXT NOT NULL DEFAULT 'normal';

-- The key under which ids of changes are made from their content: without it an
-- id in a record's header could be tried against guessed names.
CREATE TABLE change_key (
    tenant TEXT PRIMARY KEY,
    key    BLOB NOT NULL
) STRICT, WITHOUT ROWID;
