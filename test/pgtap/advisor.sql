-- apply_advice(): every way it refuses, and what it leaves alone.
BEGIN;
SELECT plan(30);

CREATE FUNCTION pg_temp.columns_of(relation regclass) RETURNS text LANGUAGE sql AS $$
    SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod), ', ' ORDER BY attnum)
      FROM pg_attribute WHERE attrelid = relation AND attnum > 0 AND NOT attisdropped $$;
SELECT is(pg_temp.columns_of('perfopt.advice'),
    'id bigint, kind text, relation text, ddl text, undo text, instead text, reason text, evidence jsonb, estimated_bytes bigint, '
    'predicted_gain double precision, measured_gain double precision, status text, progress text, progress_percent numeric, '
    'verdict text, dismiss_reason text, requested_by text, error text, first_seen timestamp with time zone, '
    'last_seen timestamp with time zone, applied_at timestamp with time zone, judged_at timestamp with time zone', 'columns of advice');
SELECT is(pg_temp.columns_of('perfopt.plan_samples'),
    'queryid bigint, role text, captured_at timestamp with time zone, parameters text[], bytes integer', 'columns of plan_samples');

CREATE ROLE advisor_owner;
CREATE ROLE advisor_other;
CREATE SCHEMA "advisor Schema" AUTHORIZATION advisor_owner;
SET ROLE advisor_owner;
CREATE TABLE "advisor Schema"."odd.Table" (a int, "b c" int);
CREATE VIEW "advisor Schema".view AS SELECT 1 AS a;
RESET ROLE;

-- add('odd.Table', '(a)', 'open') adds an advice and returns its id
CREATE FUNCTION pg_temp.add(table_name text, columns text, status text) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, index_name, ddl, reason, evidence,
                                      estimated_bytes, status)
    VALUES ('create_index', 'advisor Schema', $1, 'USING btree ' || $2, 'i', 'CREATE INDEX CONCURRENTLY i', 'reason', '{"queries": []}', 8192, $3)
    RETURNING id $$;
CREATE FUNCTION pg_temp.applying(id bigint) RETURNS text LANGUAGE sql AS $$
    SELECT format('SELECT perfopt.apply_advice(%s)', id) $$;
SELECT pg_temp.add('odd.Table', '(a)', 'open') AS open, pg_temp.add('odd.Table', '("b c")', 'failed') AS failed,
    pg_temp.add('odd.Table', '(a,"b c")', 'obsolete') AS obsolete, pg_temp.add('odd.Table', '("b c",a)', 'applied') AS applied,
    pg_temp.add('gone', '(a)', 'open') AS table_gone, pg_temp.add('view', '(a)', 'open') AS view,
    pg_temp.add('odd.Table', '(a,a)', 'applying') AS applying \gset
UPDATE perfopt.advice_item SET error = 'no luck' WHERE id = :failed;
SELECT results_eq(format('SELECT relation, status FROM perfopt.advice WHERE id = %s', :open),
    $$VALUES ('"advisor Schema"."odd.Table"', 'open')$$, 'the relation is quoted as needed');
SELECT throws_ok($$SELECT pg_temp.add('odd.Table', '(a)', 'open')$$, '23505', NULL, 'an index is advised once');
SELECT throws_ok($$SELECT pg_temp.add('odd.Table', '(x)', 'no such')$$, '23514', NULL, 'a status is one of those documented');

-- As the owner
SET ROLE advisor_owner;
SELECT throws_ok('SELECT perfopt.apply_advice(0)', '42704', 'there is no advice 0', 'an unknown id');
SELECT throws_ok('SELECT perfopt.apply_advice(-9223372036854775808)', '42704', 'there is no advice -9223372036854775808',
    'the smallest of all');
