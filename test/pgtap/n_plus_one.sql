-- The call that perfopt.n_plus_one gives to use instead, with hostile names.
\set QUIET on
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
SELECT plan(23);
SET client_min_messages = warning;
SET perfopt.n_plus_one_max_gap = '1min';
SELECT perfopt.reset_n_plus_one();
CREATE SCHEMA "odd Schema";
CREATE TABLE "odd Schema"."odd'Table" ("the Id" bigint PRIMARY KEY, "e""mail" text UNIQUE, n int);
CREATE TABLE "odd Schema"."Child" (id bigint PRIMARY KEY, "parent Id" bigint REFERENCES "odd Schema"."odd'Table",
    other bigint, "a $1" int, at timestamptz);
CREATE TABLE "odd Schema".pair (a int, b text, v int, PRIMARY KEY (a, b));
INSERT INTO "odd Schema"."odd'Table" SELECT i, 'e' || i FROM generate_series(1, 100) i;
INSERT INTO "odd Schema"."Child" SELECT i, 1 + i % 100, i % 10 FROM generate_series(1, 1000) i;
INSERT INTO "odd Schema".pair SELECT i, 'b' || i FROM generate_series(1, 100) i;
CREATE INDEX ON "odd Schema"."Child" ("parent Id");
CREATE INDEX ON "odd Schema"."Child" (other);
ANALYZE "odd Schema"."odd'Table", "odd Schema"."Child", "odd Schema".pair;

-- :instead is what is shown of the loop seen last; prepared, it runs as it is.
\set source 'SELECT "the Id" FROM "odd Schema"."odd''Table" LIMIT 12'
\set instead 'SELECT instead FROM perfopt.n_plus_one WHERE kind = :''kind'' ORDER BY last_seen DESC LIMIT 1'
\set kind n_plus_one

\o /dev/null
:source;
SELECT format('SELECT * FROM "odd Schema"."odd''Table" WHERE "the Id" = %s', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), $$SELECT * FROM perfopt.fetch_many(NULL::"odd Schema"."odd'Table", $1::bigint[])$$, 'a primary key');
SELECT 'PREPARE i1 AS ' || (:instead) \gexec
SELECT results_eq($$EXECUTE i1('{2,1000,1}')$$, $$VALUES (2::bigint, 'e2', NULL::int), (NULL, NULL, NULL), (1, 'e1', NULL)$$, '... runs: rows in order of the keys');

\o /dev/null
:source;
SELECT format('SELECT n FROM "odd Schema"."odd''Table" WHERE "e""mail" = ''e%s''', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), $$SELECT * FROM perfopt.fetch_many(NULL::"odd Schema"."odd'Table", $1::text[], key => E'{"e\\"mail"}')$$, 'another unique key');
SELECT 'PREPARE i2 AS ' || (:instead) \gexec
SELECT results_eq($$EXECUTE i2('{e2}')$$, $$VALUES (2::bigint, 'e2', NULL::int)$$, '... runs: a row');

\o /dev/null
:source;
SELECT format('SELECT count(*), max("a $1") AS "the Max" FROM "odd Schema"."Child" WHERE "parent Id" = %s', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), $$SELECT * FROM perfopt.lookup_aggregates('"odd Schema"."odd''Table"', $1::bigint[], '"odd Schema"."Child"', E'{count(*),"max(\\"a $1\\")"}') AS t("parent Id" bigint, count bigint, "the Max" integer)$$, 'aggregates of children');
SELECT 'PREPARE i3 AS ' || (:instead) \gexec
SELECT results_eq($$EXECUTE i3('{1,2}')$$, $$VALUES (1::bigint, 10::bigint, NULL::int), (2, 10, NULL)$$, '... runs: aggregates');

\o /dev/null
:source;
SELECT format('SELECT count(*) FROM "odd Schema"."Child" WHERE other = %s', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), $$SELECT other, count(*) FROM "odd Schema"."Child" WHERE other = ANY ($1::bigint[]) GROUP BY other$$, 'aggregates without a foreign key');
SELECT 'PREPARE i4 AS ' || (:instead) \gexec
SELECT results_eq($$EXECUTE i4('{3}')$$, $$VALUES (3::bigint, 100::bigint)$$, '... runs: aggregates of any column');

\o /dev/null
:source;
SELECT format('SELECT id, "a $1" FROM "odd Schema"."Child" WHERE "parent Id" = %s', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), $$SELECT * FROM perfopt.lookup_children('"odd Schema"."odd''Table"', $1::bigint[], '"odd Schema"."Child"', '{id,"a $1"}') AS t("parent_parent Id" bigint, id bigint, "a $1" integer)$$, 'children');
SELECT 'PREPARE i5 AS ' || (:instead) \gexec
SELECT results_eq($$EXECUTE i5('{1}')$$, $$VALUES (1::bigint, 100::bigint, NULL::int), (1,200,NULL), (1,300,NULL), (1,400,NULL), (1,500,NULL), (1,600,NULL), (1,700,NULL), (1,800,NULL), (1,900,NULL), (1,1000,NULL)$$, '... runs: children');

