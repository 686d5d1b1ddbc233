-- run_in_batches(): what is cut how, what is run, what is refused.
SELECT plan(20);
SET client_min_messages = warning;

CREATE TABLE chunks_rows AS SELECT i AS id, 0 AS n, i % 3 AS kind, repeat('x', i % 10) AS note FROM generate_series(1, 5000) i;
ALTER TABLE chunks_rows ADD PRIMARY KEY (id);
CALL perfopt.run_in_batches('chunks_rows', 'UPDATE chunks_rows SET n = n + 1 WHERE id BETWEEN $1 AND $2', batch_size => 1000, job => NULL);
SELECT results_eq('SELECT n, count(*) FROM chunks_rows GROUP BY 1', $$VALUES (1, 5000::bigint)$$, 'a statement: each row once');
SELECT * FROM perfopt.batch_jobs \gx
SELECT * FROM perfopt.batch_chunk;
CALL perfopt.run_in_batches('chunks_rows', set_list => 'n = n + 1, note = id::text', where_clause => 'kind = 1 -- not all', batch_size => 300);
SELECT results_eq('SELECT kind, n, count(*) FROM chunks_rows GROUP BY 1, 2 ORDER BY 1', $$VALUES (0, 1, 1666::bigint), (1, 2, 1667), (2, 1, 1667)$$, 'set_list and where_clause');
SELECT * FROM finish();