SELECT throws_ok('SELECT perfopt.apply_advice()', '42883', NULL, 'no id');
SELECT is(perfopt.apply_advice(NULL), NULL, 'NULL asks for nothing');
SELECT throws_ok(pg_temp.applying(:applied), '55000', format('advice %s is applied already', :applied), 'one that is applied');
SELECT throws_ok(pg_temp.applying(:applying), '55000', format('advice %s is applying already', :applying), 'one being applied');
-- without the table there is no owner to tell by
SELECT throws_ok(pg_temp.applying(id), '42501', format('must be owner of the table that advice %s is about', id), what)
  FROM (VALUES (:table_gone, 'a table that is gone has no owner'), (:view, 'a view is no table')) v (id, what);
SET ROLE advisor_other;
SELECT throws_ok(pg_temp.applying(id), '42501', format('must be owner of the table that advice %s is about', id),
    'somebody else learns nothing more of advice that is ' || what)
  FROM (VALUES (:open, 'open'), (:applied, 'applied'), (:table_gone, 'for nothing')) v (id, what);
RESET ROLE;
SELECT throws_ok(pg_temp.applying(:table_gone), '55000',
    format('the table that advice %s is about is gone', :table_gone), 'a superuser is told that the table is gone');
SELECT is_empty($$SELECT status FROM perfopt.advice WHERE status = 'queued'$$, 'nothing of this has queued anything');

-- What it takes: open, failed, obsolete
SET ROLE advisor_owner;
SELECT is(perfopt.apply_advice(:open), 'queued: CREATE INDEX CONCURRENTLY i; perfopt.advice shows how it goes once this transaction commits',
    'open: queued');
SELECT throws_ok(pg_temp.applying(:open), '55000', format('advice %s is queued already', :open), 'once');
SELECT alike(perfopt.apply_advice(:failed), 'queued: %', 'failed: queued again');
SELECT alike(perfopt.apply_advice(:obsolete), 'queued: %', 'obsolete: queued, as the owner wishes');
RESET ROLE;
SELECT results_eq($$SELECT definition, requested_by, requested_at, error FROM perfopt.advice_item WHERE status = 'queued' ORDER BY id$$,
    $$VALUES ('USING btree (a)', 'advisor_owner', now(), NULL), ('USING btree ("b c")', 'advisor_owner', now(), NULL),
             ('USING btree (a,"b c")', 'advisor_owner', now(), NULL)$$, 'who asked, and when; the old error is gone');
SELECT results_eq('SELECT parameters IS NOT NULL, bytes BETWEEN 1 AND 8192, captured_at <= clock_timestamp() FROM perfopt.plan_samples GROUP BY 1, 2, 3',
    $$SELECT true, true, true WHERE EXISTS (SELECT FROM perfopt.plan_samples)$$, 'plan samples are plausible');

-- What needs an extension that is not there; what is dismissed without a reason
UPDATE perfopt.advice_item SET status = 'open', evidence = '{"requires_extension": "no_such"}' WHERE id = :open;
SELECT throws_ok(pg_temp.applying(:open), '55000', format('advice %s needs the extension no_such, which is not installed', :open),
    'not without its extension');
SELECT lives_ok(format('SELECT perfopt.dismiss_advice(%s)', :open), 'dismissed without a reason');
SELECT results_eq(format('SELECT status, dismiss_reason FROM perfopt.advice WHERE id = %s', :open), $$VALUES ('dismissed', NULL)$$, '... and so it is');
UPDATE perfopt.advice_item SET evidence = '{}' WHERE id = :open;

-- A trap in the search path is not stepped into.
CREATE SCHEMA advisor_trap AUTHORIZATION advisor_other;
CREATE FUNCTION advisor_trap.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT '-infinity'::timestamptz$$;
UPDATE perfopt.advice_item SET status = 'open' WHERE id = :open;
GRANT USAGE ON SCHEMA advisor_trap TO PUBLIC;
SET search_path = advisor_trap, pg_catalog, public;
SET ROLE advisor_owner;
SELECT alike(perfopt.apply_advice(:open), 'queued: %', 'with another search_path');
SELECT is(current_setting('search_path'), 'advisor_trap, pg_catalog, public', 'which is as it was afterwards');
RESET ROLE;
SELECT ok(requested_at = pg_catalog.now(), '... and none of its functions was called') FROM perfopt.advice_item WHERE id = :open;

SELECT * FROM finish();
ROLLBACK;