\o /dev/null
:source;
SELECT format('SELECT id FROM "odd Schema"."Child" WHERE "parent Id" = %s ORDER BY at DESC LIMIT 3', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), $$SELECT * FROM perfopt.lookup_children('"odd Schema"."odd''Table"', $1::bigint[], '"odd Schema"."Child"', '{id}', order_by => 'at DESC', limit_per_parent => 3) AS t("parent_parent Id" bigint, id bigint)$$, 'the newest children');
SELECT 'PREPARE i6 AS ' || (:instead) \gexec
SELECT results_eq($$EXECUTE i6('{1}')$$, $$SELECT 1::bigint, id FROM "odd Schema"."Child" WHERE "parent Id" = 1 ORDER BY at DESC, id LIMIT 3$$, '... runs: three children');

\o /dev/null
:source;
SELECT format('SELECT v FROM "odd Schema".pair WHERE a = %s AND b = ''b%s''', i, i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), $$SELECT * FROM "odd Schema".pair WHERE (a, b) IN (SELECT * FROM unnest($1::integer[], $2::text[]))$$, 'a key of two columns');
SELECT 'PREPARE i7 AS ' || (:instead) \gexec
SELECT results_eq($$EXECUTE i7('{1,2}', '{b1,b3}')$$, $$VALUES (1, 'b1', NULL::int)$$, '... runs: a row of a pair');

\o /dev/null
:source;
SELECT format('SELECT c.id FROM "odd Schema"."Child" c JOIN "odd Schema".pair p ON p.a = c.other WHERE c."parent Id" = %s', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), '-- one statement for all rows: a join with the source, or a condition "= ANY ($1)" with an array of keys', 'a join');

\o /dev/null
:source;
SELECT format('DELETE FROM "odd Schema".pair WHERE a = %s', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), 'DELETE FROM "odd Schema".pair WHERE a = ANY ($1::integer[])', 'deletes');
SELECT 'PREPARE d AS ' || (:instead) \gexec
SELECT lives_ok($$EXECUTE d('{1,2}')$$, '... runs');

PREPARE by_parent (bigint, int) AS SELECT id FROM "odd Schema"."Child" WHERE "parent Id" = $1 AND other = 1 AND "a $1" > $2;
\o /dev/null
:source;
SELECT format('EXECUTE by_parent(%s, 1)', i) FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), 'SELECT * FROM "odd Schema"."Child" WHERE "parent Id" = ANY ($1::bigint[]) AND ... -- and its other conditions', 'further conditions');

VACUUM "odd Schema"."Child";
SET enable_seqscan = off;
SET enable_bitmapscan = off;
\o /dev/null
:source;
SELECT format('SELECT count(other), (SELECT n FROM "odd Schema"."odd''Table" LIMIT 1) FROM "odd Schema"."Child" WHERE other = %s', i) FROM generate_series(1, 12) i \gexec
\o
RESET enable_seqscan;
RESET enable_bitmapscan;
SELECT alike((:instead), '-- one statement for all rows%', 'an aggregate beside a subquery, by an index only');

\set kind cacheable_query
\o /dev/null
SELECT 'SELECT "the Id" AS "it''s" FROM "odd Schema"."odd''Table" WHERE "the Id" < 4' FROM generate_series(1, 12) i \gexec
\o
SELECT is((:instead), $$SELECT * FROM perfopt.cached('SELECT "the Id" AS "it''s" FROM "odd Schema"."odd''Table" WHERE "the Id" < $1', ROW($1)) AS t("it's" bigint)$$, 'a cached query');
SELECT 'PREPARE cached_call (int) AS ' || (:instead) \gexec
SELECT results_eq('EXECUTE cached_call(4)', $$VALUES (1::bigint), (2), (3)$$, '... which runs as it is');

\set kind batchable_inserts
\o /dev/null
SELECT format('INSERT INTO "odd Schema"."Child" (id, "a $1") VALUES (%s, 5)', i) FROM generate_series(5001, 5012) i \gexec
\o
SELECT is((:instead), $$SELECT * FROM perfopt.batch_insert('"odd Schema"."Child"', '{id,"a $1"}', $1::bigint[], $2::integer[])$$, 'inserts');
SELECT 'PREPARE batched AS ' || replace((:instead), 'SELECT *', 'SELECT inserted') \gexec
SELECT results_eq($$EXECUTE batched('{6001, 6002}', '{1, 2}')$$, 'VALUES (2::bigint)', '... which runs as it is');

SELECT * FROM finish();
DROP SCHEMA "odd Schema" CASCADE;
