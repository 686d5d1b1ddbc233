# Every way to write a table, or to change what reading it means, drops the
# results read from it; what changes nothing leaves them.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $conf = slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf")
	. "perfopt.sample_interval = 0\nperfopt.advice_interval = 0\nautovacuum = off\n"
	. "perfopt.cache_opaque_functions = 'twice, total, totals'\n";
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', $conf);
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');

sub run_sql { my ($sql, $db) = @_; return $node->safe_psql($db || 'postgres', $sql); }


sub call { my ($query) = @_; return "SELECT perfopt.cached_json(\$query\$$query\$query\$)"; }

# Is it answered from the cache?  If not, it is so the next time.
sub is_hit
{
	my ($query) = @_;
	my @lines = split /\n/, run_sql('SELECT hits FROM perfopt.cache_stats; ' . call($query) . '; SELECT hits FROM perfopt.cache_stats');
	my $direct = run_sql("SELECT coalesce(jsonb_agg(to_jsonb(r)), '[]') FROM ($query) r");
	is($lines[1], $direct, "exact: $query") unless $lines[1] eq $direct;
	return $lines[2] > $lines[0];
}
sub fill { my ($query) = @_; is_hit($query); return; }

# The statement must leave a hit of the query if $kept, or must not.
sub after_statement
{
	my ($kept, $name, $query, $statement) = @_;
	fill($query);
	my $before = is_hit($query);
	ref $statement ? $statement->() : run_sql($statement);
	my $after = is_hit($query);
	ok($before && ($kept ? $after : !$after), ($kept ? 'kept: ' : 'dropped: ') . $name)
		or diag($before ? 'wrong afterwards' : 'no hit to begin with');
	return;
}
sub keeps { return after_statement(1, @_); }
sub drops { return after_statement(0, @_); }

# ---- what a statement writes
run_sql(q{
	CREATE TABLE users (id int PRIMARY KEY, name text);
	CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users ON DELETE CASCADE ON UPDATE CASCADE,
		amount int DEFAULT 0);
	INSERT INTO users SELECT i, 'user' || i FROM generate_series(1, 100) i;
	INSERT INTO orders SELECT i, 1 + i % 100 FROM generate_series(1, 1000) i;
	CREATE TABLE other (x int);
	SELECT perfopt.cache_track('users'), perfopt.cache_track('orders');
});
is(run_sql('SELECT * FROM perfopt.cache_tracked ORDER BY relation::text'), "orders|{id,user_id}|t\nusers|{id}|t",
	'keys of its own and of others are key columns');
my $explained = 'EXPLAIN (ANALYZE, COSTS OFF) UPDATE users SET name = name; ROLLBACK';
unlike(run_sql("BEGIN; $explained"), qr/calls=/, 'the trigger is not queued');
like(run_sql("BEGIN; ALTER TRIGGER perfopt_cache ON users RENAME TO mine; $explained"), qr/Trigger mine: .*calls=100/,
	'unless it is renamed');

