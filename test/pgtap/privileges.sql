-- Who may see and do what: the table of README.md, role by role.
BEGIN;
SELECT plan(55);
\set root `echo "${PERFOPT_ROOT:-.}"`

CREATE ROLE perfopt_plain;
CREATE ROLE perfopt_stats IN ROLE pg_read_all_stats;
CREATE ROLE perfopt_monitor IN ROLE pg_monitor;
CREATE ROLE perfopt_owner;
CREATE ROLE perfopt_heir IN ROLE perfopt_owner;
CREATE ROLE perfopt_heir_by_set NOINHERIT IN ROLE perfopt_owner;
GRANT CREATE ON SCHEMA public TO perfopt_owner;

-- All that is granted.  PUBLIC's part is in the regression test "perfopt".
SELECT results_eq($$
    SELECT d.object COLLATE "C", d.privilege_type COLLATE "C"
      FROM (SELECT c.relname::text AS object, c.relowner AS owner, a.* FROM pg_class c, aclexplode(c.relacl) a
             WHERE c.relnamespace = 'perfopt'::regnamespace
             UNION ALL
            SELECT p.proname || '()', p.proowner, a.* FROM pg_proc p, aclexplode(p.proacl) a
             WHERE p.pronamespace = 'perfopt'::regnamespace
             UNION ALL
            SELECT n.nspname, n.nspowner, a.* FROM pg_namespace n, aclexplode(n.nspacl) a
             WHERE n.nspname = 'perfopt') d
     WHERE d.grantee NOT IN (0, d.owner) AND d.grantee = 'pg_read_all_stats'::regrole ORDER BY 1, 2 $$,
    $$ VALUES ('advice' COLLATE "C", 'SELECT' COLLATE "C"), ('advice_item', 'SELECT'), ('advice_log', 'SELECT'), ('advice_measure', 'SELECT'), ('advice_window', 'SELECT'),
              ('advise_n_plus_one_now()', 'EXECUTE'), ('analyze_now()', 'EXECUTE'),
              ('index_usage', 'SELECT'), ('index_usage_state', 'SELECT'), ('latency_history', 'SELECT'), ('plan_sample_counts()', 'EXECUTE'),
              ('plan_samples', 'SELECT'), ('plan_samples_all()', 'EXECUTE'), ('survey_now()', 'EXECUTE') $$,
    'what pg_read_all_stats is granted');
SELECT is_empty($$
    SELECT d.oid::regclass::text, a.grantee::regrole, a.privilege_type FROM pg_class d, aclexplode(d.relacl) a
     WHERE d.relnamespace = 'perfopt'::regnamespace AND a.grantee NOT IN (0, d.relowner)
       AND (a.grantee <> 'pg_read_all_stats'::regrole OR a.privilege_type <> 'SELECT')
     UNION ALL
    SELECT p.oid::regprocedure::text, a.grantee::regrole, a.privilege_type FROM pg_proc p, aclexplode(p.proacl) a
     WHERE p.pronamespace = 'perfopt'::regnamespace AND a.grantee NOT IN (0, p.proowner)
       AND a.grantee <> 'pg_read_all_stats'::regrole $$,
    'nobody else is granted anything, and nobody may write');

-- Things to see: a table with advice, a job, and a statement of each role
SET ROLE perfopt_owner;
CREATE TABLE public.perfopt_privileges (a int, b int);
SELECT 1 AS privileges_of_owner;
RESET ROLE;
INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, index_name, ddl, reason, evidence,
                                  estimated_bytes, status)
VALUES ('create_index', 'public', 'perfopt_privileges', 'USING btree (a)', 'i', 'CREATE INDEX', 'r', '{}', 1, 'open')
RETURNING id AS advice \gset
SET client_min_messages = warning;
\i :root/test/tools/worker.sql
RESET client_min_messages;
SELECT job_submit('SELECT ''privileges'' AS of_job') AS job \gset
SELECT matches(job_wait(:'job'), '^done', 'there is a job to see');

-- An ordinary role
SET ROLE perfopt_plain;
SELECT 1 AS privileges_of_plain;
SELECT set_eq('SELECT DISTINCT rolname FROM perfopt.query_latency', ARRAY['perfopt_plain'::name], 'ordinary role: own rows only');
SELECT set_eq('SELECT DISTINCT userid::regrole::text FROM perfopt.latency(true)', ARRAY['perfopt_plain'], '... of latency()');
SELECT set_eq($$SELECT query FROM perfopt.query_latency WHERE query LIKE '%privileges\_of%'$$,
    ARRAY['SELECT $1 AS privileges_of_plain'], '... with its text');
SELECT is_empty('SELECT 1 FROM perfopt.query_errors', '... of query_errors');
SELECT is_empty('SELECT 1 FROM perfopt.latency_errors()', '... and latency_errors()');
SELECT lives_ok('SELECT * FROM perfopt.latency_info()', 'how full the table is is no secret');
SELECT cmp_ok((SELECT count(*) FROM perfopt.workers WHERE kind <> 'job'), '>=', 1::bigint, 'workers are seen');
SELECT is_empty('SELECT 1 FROM perfopt.workers WHERE last_error IS NOT NULL OR rolname IS NOT NULL',
    '... without messages and roles');
SELECT is_empty('SELECT 1 FROM perfopt.list_workers() WHERE last_error IS NOT NULL OR role IS NOT NULL',
    '... also of list_workers()');
SELECT results_eq($$SELECT capability, state, rolname IS NULL, job IS NULL, message IS NULL, sqlstate IS NULL FROM perfopt.jobs WHERE capability = 'test'$$,
    $$VALUES ('test', 'done', true, true, true, true)$$, 'jobs are seen without statement, role and message');
