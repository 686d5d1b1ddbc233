-- Buffered inserts: what callers see, in one session.
BEGIN;
CREATE EXTENSION IF NOT EXISTS pgtap;
SELECT plan(1);
SELECT ok(true);
SELECT finish();
ROLLBACK;
