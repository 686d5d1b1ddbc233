-- What the oracle reads and writes: a few small tables of each kind, a pool of
-- queries, and the procedure that compares the cache's answer with the
-- server's own, both taken by one statement under one snapshot.

-- ---- the tables

CREATE TABLE account (id integer PRIMARY KEY, owner integer NOT NULL, balance integer NOT NULL,
    note text);
CREATE TABLE counter (id integer PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE setting (id integer PRIMARY KEY, value text, flexible integer);

CREATE TABLE event (id integer, region integer, amount integer, PRIMARY KEY (id, region))
    PARTITION BY LIST (region);
CREATE TABLE event_1 PARTITION OF event FOR VALUES IN (1);
CREATE TABLE event_2 PARTITION OF event FOR VALUES IN (2) PARTITION BY RANGE (id);
CREATE TABLE event_2a PARTITION OF event_2 FOR VALUES FROM (0) TO (10);
CREATE TABLE event_2b PARTITION OF event_2 FOR VALUES FROM (10) TO (1000);
CREATE TABLE event_3 PARTITION OF event FOR VALUES IN (3);

CREATE TABLE vehicle (id integer PRIMARY KEY, wheels integer, owner integer);
CREATE TABLE car (doors integer, PRIMARY KEY (id)) INHERITS (vehicle);

CREATE TABLE customer (id integer PRIMARY KEY, name text);
CREATE TABLE invoice (id integer PRIMARY KEY, customer_id integer REFERENCES customer ON DELETE CASCADE,
    amount integer);
CREATE INDEX ON invoice (customer_id);
CREATE TABLE invoice_line (invoice_id integer REFERENCES invoice ON DELETE CASCADE, line integer,
    price integer, PRIMARY KEY (invoice_id, line));

INSERT INTO account SELECT i, i % 5, 100 * i, 'account ' || i FROM generate_series(1, 40) i;
INSERT INTO counter SELECT i, 0 FROM generate_series(1, 20) i;
INSERT INTO setting SELECT i, 'value ' || i, i FROM generate_series(1, 20) i;
INSERT INTO event SELECT i, 1 + i % 3, i FROM generate_series(1, 20) i;
INSERT INTO vehicle SELECT i, 2, i % 5 FROM generate_series(1, 20) i;
INSERT INTO car SELECT i, 4, i % 5, 3 FROM generate_series(101, 120) i;
INSERT INTO customer SELECT i, 'customer ' || i FROM generate_series(1, 20) i;
INSERT INTO invoice SELECT i, 1 + i % 20, i FROM generate_series(1, 60) i;
INSERT INTO invoice_line SELECT i, line, i + line FROM generate_series(1, 60) i, generate_series(1, 2) line;

CREATE MATERIALIZED VIEW balances AS
    SELECT owner AS id, sum(balance) AS total, count(*) AS accounts FROM account GROUP BY owner;
CREATE UNIQUE INDEX ON balances (id);

CREATE VIEW rich_account AS SELECT id, owner, balance, 0 AS version FROM account WHERE balance > 1000;
CREATE VIEW account_of_customer AS
    SELECT c.id, c.name, a.id AS account, a.balance FROM customer c JOIN account a ON a.owner = c.id;
CREATE FUNCTION version_of_functions() RETURNS integer LANGUAGE sql STABLE AS 'SELECT 0';
CREATE FUNCTION owned_by(owner integer) RETURNS bigint LANGUAGE sql STABLE AS
    'SELECT sum(a.balance) + 0 FROM public.account a WHERE a.owner = $1';
ANALYZE;

SELECT perfopt.cache_track('account', '{id,owner}');
SELECT perfopt.cache_track('counter', '{id}');
SELECT perfopt.cache_track('setting', '{id,value}');
SELECT perfopt.cache_track('event', '{id}');
SELECT perfopt.cache_track('vehicle', '{id}');
SELECT perfopt.cache_track('car', '{id}');
SELECT perfopt.cache_track('customer', '{id}');
SELECT perfopt.cache_track('invoice', '{id,customer_id}');
SELECT perfopt.cache_track('invoice_line');

-- ---- the pool

CREATE SCHEMA oracle;

-- A query may have one parameter, a key, and has an order, so that its rows are
-- the same each time.  A changed function, an attached partition and another
-- parent are not held off by any lock of a statement that is under way
-- (unlocked): what such a statement says meanwhile, with the cache or without,
-- is one or the other.
CREATE TABLE oracle.pool (
    n integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    by_key boolean NOT NULL,
    unlocked boolean NOT NULL DEFAULT false,
    query text NOT NULL,
    columns text);              -- asked of cached() then, not of cached_json()

INSERT INTO oracle.pool (by_key, query) VALUES
    (true, 'SELECT * FROM account WHERE id = $1'),
    (true, 'SELECT balance FROM account WHERE id = $1'),
    (true, 'SELECT id, balance FROM account WHERE id = $1 AND balance > 500'),
    (true, 'SELECT count(*) FROM account WHERE id = $1'),
    (true, 'SELECT id, balance FROM account WHERE owner = $1 % 5 ORDER BY id'),
    (true, 'SELECT sum(balance) FROM account WHERE owner = $1'),
    (true, 'SELECT n FROM counter WHERE id = $1'),
    (true, 'SELECT * FROM counter WHERE id = $1'),
    (true, 'SELECT n + 1 AS next FROM counter WHERE id = $1'),
    (true, 'SELECT n FROM counter WHERE id = $1 AND n % 2 = 0'),
    (true, 'SELECT * FROM setting WHERE id = $1'),
    (true, 'SELECT value FROM setting WHERE id = $1'),
    (true, 'SELECT flexible FROM setting WHERE id = $1'),
    (true, 'SELECT id, value || ''!'' AS loud FROM setting WHERE id = $1'),
    (true, 'SELECT * FROM ONLY vehicle WHERE id = $1'),
    (false, 'SELECT count(*), sum(wheels) FROM ONLY vehicle'),
    (true, 'SELECT * FROM car WHERE id = 100 + $1'),
    (true, 'SELECT name FROM customer WHERE id = $1'),
    (true, 'SELECT count(*) FROM customer WHERE id = $1'),
    (true, 'SELECT * FROM invoice WHERE id = $1'),
    (true, 'SELECT id, amount FROM invoice WHERE customer_id = $1 ORDER BY id'),
    (true, 'SELECT sum(amount) FROM invoice WHERE customer_id = $1'),
    (true, 'SELECT c.name, i.id, i.amount FROM customer c JOIN invoice i ON i.customer_id = c.id WHERE c.id = $1 AND i.customer_id = $1 ORDER BY i.id'),
    (true, 'SELECT a.id, c.n FROM account a JOIN counter c ON c.id = a.id WHERE a.id = $1'),
    (true, 'SELECT a.id, (SELECT n FROM counter c WHERE c.id = $1) AS n FROM account a WHERE a.id = $1'),
    (true, 'SELECT * FROM rich_account WHERE id = $1'),
    (true, 'SELECT version FROM rich_account WHERE id = $1 OR id = 40 ORDER BY id'),
    (true, 'SELECT * FROM balances WHERE id = $1'),
    (true, 'SELECT id FROM account WHERE id IN ($1, $1 + 1) ORDER BY id'),
    (true, 'SELECT coalesce((SELECT balance FROM account WHERE id = $1), -1) AS balance'),
    (true, 'SELECT n FROM counter WHERE id = $1::bigint'),
    (true, 'SELECT n FROM counter WHERE id = $1::numeric'),
    (true, 'SELECT n FROM counter WHERE id = $1::text::smallint'),
    (true, 'SELECT id, n FROM counter WHERE id = ANY (ARRAY[$1, 3]) ORDER BY id'),
    (true, 'SELECT id, n FROM counter WHERE id BETWEEN $1 AND $1 + 1 ORDER BY id'),
    (true, 'SELECT id, n FROM counter WHERE id = $1 OR n = 0 ORDER BY id'),
    (true, 'SELECT id FROM setting WHERE value = ''set '' || $1 OR value = ''refilled'' ORDER BY id'),
    (true, 'SELECT id FROM setting WHERE value = ''copied'' ORDER BY id'),
    (true, 'SELECT a.id, c.n FROM account a LEFT JOIN counter c ON c.id = a.id AND c.n > 3 WHERE a.id = $1'),
    (true, 'SELECT c.id FROM counter c WHERE c.id = $1 AND EXISTS (SELECT FROM invoice i WHERE i.customer_id = c.id)'),
    (true, 'SELECT c.id, l.total FROM customer c, LATERAL (SELECT sum(amount) AS total FROM invoice i WHERE i.customer_id = c.id) l WHERE c.id = $1'),
    (true, 'SELECT 1 AS n, name AS x FROM customer WHERE id = $1 UNION ALL SELECT 2, value FROM setting WHERE id = $1 ORDER BY 1'),
    (true, 'SELECT n FROM counter WHERE id = (SELECT owner FROM account WHERE id = $1)'),
    (false, 'SELECT id, rank() OVER (ORDER BY balance DESC) AS place FROM account ORDER BY id LIMIT 10'),
    (false, 'SELECT count(*), sum(balance) FROM account'),
    (false, 'SELECT owner, sum(balance) FROM account GROUP BY owner ORDER BY owner'),
    (false, 'SELECT id, balance FROM account ORDER BY balance DESC, id LIMIT 5'),
    (false, 'SELECT sum(n) FROM counter'),
    (false, 'SELECT max(n), min(n) FROM counter'),
    (false, 'SELECT * FROM setting ORDER BY id LIMIT 3'),
    (false, 'SELECT c.id, count(i.id) FROM customer c LEFT JOIN invoice i ON i.customer_id = c.id GROUP BY c.id ORDER BY c.id LIMIT 7'),
    (false, 'SELECT i.customer_id, sum(l.price) FROM invoice i JOIN invoice_line l ON l.invoice_id = i.id WHERE i.customer_id = $1 GROUP BY 1 ORDER BY 1'),
    (false, 'SELECT count(*), sum(price) FROM invoice_line'),
    (false, 'SELECT count(*) FROM account_of_customer WHERE balance > 500'),
    (false, 'SELECT sum(total), sum(accounts) FROM balances'),
    (false, 'SELECT max(version), count(*) FROM rich_account'),
    (false, 'WITH top AS (SELECT id FROM account ORDER BY balance DESC, id LIMIT 3) SELECT c.id, c.n FROM counter c WHERE c.id IN (SELECT id FROM top) ORDER BY 1');
INSERT INTO oracle.pool (by_key, unlocked, query) VALUES
    (true, true, 'SELECT * FROM vehicle WHERE id = $1 ORDER BY wheels'),
    (false, true, 'SELECT count(*), sum(wheels) FROM vehicle'),
    (true, true, 'SELECT * FROM event WHERE id = $1 ORDER BY region'),
    (true, true, 'SELECT amount FROM event WHERE id = $1 AND region = 2'),
    (false, true, 'SELECT region, count(*), sum(amount) FROM event GROUP BY region ORDER BY region'),
    (false, true, 'SELECT sum(amount) FROM event WHERE region = 2'),
    (true, true, 'SELECT owned_by($1 % 5) AS owned, version_of_functions() AS version'),
    (true, true, 'SELECT id, balance + version_of_functions() AS balance FROM account WHERE id = $1'),
    (false, true, 'SELECT count(*), version_of_functions() AS version FROM counter WHERE n > version_of_functions()');
INSERT INTO oracle.pool (by_key, query, columns) VALUES
    (true, 'SELECT id, owner, balance, note FROM account WHERE id = $1', 'id integer, owner integer, balance integer, note text'),
    (true, 'SELECT id, n FROM counter WHERE id = $1', 'id integer, n bigint'),
    (true, 'SELECT id, amount FROM invoice WHERE customer_id = $1 ORDER BY id', 'id integer, amount integer'),
    (false, 'SELECT id, n FROM counter ORDER BY n DESC, id LIMIT 10', 'id integer, n bigint');

-- oracle.check_N(key): both answers of query N, by one statement
DO $do$
DECLARE
    entry record;
    params text;
    cached text;
BEGIN
    FOR entry IN SELECT * FROM oracle.pool LOOP
        params := CASE WHEN entry.query LIKE '%$1%' THEN ', ROW(key)' ELSE '' END;
        cached := format('perfopt.cached_json(%L%s)', entry.query, params);
        IF entry.columns IS NOT NULL THEN
            cached := format($$(SELECT coalesce(jsonb_agg(to_jsonb(c)), '[]') FROM perfopt.cached(%L%s) AS c (%s))$$,
                entry.query, params, entry.columns);
        END IF;
        EXECUTE format($create$
            CREATE FUNCTION oracle.check_%s(key integer, OUT cached jsonb, OUT direct jsonb) LANGUAGE plpgsql AS $$
            BEGIN
                SELECT %s, (SELECT coalesce(jsonb_agg(to_jsonb(direct_row)), '[]') FROM (%s) direct_row) INTO cached, direct;
            END$$ $create$, entry.n, cached, entry.query);
    END LOOP;
END$do$;

-- When functions were being replaced and partitions attached
CREATE TABLE oracle.change (n integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, begun timestamptz NOT NULL, ended timestamptz);

-- A mismatch is a WARNING of one line, which Oracle.pm collects; a table would
-- make readers write.  The transaction began not before since.
CREATE FUNCTION oracle.compare(n integer, key integer, since timestamptz) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    answer record;
BEGIN
    EXECUTE format('SELECT * FROM oracle.check_%s($1)', n) USING key INTO answer;
    IF answer.cached IS DISTINCT FROM answer.direct THEN
        RAISE WARNING 'ORACLE MISMATCH: %', jsonb_build_object('query', p.query, 'key', key, 'unlocked', p.unlocked,
            'cached', answer.cached, 'direct', answer.direct, 'isolation', current_setting('transaction_isolation'),
            'snapshot', pg_current_snapshot(), 'xid', pg_current_xact_id_if_assigned(),
            'since', extract(epoch FROM since), 'until', extract(epoch FROM clock_timestamp()))
            FROM oracle.pool p WHERE p.n = compare.n;
    END IF;
END$$;

-- Reads for a while: transactions of so many checks, with naps between them of
-- up to so many seconds.  Four of five queries are by key.
CREATE PROCEDURE oracle.read(duration interval, per_transaction integer, nap double precision)
LANGUAGE plpgsql AS $$
DECLARE
    stop timestamptz := clock_timestamp() + duration;
    since timestamptz;
    by_key integer[] := array(SELECT p.n FROM oracle.pool p WHERE p.by_key);
    others integer[] := array(SELECT p.n FROM oracle.pool p WHERE NOT p.by_key);
    checks bigint := 0;
    errors jsonb := '{}';
    n integer;
BEGIN
    LOOP
        since := clock_timestamp();
        EXIT WHEN since > stop;
        COMMIT;
        FOR i IN 1 .. per_transaction LOOP
            IF random() < 0.8 THEN
                n := by_key[1 + floor(random() * cardinality(by_key))];
            ELSE
                n := others[1 + floor(random() * cardinality(others))];
            END IF;
            IF random() < 0.01 THEN     -- so that some are made amid changes
                DISCARD PLANS;
            END IF;
            BEGIN
                PERFORM oracle.compare(n, 1 + floor(random() * random() * 20)::integer, since);
                checks := checks + 1;
            EXCEPTION WHEN OTHERS THEN
                errors := jsonb_set(errors, ARRAY[SQLSTATE], to_jsonb(coalesce((errors -> SQLSTATE)::integer, 0) + 1));
                IF SQLSTATE NOT IN ('40001', '40P01', '55P03', '55000') THEN
                    RAISE WARNING 'ORACLE ERROR: % % (query %)', SQLSTATE, SQLERRM, n;
                END IF;
            END;
            IF nap > 0 THEN
                PERFORM pg_sleep(random() * nap);
            END IF;
        END LOOP;
    END LOOP;
    RAISE NOTICE 'ORACLE CHECKS: %', checks;
    RAISE NOTICE 'ORACLE FAILURES: %', errors;
END$$;

-- Every query with every key, once nobody writes: what is stale for good
CREATE FUNCTION oracle.sweep() RETURNS void LANGUAGE sql AS $$
    SELECT oracle.compare(n, key, now()) FROM oracle.pool, generate_series(1, 21) key
$$;