SELECT results_eq($$SELECT role IS NULL, job IS NULL, message IS NULL, sqlstate IS NULL FROM perfopt.list_jobs() WHERE capability = 'test'$$,
    $$VALUES (true, true, true, true)$$, '... also of list_jobs()');
SELECT throws_ok(statement, '42501', NULL, 'ordinary role refused: ' || statement)
  FROM unnest(ARRAY[
    'SELECT * FROM perfopt.latency_history', 'SELECT * FROM perfopt.advice', 'SELECT * FROM perfopt.advice_item',
    'SELECT * FROM perfopt.plan_samples', 'SELECT * FROM perfopt.plan_samples_all()',
    'SELECT * FROM perfopt.plan_sample_counts()', 'SELECT perfopt.analyze_now()', 'SELECT perfopt.reset_latency()',
    'SELECT perfopt.sample_now()', 'SELECT perfopt.sample_being_written()', 'SELECT perfopt.start_worker()',
    'UPDATE perfopt.advice_item SET ddl = ''DROP TABLE t''', 'CREATE TABLE perfopt.mine ()']) statement;
SELECT throws_ok(format('SELECT perfopt.apply_advice(%s)', :'advice'), '42501',
    format('must be owner of the table that advice %s is about', :'advice'), 'ordinary role refused: apply_advice()');
RESET ROLE;

-- A member of pg_read_all_stats, and one of pg_monitor
CREATE FUNCTION pg_temp.reader(OUT what text, OUT seen boolean) RETURNS SETOF record LANGUAGE sql AS $$
    SELECT 'query_latency', count(DISTINCT rolname) >= 3 FROM perfopt.query_latency WHERE rolname ~ '^perfopt_' OR rolname = session_user
    UNION ALL SELECT 'texts', count(DISTINCT query) >= 2 FROM perfopt.query_latency WHERE query LIKE '%privileges\_of%'
    UNION ALL SELECT 'jobs', count(job) = 1 AND count(rolname) = 1 FROM perfopt.jobs WHERE capability = 'test'
    UNION ALL SELECT 'latency_history', count(*) >= 0 FROM perfopt.latency_history
    UNION ALL SELECT 'advice', count(*) = 1 FROM perfopt.advice WHERE relation = 'public.perfopt_privileges'
    UNION ALL SELECT 'advice_item', count(*) > 0 FROM perfopt.advice_item
    UNION ALL SELECT 'plan_samples', count(*) >= 0 FROM perfopt.plan_samples
    UNION ALL SELECT 'plan_sample_counts()', slots > 0 FROM perfopt.plan_sample_counts() $$;
CREATE TEMP TABLE refused AS SELECT * FROM unnest(ARRAY[
    'SELECT perfopt.reset_latency()', 'SELECT perfopt.sample_now()', 'SELECT perfopt.sample_being_written()',
    'SELECT perfopt.start_worker()', 'UPDATE perfopt.advice_item SET ddl = ''DROP TABLE t''',
    'DELETE FROM perfopt.latency_history', format('SELECT perfopt.apply_advice(%s)', :'advice')]) statement;
GRANT SELECT ON refused TO PUBLIC;
SET ROLE perfopt_stats;
SELECT is_empty('SELECT what FROM pg_temp.reader() WHERE seen IS NOT TRUE', 'pg_read_all_stats sees all');
SELECT throws_ok(statement, '42501', NULL, 'pg_read_all_stats refused: ' || statement) FROM refused;
SET ROLE perfopt_monitor;
SELECT is_empty('SELECT what FROM pg_temp.reader() WHERE seen IS NOT TRUE', 'so does pg_monitor');
SELECT throws_ok(statement, '42501', NULL, 'pg_monitor refused: ' || statement) FROM refused;

-- The owner of a table; whoever has his privileges, and not who only could take them
SET ROLE perfopt_owner;
SELECT throws_ok('SELECT * FROM perfopt.advice', '42501', NULL, 'the owner of a table does not read the advice');
SELECT throws_ok('SELECT perfopt.analyze_now()', '42501', NULL, '... nor look for more');
SET ROLE perfopt_heir_by_set;
SELECT throws_ok(format('SELECT perfopt.apply_advice(%s)', :'advice'), '42501', NULL, 'who only could become the owner may not apply');
SET ROLE perfopt_heir;
SAVEPOINT heir;
SELECT alike(perfopt.apply_advice(:advice), 'queued: %', 'a member of the owner may');
ROLLBACK TO heir;
SET ROLE perfopt_owner;
SELECT alike(perfopt.apply_advice(:advice), 'queued: %', 'the owner may');
SELECT is(current_user::text, 'perfopt_owner', '... and is himself afterwards');
SELECT throws_ok('SELECT * FROM perfopt.advice_item', '42501', NULL, '... with his own rights');
RESET ROLE;
SELECT results_eq(format('SELECT status, requested_by FROM perfopt.advice_item WHERE id = %s', :'advice'),
    $$VALUES ('queued', 'perfopt_owner')$$, 'he is who asked');

-- Granted by name
GRANT EXECUTE ON FUNCTION perfopt.reset_latency(), perfopt.start_worker(), perfopt.sample_being_written() TO perfopt_plain;
SET ROLE perfopt_plain;
SELECT lives_ok('SELECT perfopt.start_worker()', 'who is granted it may: start_worker()');
SELECT lives_ok('SELECT perfopt.reset_latency()', '... reset_latency()');
SELECT is_empty('SELECT 1 FROM perfopt.sample_being_written()', 'the worker''s own function shows a client nothing');
RESET ROLE;
SELECT job_release(:'job');

SELECT * FROM finish();
ROLLBACK;
