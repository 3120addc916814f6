-- +goose Up
-- What a change came to, apart from its receipt: whoever watches a plan asks for the
-- count of each every few moments.
ALTER TABLE change_receipt ADD COLUMN result INTEGER NOT NULL DEFAULT 0;
CREATE INDEX change_receipt_result ON change_receipt (plan, result);