my $all = 'SELECT count(*), sum(amount) FROM orders';
drops('INSERT', $all, 'INSERT INTO orders VALUES (1001, 1)');
drops('UPDATE', $all, 'UPDATE orders SET amount = 1 WHERE id = 1001');
drops('DELETE', $all, 'DELETE FROM orders WHERE id = 1001');
drops('MERGE', $all, 'MERGE INTO orders o USING (VALUES (1), (2000)) v(id) ON o.id = v.id
	WHEN MATCHED THEN UPDATE SET amount = amount + 1 WHEN NOT MATCHED THEN INSERT VALUES (v.id, 1)');
drops('COPY', $all, "COPY orders FROM PROGRAM 'echo 2001,1,5' (FORMAT csv)");
drops('ON CONFLICT DO UPDATE', $all, 'INSERT INTO orders VALUES (2001, 1) ON CONFLICT (id) DO UPDATE SET amount = 9');
drops('a WITH that writes', $all, 'WITH w AS (DELETE FROM orders WHERE id = 2001 RETURNING *) SELECT count(*) FROM w');
drops('a referenced row deleted', $all, 'DELETE FROM users WHERE id = 100');
drops('a referenced key updated', $all, 'UPDATE users SET id = 200 WHERE id = 99');
drops('session_replication_role', $all, 'SET session_replication_role = replica; DELETE FROM orders WHERE id = 2000');
drops('a function that writes', $all, 'DO $$ BEGIN UPDATE orders SET amount = 3 WHERE id = 3; END $$');
drops('TRUNCATE', 'SELECT count(*) FROM other', 'TRUNCATE other')
	if run_sql(q{SELECT perfopt.cache_track('other')}) eq '';
keeps('UPDATE of no row', $all, 'UPDATE orders SET amount = 1 WHERE id = -1');
keeps('ON CONFLICT DO NOTHING', $all, 'INSERT INTO orders VALUES (1, 1) ON CONFLICT DO NOTHING');
keeps('another table', $all, 'INSERT INTO other VALUES (1)');
run_sql('VACUUM (ANALYZE) orders');
keeps('VACUUM without news', $all, 'VACUUM orders');
keeps('a temporary table', $all, 'CREATE TEMP TABLE passing (id int)');
keeps('ANALYZE without news', $all, 'ANALYZE orders');
keeps('row locks', $all, 'SELECT * FROM orders FOR UPDATE');
drops('released savepoint', $all, 'BEGIN; SAVEPOINT s; UPDATE orders SET amount = 5 WHERE id = 5; RELEASE s; COMMIT');
run_sql('BEGIN; SAVEPOINT s; UPDATE orders SET amount = 5 WHERE id = 5; ROLLBACK TO s; UPDATE orders SET amount = 6 WHERE id = -6; COMMIT');
drops('after a savepoint rolled back', $all,
	'BEGIN; SAVEPOINT s; UPDATE orders SET amount = 5 WHERE id = 5; ROLLBACK TO s; UPDATE orders SET amount = 6 WHERE id = 6; COMMIT');
drops('CREATE TABLE AS ... does not matter, but what it runs does', $all,
	q{CREATE FUNCTION pay(int) RETURNS int LANGUAGE sql AS 'UPDATE orders SET amount = amount + 1 WHERE id = $1 RETURNING amount';
	CREATE TABLE paid AS SELECT pay(7)});

# ---- by key
my $of = sub { return "SELECT * FROM orders WHERE user_id = $_[0] ORDER BY id" };
keeps('a row of another key', $of->(7), 'UPDATE orders SET amount = 10 WHERE user_id = 8');
drops('a row of the key', $of->(7), 'UPDATE orders SET amount = 11 WHERE user_id = 7');
drops('a row that comes to the key', $of->(7), 'UPDATE orders SET user_id = 7 WHERE id = 8');
drops('a row that leaves the key', $of->(7), 'UPDATE orders SET user_id = 9 WHERE id = 8');
drops('a row of the key inserted', $of->(7), 'INSERT INTO orders VALUES (3000, 7)');
drops('a row of the key deleted', $of->(7), 'DELETE FROM orders WHERE id = 3000');
drops('many keys', $of->(7), 'UPDATE orders SET amount = 12 WHERE user_id > 20');
keeps('few keys', $of->(7), 'UPDATE orders SET amount = 12 WHERE user_id BETWEEN 20 AND 21');
keeps('NULL', $of->(7), 'UPDATE orders SET user_id = NULL WHERE id = 30');
# A session that was cancelled while it looked up the trigger's columns
run_sql(q{CREATE TABLE odd (a uuid, b macaddr, c inet); INSERT INTO odd (c) VALUES ('10.0.0.1');
	SELECT perfopt.cache_track('odd', '{a,c}')});
my $at = q{SELECT count(*) FROM odd WHERE c = inet '10.0.0.1'};
my $writer = $node->background_psql('postgres', on_error_stop => 0);
my $lock = $node->background_psql('postgres');
$writer->query_safe('SELECT 1 FROM odd LIMIT 1');
$lock->query_safe('BEGIN; LOCK TABLE pg_opclass, pg_amproc, pg_amop');
$writer->query(q{SET statement_timeout = '500ms'; INSERT INTO odd (c) VALUES ('10.0.0.9')});
like($writer->{stderr}, qr/canceling statement due to statement timeout/, 'a writer is cancelled');
$writer->{stderr} = '';
$lock->query_safe('COMMIT');
$lock->quit;
drops('... whose next row is of the key', $at, sub { $writer->query_safe(q{SET statement_timeout = 0; INSERT INTO odd (c) VALUES ('10.0.0.1')}) });
$writer->quit;

run_sql('ALTER TRIGGER perfopt_cache ON orders RENAME TO renamed');
keeps('queued: a row of another key', $of->(7), 'UPDATE orders SET amount = 20 WHERE user_id = 8');
drops('queued: a row of the key', $of->(7), 'UPDATE orders SET amount = 20 WHERE user_id = 7');
drops('queued: a row that leaves the key', $of->(7), 'UPDATE orders SET user_id = 9 WHERE id = (SELECT min(id) FROM orders WHERE user_id = 7)');
drops('queued: many keys', $of->(7), 'UPDATE orders SET amount = 21 WHERE user_id > 20');
run_sql('ALTER TRIGGER renamed ON orders RENAME TO perfopt_cache');
keeps('the key commuted and widened', 'SELECT count(*) FROM orders WHERE 7::bigint = user_id',
	'UPDATE orders SET amount = 13 WHERE user_id = 8');
drops('the key commuted and widened', 'SELECT count(*) FROM orders WHERE 7::bigint = user_id',
	'DELETE FROM orders WHERE user_id = 7 AND id > 900');
keeps('one of a list of keys', 'SELECT count(*) FROM orders WHERE user_id IN (5, 6, NULL, 7)', 'UPDATE orders SET amount = 13 WHERE user_id = 8');
drops('one of a list of keys', 'SELECT count(*) FROM orders WHERE user_id IN (5, 6, NULL, 7)', 'UPDATE orders SET amount = 14 WHERE user_id = 6');
drops('not in a list', 'SELECT count(*) FROM orders WHERE user_id <> ALL (ARRAY[5, 6])', 'UPDATE orders SET amount = 13 WHERE user_id = 8');
drops('one scan by key, another one whole',
	'SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM orders WHERE user_id = 7)',
	'UPDATE orders SET amount = 14 WHERE user_id = 8');
keeps('two scans by key',
	'SELECT (SELECT count(*) FROM orders WHERE user_id = 6), (SELECT count(*) FROM orders WHERE user_id = 7)',
	'UPDATE orders SET amount = 14 WHERE user_id = 8');
drops('two scans by key',
	'SELECT (SELECT count(*) FROM orders WHERE user_id = 6), (SELECT count(*) FROM orders WHERE user_id = 7)',
	'UPDATE orders SET amount = 14 WHERE user_id = 6');
drops('a join by key reads the other table too',
	'SELECT u.name, o.* FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 7',
	q{UPDATE users SET name = 'new' WHERE id = 7});
keeps('a join by key',
	'SELECT u.name, o.* FROM users u JOIN orders o ON o.user_id = u.id WHERE u.id = 7',
	q{UPDATE users SET name = 'new' WHERE id = 8});
drops('not an equality', 'SELECT count(*) FROM orders WHERE user_id >= 7', 'UPDATE orders SET amount = 15 WHERE user_id = 8');
drops('no key column', 'SELECT count(*) FROM orders WHERE amount = 77', 'UPDATE orders SET amount = 15 WHERE user_id = 8');
foreach my $plan ('enable_indexscan = off', 'enable_indexonlyscan = off', 'enable_seqscan = off',
	'enable_seqscan = off; ALTER SYSTEM SET enable_bitmapscan = off', 'enable_indexscan = on')
{
	run_sql($_) foreach split /; /, "ALTER SYSTEM SET $plan";
	run_sql('SELECT pg_reload_conf()');
	run_sql('CREATE INDEX ON orders (user_id)') if $plan eq 'enable_indexscan = off';
	foreach my $what ('*', 'user_id')
	{
		my $query = "SELECT $what FROM orders WHERE user_id = 12";
		keeps("$what, another key, with $plan", $query, 'UPDATE orders SET amount = amount + 1 WHERE user_id = 13');
		drops("$what, the key, with $plan", $query, 'UPDATE orders SET amount = amount + 1 WHERE user_id = 12');
		$query = "SELECT $what FROM orders WHERE user_id IN (12, 15)";
		keeps("$what, another than the keys, with $plan", $query, 'UPDATE orders SET amount = amount + 1 WHERE user_id = 13');
		drops("$what, one of the keys, with $plan", $query, 'UPDATE orders SET amount = amount + 1 WHERE user_id = 12');
	}
}
run_sql('ALTER SYSTEM RESET ALL');
run_sql('SELECT pg_reload_conf()');
run_sql(q{CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
	CREATE TABLE named (name text COLLATE nocase, code varchar, char5 char(5), u uuid DEFAULT gen_random_uuid());
	INSERT INTO named VALUES ('ann', 'a', 'a'), ('Bob', 'b', 'b');
	SELECT perfopt.cache_track('named', '{name,code,char5}')});
drops('equal by the collation', q{SELECT * FROM named WHERE name = 'BOB'}, q{UPDATE named SET u = gen_random_uuid() WHERE name = 'bob'});
keeps('unequal by the collation', q{SELECT * FROM named WHERE name = 'BOB'}, q{UPDATE named SET u = gen_random_uuid() WHERE name = 'ann'});
drops('another collation', q{SELECT * FROM named WHERE name = 'BOB' COLLATE "C"}, q{UPDATE named SET name = 'BOB' WHERE name = 'bob'});
drops('varchar', q{SELECT * FROM named WHERE code = 'b'}, q{UPDATE named SET u = gen_random_uuid() WHERE code = 'b'});
keeps('varchar, another', q{SELECT * FROM named WHERE code = 'b'}, q{UPDATE named SET u = gen_random_uuid() WHERE code = 'a'});
drops('char, padded', q{SELECT * FROM named WHERE char5 = 'b  '}, q{UPDATE named SET u = gen_random_uuid() WHERE code = 'b'});
run_sql('ALTER TABLE named RENAME code TO kode');
drops('a key column renamed', q{SELECT * FROM named WHERE char5 = 'b'}, q{UPDATE named SET u = gen_random_uuid() WHERE name = 'ann'});

# ---- partitions and inheritance
run_sql(q{
	CREATE TABLE events (id int, kind int, PRIMARY KEY (id, kind)) PARTITION BY LIST (kind);
	CREATE TABLE events1 PARTITION OF events FOR VALUES IN (1);
	CREATE TABLE events2 PARTITION OF events FOR VALUES IN (2) PARTITION BY RANGE (id);
	CREATE TABLE events2a PARTITION OF events2 FOR VALUES FROM (0) TO (1000);
	INSERT INTO events SELECT i, 1 + i % 2 FROM generate_series(1, 100) i;
	SELECT perfopt.cache_track('events', '{id}');
	CREATE TABLE events3 PARTITION OF events FOR VALUES IN (3);
	CREATE TABLE events4 (LIKE events INCLUDING ALL);
	INSERT INTO events4 VALUES (1, 4);
	SELECT perfopt.cache_track('events4', '{id}');
	CREATE TABLE parent (id int, x int);
	CREATE TABLE child () INHERITS (parent);
	INSERT INTO child VALUES (1, 1);
	SELECT perfopt.cache_track('parent', '{id}');
});
my $events = 'SELECT count(*), sum(id) FROM events';
drops('a partition written through its parent', $events, 'INSERT INTO events VALUES (500, 1)');
drops('a partition written directly', $events, 'INSERT INTO events2a VALUES (502, 2)');
drops('a row that moves', $events, 'UPDATE events SET kind = 2 WHERE id = 500');
drops('a later partition', $events, 'INSERT INTO events VALUES (600, 3)');
my $two = 'SELECT count(*) FROM events WHERE kind = 2';
keeps('another partition', $two, 'INSERT INTO events VALUES (501, 1)');
drops('a row that moves in', $two, 'UPDATE events SET kind = 2 WHERE id = 501');
drops('a row that moves out', $two, 'UPDATE events SET kind = 1 WHERE id = 501');
keeps('another key of the partitions', 'SELECT * FROM events WHERE id = 7', 'DELETE FROM events WHERE id = 9');
drops('the key of the partitions', 'SELECT * FROM events WHERE id = 7', 'DELETE FROM events WHERE id = 7');
drops('ATTACH PARTITION', $events, 'ALTER TABLE events ATTACH PARTITION events4 FOR VALUES IN (4)');
drops('an attached partition', $events, 'DELETE FROM events4');
drops('DETACH PARTITION', $events, 'ALTER TABLE events DETACH PARTITION events4');
drops('a detached partition is still tracked', 'SELECT count(*) FROM events4', 'INSERT INTO events4 VALUES (4, 4)');
drops('DROP of a partition', $events, 'DROP TABLE events3');
drops('a table that inherits', 'SELECT count(*) FROM parent', 'INSERT INTO child VALUES (2, 2)');
keeps('another key of one that inherits', 'SELECT * FROM parent WHERE id = 1', 'UPDATE child SET x = 3 WHERE id = 2');
drops('the key of one that inherits', 'SELECT * FROM parent WHERE id = 1', 'UPDATE child SET x = 3 WHERE id = 1');
drops('NO INHERIT', 'SELECT count(*) FROM parent', 'ALTER TABLE child NO INHERIT parent');
drops('INHERIT', 'SELECT count(*) FROM parent', 'ALTER TABLE child INHERIT parent');
is(run_sql(q{SELECT count(*) FROM pg_trigger WHERE tgrelid::regclass::text ~ '^events' AND tgenabled <> 'A'}), 0,
	'the triggers of partitions are ENABLE ALWAYS');
like(run_sql(q{DO $$ BEGIN PERFORM perfopt.cache_untrack('events1'); EXCEPTION WHEN object_not_in_prerequisite_state THEN RAISE NOTICE 'refused'; END $$;
	SELECT count(*) FROM perfopt.cache_tracked WHERE relation = 'events1'::regclass}), qr/^1$/, 'a partition is not untracked alone');

# ---- definitions
run_sql(q{
	CREATE VIEW big AS SELECT * FROM orders WHERE amount > 10;
	CREATE FUNCTION twice(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 2 * $1; END';
	CREATE FUNCTION total() RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS 'BEGIN RETURN (SELECT sum(amount) FROM orders); END';
	CREATE FUNCTION totals() RETURNS SETOF bigint LANGUAGE plpgsql STABLE AS 'BEGIN RETURN QUERY SELECT total(); END';
	CREATE MATERIALIZED VIEW sums AS SELECT user_id, sum(amount) FROM orders GROUP BY user_id;
	CREATE UNIQUE INDEX ON sums (user_id);
	CREATE ROLE reader});
drops('ALTER TABLE', $all, 'ALTER TABLE orders ADD note text');
drops('CREATE OR REPLACE VIEW', 'SELECT count(*) FROM big', 'CREATE OR REPLACE VIEW big AS SELECT * FROM orders WHERE amount > 20');
drops('the table of a view', 'SELECT count(*) FROM big', 'UPDATE orders SET amount = 100 WHERE id = 50');
drops('CREATE OR REPLACE FUNCTION', 'SELECT twice(id) FROM orders',
	q{CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE plpgsql STABLE AS 'BEGIN RETURN 3 * $1; END'});
drops('a table read in a function', 'SELECT total()', 'UPDATE orders SET amount = 101 WHERE id = 50');
{
	my $setting = run_sql(q{SELECT name FROM pg_settings WHERE name IN ('force_parallel_mode', 'debug_parallel_query')});
	local $ENV{PGOPTIONS} = "-c $setting=on";
	drops('a table read in a function that could run in a parallel worker', 'SELECT * FROM totals()', 'UPDATE orders SET amount = 99 WHERE id = 50');
}
drops('GRANT', $all, 'GRANT SELECT ON orders TO reader');
drops('REVOKE', $all, 'REVOKE SELECT ON orders FROM reader');
drops('another table of the name', $all, 'CREATE SCHEMA postgres; CREATE TABLE postgres.orders (id int, amount int)');
run_sql('DROP SCHEMA postgres CASCADE');
drops('a trigger disabled and enabled', $all, q{BEGIN; ALTER TABLE orders DISABLE TRIGGER perfopt_cache;
	UPDATE orders SET amount = 7 WHERE id = 9; ALTER TABLE orders ENABLE ALWAYS TRIGGER perfopt_cache; COMMIT});
keeps('a materialized view, not refreshed', 'SELECT * FROM sums', 'UPDATE orders SET amount = 102 WHERE id = 50');
drops('REFRESH MATERIALIZED VIEW', 'SELECT * FROM sums', 'REFRESH MATERIALIZED VIEW sums');
run_sql('UPDATE orders SET amount = 103 WHERE id = 50');
drops('REFRESH MATERIALIZED VIEW CONCURRENTLY', 'SELECT * FROM sums', 'REFRESH MATERIALIZED VIEW CONCURRENTLY sums');
drops('cache_invalidate', $all, q{SELECT perfopt.cache_invalidate('orders')});
drops('cache_invalidate of a parent', 'SELECT * FROM events1', q{SELECT perfopt.cache_invalidate('events')});

# ---- which tables are not tracked
sub fails_with
{
	my ($name, $sql, $re) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $sql);
	ok($rc != 0 && $err =~ $re, $name) or diag($err);
	return;
}
run_sql('CREATE TABLE "Odd ""Name" (x int, "a\'b\\" int); GRANT USAGE ON SCHEMA perfopt TO reader; GRANT SELECT ON "Odd ""Name" TO reader');
my $odd = 'SELECT * FROM "Odd ""Name"';
fails_with('a table without the trigger', 'SET ROLE reader; ' . call($odd),
	qr/table "Odd "Name" is not tracked.*perfopt\.cache_track\('public\."Odd ""Name"'\)/s);
run_sql(q{SELECT perfopt.cache_track('"Odd ""Name"', ARRAY['a''b\\'])});
is(run_sql(q{SELECT key_columns[1] FROM perfopt.cache_tracked WHERE relation = '"Odd ""Name"'::regclass}), q{a'b\\}, 'names are taken as they are');
keeps('odd names', q{SELECT * FROM "Odd ""Name" WHERE "a'b\\" = 1}, q{INSERT INTO "Odd ""Name" VALUES (1, 2)});
drops('odd names', q{SELECT * FROM "Odd ""Name" WHERE "a'b\\" = 1}, q{INSERT INTO "Odd ""Name" VALUES (1, 1)});
run_sql('ALTER TABLE "Odd ""Name" ENABLE TRIGGER perfopt_cache');
fails_with('a trigger not ALWAYS', 'SET ROLE reader; ' . call($odd), qr/not tracked/);
run_sql(q{SELECT perfopt.cache_track('"Odd ""Name"', ARRAY['a''b\\'])});
keeps('tracked again', 'SELECT * FROM "Odd ""Name"', 'SELECT 1');
run_sql('DROP TRIGGER perfopt_cache ON "Odd ""Name"');
fails_with('a trigger dropped', 'SET ROLE reader; ' . call($odd), qr/not tracked/);
fill($odd);
drops('the owner has it tracked at first use', $odd, 'INSERT INTO "Odd ""Name" VALUES (3, 3)');
run_sql('CREATE TABLE own_events (LIKE events) PARTITION BY LIST (kind); CREATE TABLE own_events1 PARTITION OF own_events DEFAULT;
	CREATE TABLE own_parent (x int); CREATE TABLE own_child () INHERITS (own_parent)');
fill('SELECT * FROM own_events1');
drops('with its partitions', 'SELECT * FROM own_events', 'INSERT INTO own_events1 VALUES (1, 1)');
is(run_sql(q{SELECT count(*) FROM perfopt.cache_tracked WHERE relation::text ~ '^own_events'}), 2, 'together');
fill('SELECT * FROM own_parent');
drops('with what inherits from it', 'SELECT * FROM own_parent', 'INSERT INTO own_child VALUES (1)');
run_sql('CREATE TABLE locked (x int)');
my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO locked VALUES (1)');
is(run_sql(call('SELECT * FROM locked')), '[]', 'nobody waits for a writer to have it tracked');
$writer->query_safe('COMMIT');
$writer->quit;
fails_with('cache_track of a temporary table', q{CREATE TEMP TABLE t (x int); SELECT perfopt.cache_track('t')}, qr/cannot be tracked/);
fails_with('cache_track of a catalog', q{SELECT perfopt.cache_track('pg_class')}, qr/cannot be tracked/);
fails_with('cache_track of a view', q{SELECT perfopt.cache_track('big')}, qr/cannot be tracked.*Track the tables/s);
fails_with('cache_track of a column that is not there', q{SELECT perfopt.cache_track('orders', '{no}')}, qr/column "no" of relation "orders" does not exist/);
fails_with('cache_track of others\' tables', q{SET ROLE reader; SELECT perfopt.cache_track('orders')}, qr/must be owner of table orders|permission denied/);
fails_with('cache_invalidate of others\' tables', q{SET ROLE reader; SELECT perfopt.cache_invalidate('orders')}, qr/permission denied for table orders/);
fails_with('a trigger of that name', q{CREATE TABLE taken (x int);
	CREATE TRIGGER perfopt_cache BEFORE UPDATE ON taken FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();
	SELECT perfopt.cache_track('taken')}, qr/already exists/);
keeps('cache_track again', $all, q{SELECT perfopt.cache_track('orders')});
run_sql(q{SELECT perfopt.cache_track('orders', '{user_id}')});
is(run_sql(q{SELECT key_columns FROM perfopt.cache_tracked WHERE relation = 'orders'::regclass}), '{user_id}', 'other key columns replace them');

run_sql('CREATE TABLE fresh (x int)');
run_sql('BEGIN; INSERT INTO fresh VALUES (1); ' . call('SELECT * FROM fresh') . '; INSERT INTO fresh VALUES (2); COMMIT');
fill('SELECT * FROM fresh');
ok(is_hit('SELECT * FROM fresh'), 'tracked in the middle of a transaction that writes');

# ---- a transaction's own rows, before their trigger has fired
run_sql(q{
	CREATE TABLE seen (rows int);
	CREATE TABLE written (x int);
	CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO seen SELECT (perfopt.cached_json('SELECT count(*) FROM written') -> 0 ->> 'count')::int;
		RETURN NEW;
	END $$;
	SELECT perfopt.cache_track('written');
	CREATE TRIGGER a_first AFTER INSERT ON written FOR EACH ROW EXECUTE FUNCTION look();
});
my $written = 'SELECT count(*) FROM written';
fill($written);
run_sql('INSERT INTO written VALUES (1), (2)');
is(run_sql('SELECT DISTINCT rows FROM seen'), 2, 'in the middle of a statement that writes: its own rows');
run_sql("TRUNCATE seen; COPY written FROM PROGRAM 'echo 1'");
is(run_sql('SELECT rows FROM seen'), 3, 'and of COPY');
run_sql('DO $$ BEGIN INSERT INTO written VALUES (1), (2); RAISE division_by_zero; EXCEPTION WHEN division_by_zero THEN NULL; END $$');
is(run_sql(call($written)), '[{"count": 3}]', 'what was seen there is not kept');
ok(run_sql('SELECT hits FROM perfopt.cache_stats; BEGIN;
	DO $$ BEGIN INSERT INTO orders (id) VALUES (1); EXCEPTION WHEN unique_violation THEN NULL; END $$; '
	. call($written) . '; COMMIT; SELECT hits FROM perfopt.cache_stats') =~ /^(\d+)\n.*\n(\d+)$/ && $2 > $1, 'an error ends it');

# ---- prepared transactions
fill($all);
run_sql(q{BEGIN; UPDATE orders SET amount = 1000 WHERE id = 20; PREPARE TRANSACTION 'p'});
ok(is_hit($all), 'prepared: not yet');
run_sql(q{COMMIT PREPARED 'p'});
ok(!is_hit($all), 'dropped: COMMIT PREPARED');
run_sql(q{BEGIN; UPDATE orders SET amount = 1001 WHERE id = 20; PREPARE TRANSACTION 'p'});
$node->restart;
fill($all);
ok(!is_hit($all), 'nothing is kept beside a transaction prepared before the start');
run_sql(q{COMMIT PREPARED 'p'});
drops('after a restart', $all, 'UPDATE orders SET amount = 1002 WHERE id = 20');

# ---- logical replication
$node->safe_psql('postgres', 'CREATE DATABASE source');
run_sql('CREATE TABLE replicated (id int PRIMARY KEY, x int); CREATE PUBLICATION pub FOR TABLE replicated', 'source');
my $connection = $node->connstr . ' dbname=source';
run_sql("SELECT pg_create_logical_replication_slot('sub', 'pgoutput')", 'source');
run_sql(q{CREATE TABLE replicated (id int PRIMARY KEY, x int); SELECT perfopt.cache_track('replicated')});
run_sql("CREATE SUBSCRIPTION sub CONNECTION '$connection' PUBLICATION pub WITH (create_slot = false, slot_name = 'sub')");
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_subscription_rel WHERE srsubstate <> 'r'});
my $applied = sub {
	my ($sql, $seen) = @_;
	return sub { run_sql($sql, 'source'); ok($node->poll_query_until('postgres', $seen), "applied: $sql"); };
};
my $replicated = 'SELECT * FROM replicated WHERE id = 1';
drops('INSERT applied', $replicated, $applied->('INSERT INTO replicated VALUES (1, 1)', 'SELECT count(*) = 1 FROM replicated'));
drops('UPDATE applied', $replicated, $applied->('UPDATE replicated SET x = 2', 'SELECT x = 2 FROM replicated'));
keeps('UPDATE of another key applied', $replicated, $applied->('INSERT INTO replicated VALUES (2, 1)', 'SELECT count(*) = 2 FROM replicated'));
drops('DELETE applied', $replicated, $applied->('DELETE FROM replicated', 'SELECT count(*) = 0 FROM replicated'));
run_sql('DROP SUBSCRIPTION sub');

# ---- a server that does not preload the library
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
run_sql('UPDATE orders SET amount = 0 WHERE id = 11');
is(run_sql('SELECT amount FROM orders WHERE id = 11'), 0, 'a tracked table can be written without the library');
fails_with('but not tracked', q{SELECT perfopt.cache_track('orders')}, qr/preload/);
$node->append_conf('postgresql.conf', $conf);
$node->restart;

# ---- dump, restore, and the end
my $dump = $node->basedir . '/dump.sql';
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr('postgres') ], 'pg_dump');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $node->connstr('restored') ], 'restored');
my $tracked = 'SELECT * FROM perfopt.cache_tracked ORDER BY relation::text, key_columns';
is(run_sql($tracked, 'restored'), run_sql($tracked), 'a restored database tracks the same tables');
run_sql('DROP EXTENSION perfopt', 'restored');
is(run_sql(q{SELECT count(*) FROM pg_trigger WHERE tgname ~ '^perfopt_cache' AND tgrelid <> 'taken'::regclass}, 'restored'), 0, 'the triggers go with the extension');
run_sql(q{SELECT perfopt.cache_untrack('events'), perfopt.cache_untrack('parent')});
is(run_sql(q{SELECT string_agg(relation::text, ' ' ORDER BY relation::text) FROM perfopt.cache_tracked
	WHERE relation::text ~ '^(events|parent|child)'}), 'events4', 'cache_untrack');
run_sql('DROP EXTENSION perfopt');
is(run_sql(q{SELECT count(*) FROM pg_trigger WHERE tgname ~ '^perfopt_cache' AND tgrelid <> 'taken'::regclass}), 0, 'here, too');

$node->stop;
done_testing();
