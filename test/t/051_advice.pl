# Advice on a workload, its life, and who may see and do what.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('advice');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nperfopt.apply_attempts = 1\nautovacuum = off\nrestart_after_crash = on\nperfopt_test.statement_ms = 5\ndefault_statistics_target = 1000\n");
$node->start;
$node->safe_psql('postgres', $_) for (
	q{CREATE EXTENSION perfopt CASCADE},
	slurp_file("$root/test/tools/stop_points.sql"),
	slurp_file("$root/test/tools/worker.sql"),
	q{CREATE ROLE owner LOGIN; CREATE ROLE other LOGIN; CREATE ROLE watcher LOGIN;
	GRANT pg_read_all_stats TO watcher; GRANT CREATE ON SCHEMA public TO owner;
	CREATE SCHEMA "odd Schema" AUTHORIZATION owner});
$node->safe_psql('postgres', q{
	SET ROLE owner;
	CREATE TABLE users (id int PRIMARY KEY, email text, name text);
	INSERT INTO users SELECT i, 'user' || i || '@example.com', 'Name ' || i FROM generate_series(1, 20000) i;
	CREATE TABLE orders (id bigint PRIMARY KEY, user_id int, created_at timestamptz, amount numeric, code text, flag int);
	INSERT INTO orders SELECT i, i::bigint * 7919 % 20000 + 1, timestamptz '2024-01-01' + i * interval '1 s', i % 100, 'c' || i, i % 2
		FROM generate_series(1, 100000) i;
	CREATE INDEX ON orders (created_at);
	CREATE INDEX ON orders (code, amount);
	CREATE TABLE small (a int, b int);
	INSERT INTO small SELECT i, i FROM generate_series(1, 200) i;
	CREATE TABLE partial (a int, live bool, filler text);
	INSERT INTO partial SELECT i, i % 2 = 0, repeat('x', 100) FROM generate_series(1, 20000) i;
	CREATE INDEX ON partial (a) WHERE live;
	CREATE TABLE log (at int, message text, source int);
	INSERT INTO log SELECT i, repeat('m', 50), i FROM generate_series(1, 20000) i;
	CREATE TABLE "odd Schema"."we""ird Table" (id int, "select" int, filler text);
	INSERT INTO "odd Schema"."we""ird Table" SELECT i, i, repeat('x', 100) FROM generate_series(1, 20000) i;
	CREATE TABLE messages (room int, at timestamptz, body text);
	INSERT INTO messages SELECT i % 20, timestamptz '2024-01-01' + i * 7919 % 50000 * interval '1 s', repeat('m', 60)
		FROM generate_series(1, 50000) i;
	ANALYZE});
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM perfopt.workers WHERE datname = 'postgres' AND pid IS NOT NULL})
  or die 'no worker';

sub analyze_now { return $node->safe_psql('postgres', 'SELECT perfopt.analyze_now()'); }
sub advice
{
	return $node->safe_psql('postgres',
		q{SELECT string_agg(relation || ' ' || substring(ddl from '\(.*'), ', ' ORDER BY relation, ddl COLLATE "C") FROM perfopt.advice WHERE status = 'open'});
}
sub id_of
{
	my ($relation) = @_;
	return $node->safe_psql('postgres', "SELECT id FROM perfopt.advice WHERE relation = '$relation' ORDER BY id DESC LIMIT 1");
}
sub status_of
{
	my ($id) = @_;
	return $node->safe_psql('postgres', "SELECT status FROM perfopt.advice WHERE id = $id");
}
sub as_role
{
	my ($role, $sql) = @_;
	my ($ret, $out, $err) = $node->psql('postgres', $sql, extra_params => ['-U', $role, '-v', 'VERBOSITY=verbose']);
	return ($ret, $out, $err);
}

# Needed and healthy statements together: exactly the needed indexes.
$node->safe_psql('postgres', 'SELECT perfopt.reset_latency()');
my $work = join(";\n",
	(map { "SELECT * FROM users WHERE email = 'user$_\@example.com'" } 1 .. 20),
	(map { "SELECT * FROM orders WHERE user_id = $_" } 1 .. 10),
	(map { "SELECT * FROM users WHERE id = $_; SELECT * FROM orders WHERE id = $_" } 1 .. 20),
	(map { "SELECT * FROM small WHERE a = $_" } 1 .. 20),
	(map { "SELECT * FROM orders WHERE code = 'c$_'" } 1 .. 20),
	(map { "SELECT count(*), sum(amount) FROM orders" } 1 .. 3),
	(map { "SELECT count(*) FROM orders WHERE flag = $_ % 2" } 1 .. 3),
	(map { "SELECT sum(amount) FROM orders WHERE created_at < timestamptz '2024-01-01' + $_ * interval '100 s'" } 1 .. 5),
	(map { "SELECT * FROM partial WHERE a = $_" } 1 .. 20),
	(map { qq{SELECT * FROM "odd Schema"."we""ird Table" WHERE "select" = $_} } 1 .. 20),
	(map { "SELECT * FROM messages WHERE room = $_ ORDER BY at DESC LIMIT 10" } 1 .. 10),
	'PREPARE p(int) AS SELECT name FROM orders o JOIN users u ON u.id = o.user_id WHERE o.user_id = $1',
	(map { "EXECUTE p(4711)" } 1 .. 8));
$node->safe_psql('postgres', "SET ROLE owner; $work");
is(analyze_now(), '5', 'as many advices as are open');
is(advice(), q{"odd Schema"."we""ird Table" ("select"), public.messages (room, at), public.orders (user_id), public.partial (a), public.users (email)},
	'the missing indexes and no other');
like($node->safe_psql('postgres', q{SELECT reason FROM perfopt.advice WHERE relation = 'public.users'}),
	qr/^Statements that look up public\.users by email take [\d.]+ ms a call and \d+ % of the statement time; with this index about [\d.]+ ms a call\.$/,
	'the reason in a sentence');
is($node->safe_psql('postgres', q{
	SELECT bool_and((q ->> 'cost_before')::float8 > 10 * (q ->> 'cost_after')::float8
		AND (q ->> 'calls')::int > 0 AND (q ->> 'share')::float8 BETWEEN 0 AND 1 AND q ->> 'role' = 'owner'
		AND (q ->> 'queryid')::bigint <> 0)
	FROM perfopt.advice, jsonb_array_elements(evidence -> 'queries') q WHERE relation = 'public.users'}),
	't', 'the evidence');

# Parameters
is($node->safe_psql('postgres', q{SELECT count(*) > 0 FROM perfopt.plan_samples WHERE parameters = '{4711}' AND role = 'owner'}),
	't', 'the values of a prepared statement are sampled');
my ($ret, $out, $err) = as_role('watcher', 'SELECT count(*) > 0 FROM perfopt.plan_samples');
is($out, 't', 'a member of pg_read_all_stats sees samples');
for my $sql ('SELECT * FROM perfopt.plan_samples', 'SELECT * FROM perfopt.plan_samples_all()', 'SELECT * FROM perfopt.advice',
	'SELECT * FROM perfopt.advice_item', 'SELECT perfopt.analyze_now()')
{
	($ret, $out, $err) = as_role('other', $sql);
	like($err, qr/ERROR:  42501:/, "an ordinary role is refused: $sql");
}

# Applying
my $users = id_of('public.users');
($ret, $out, $err) = as_role('other', "SELECT perfopt.apply_advice($users)");
like($err, qr/ERROR:  42501: must be owner/, 'only the owner of the table applies');
($ret, $out, $err) = as_role('owner', 'SELECT perfopt.apply_advice(0)');
like($err, qr/ERROR:  42704:/, 'an unknown advice');
is(status_of($users), 'open', 'nothing has changed');
($ret, $out, $err) = as_role('owner', "BEGIN; SELECT perfopt.apply_advice($users); ROLLBACK");
is(status_of($users), 'open', 'a rollback takes the request back');
for my $relation ('public.users', '"odd Schema"."we""ird Table"')
{
	my $id = id_of($relation);
	($ret, $out, $err) = as_role('owner', "SELECT perfopt.apply_advice($id)");
	like($out, qr/^queued: CREATE INDEX CONCURRENTLY /, "$relation: queued");
	$node->poll_query_until('postgres', "SELECT status = 'applied' FROM perfopt.advice WHERE id = $id")
	  or diag($node->safe_psql('postgres', "SELECT status, error FROM perfopt.advice WHERE id = $id"));
	is(status_of($id), 'applied', "$relation: applied");
}
is($node->safe_psql('postgres', q{
	SELECT string_agg(c.relname || ' ' || pg_get_userbyid(c.relowner) || ' ' || i.indisvalid, ', ' ORDER BY c.relname COLLATE "C")
	FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
	WHERE i.indrelid IN ('users'::regclass, '"odd Schema"."we""ird Table"'::regclass)}),
	'users_email_idx owner true, users_pkey owner true, we"ird Table_select_idx owner true', 'the indexes, valid and the owner\'s');
($ret, $out, $err) = as_role('owner', "SELECT perfopt.apply_advice($users)");
like($err, qr/ERROR:  55000: advice \d+ is applied already/, 'once is enough');

# By hand
my $partial = id_of('public.partial');
$node->safe_psql('postgres', 'CREATE INDEX by_hand ON partial (a)');
analyze_now();
is(status_of($partial), 'applied', 'an index built by hand is recognized');

# A build that fails leaves nothing invalid.
my $orders = id_of('public.orders');
$node->safe_psql('postgres', q{ALTER ROLE owner SET lock_timeout = '100ms'});
my $writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO orders VALUES (-1, 1)');
as_role('owner', "SET lock_timeout = 0; SELECT perfopt.apply_advice($orders)");
$node->poll_query_until('postgres', "SELECT error LIKE '%lock timeout%' FROM perfopt.advice WHERE id = $orders");
$writer->query_safe('COMMIT');
$writer->quit;
$node->poll_query_until('postgres', "SELECT status = 'failed' FROM perfopt.advice WHERE id = $orders");
is($node->safe_psql('postgres', "SELECT status || ': ' || error FROM perfopt.advice WHERE id = $orders"),
	'failed: canceling statement due to lock timeout', 'a failed build says why');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), '0', 'no invalid index is left');
$node->safe_psql('postgres', 'ALTER ROLE owner RESET lock_timeout');

# A build takes as long as it takes, whatever limits the role has.
my $messages = id_of('public.messages');
my $limit = $node->safe_psql('postgres', q{SELECT max(name) FROM pg_settings WHERE name IN ('statement_timeout', 'transaction_timeout')});
$node->safe_psql('postgres', "ALTER ROLE owner SET $limit = '100ms'");
$writer = $node->background_psql('postgres');
$writer->query_safe(q{BEGIN; INSERT INTO messages VALUES (1, now(), 'm')});
as_role('owner', "SET $limit = 0; SELECT perfopt.apply_advice($messages)");
$node->poll_query_until('postgres', qq{SELECT error IS NOT NULL OR EXISTS (SELECT FROM pg_stat_activity
	WHERE backend_type = 'perfopt job' AND wait_event_type = 'Lock' AND clock_timestamp() > xact_start + interval '300 ms')
	FROM perfopt.advice WHERE id = $messages});
$writer->query_safe('COMMIT');
$writer->quit;
$node->poll_query_until('postgres', "SELECT status IN ('applied', 'failed') FROM perfopt.advice WHERE id = $messages");
is($node->safe_psql('postgres', "SELECT status, error FROM perfopt.advice WHERE id = $messages"), 'applied|', "its $limit does not end a build");
$node->safe_psql('postgres', "ALTER ROLE owner RESET $limit");

# A job that is killed while it waits for a writer
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO orders VALUES (-2, 1)');
as_role('owner', "SELECT perfopt.apply_advice($orders)");
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_index WHERE NOT indisvalid});
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'ShareUpdateExclusiveLock'});
$writer->query_safe('COMMIT');
$writer->quit;
$node->poll_query_until('postgres', "SELECT status = 'failed' FROM perfopt.advice WHERE id = $orders");
is(status_of($orders), 'failed', 'a killed build has failed');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), '0', 'and its invalid index is dropped');

# An index that can't be dropped, as its owner is another one by now, is not
# tried again and again without a pause.
$node->safe_psql('postgres', "SELECT stop_point_set('apply-clean-up', 'wait')");
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO orders VALUES (-5, 1)');
as_role('owner', "SELECT perfopt.apply_advice($orders)");
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_index WHERE NOT indisvalid});
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'ShareUpdateExclusiveLock'});
$writer->query_safe('COMMIT');
$writer->quit;
$node->poll_query_until('postgres', "SELECT stop_point_waiters('apply-clean-up') = 1");
$node->safe_psql('postgres', 'ALTER TABLE orders OWNER TO other');
my $log = -s $node->logfile;
$node->safe_psql('postgres', "SELECT stop_point_clear('apply-clean-up')");
$node->wait_for_log(qr/must be owner of index/, $log);
$node->safe_psql('postgres', 'SELECT pg_sleep(3)');
my @tries = slurp_file($node->logfile, $log) =~ /must be owner of index/g;
is(scalar(@tries), 1, 'it takes its time to try again');
$node->safe_psql('postgres', 'ALTER TABLE orders OWNER TO owner');
ok($node->poll_query_until('postgres', "SELECT duty_wake('apply')::text = '' AND status = 'failed' FROM perfopt.advice WHERE id = $orders"), 'but it does');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), '0', 'and the index goes in the end');

# The whole server crashes in the middle of a build.
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO orders VALUES (-3, 1)');
as_role('owner', "SELECT perfopt.apply_advice($orders)");
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_index WHERE NOT indisvalid});
$node->stop('immediate');
eval { $writer->quit };
$node->start;
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM perfopt.workers WHERE kind = 'database' AND state = 'sleeping'}) or die 'no worker';
$node->poll_query_until('postgres', "SELECT duty_wake('apply')::text = '' AND status = 'failed' FROM perfopt.advice WHERE id = $orders");
is($node->safe_psql('postgres', "SELECT status || ': ' || error FROM perfopt.advice WHERE id = $orders"),
	'failed: the index build was interrupted', 'a crash is put right after the restart');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pg_index WHERE NOT indisvalid'), '0', 'and its invalid index is dropped too');

# The reason of a build that did not get as far as an index
$node->safe_psql('postgres', 'REVOKE CREATE ON SCHEMA public FROM owner');
as_role('owner', "SELECT perfopt.apply_advice($orders)");
$node->poll_query_until('postgres', "SELECT status = 'failed' FROM perfopt.advice WHERE id = $orders");
is($node->safe_psql('postgres', "SELECT error FROM perfopt.advice WHERE id = $orders"), 'permission denied for schema public',
	'a failed build tells why');
$node->safe_psql('postgres', 'GRANT CREATE ON SCHEMA public TO owner');

# Somebody else builds an index under the name just chosen, and fails.
$node->safe_psql('postgres', "SELECT stop_point_set('apply-submit', 'wait')");
as_role('owner', "SELECT perfopt.apply_advice($orders)");
$node->poll_query_until('postgres', "SELECT stop_point_waiters('apply-submit') = 1");
my $name = $node->safe_psql('postgres', "SELECT index_name FROM perfopt.advice_item WHERE id = $orders");
$node->safe_psql('postgres', "CREATE INDEX $name ON orders (user_id, flag); UPDATE pg_index SET indisvalid = false WHERE indexrelid = '$name'::regclass");
$node->safe_psql('postgres', "SELECT stop_point_clear('apply-submit')");
$node->poll_query_until('postgres', "SELECT status = 'failed' FROM perfopt.advice WHERE id = $orders");
is($node->safe_psql('postgres', "SELECT error FROM perfopt.advice WHERE id = $orders"), qq{relation "$name" already exists},
	'a name that is taken meanwhile is a failure');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass('$name') AND NOT indisvalid"), '1',
	'and somebody else\'s invalid index is left alone');
$node->safe_psql('postgres', "DROP INDEX IF EXISTS $name");

# Somebody else, such as a vacuum, has the table's lock as soon as it is built.
$writer = $node->background_psql('postgres');
$writer->query_safe('BEGIN; INSERT INTO orders VALUES (-4, 1)');
as_role('owner', "SELECT perfopt.apply_advice($orders)");
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM pg_index WHERE NOT indisvalid});
my $locker = $node->background_psql('postgres');
$locker->query_until(qr/begun/, "BEGIN;\n\\echo begun\nLOCK orders IN SHARE UPDATE EXCLUSIVE MODE;\n");
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_locks WHERE relation = 'orders'::regclass AND NOT granted});
$writer->query_safe('COMMIT');
$writer->quit;
ok($node->poll_query_until('postgres', "SELECT status = 'applied' FROM perfopt.advice WHERE id = $orders"),
	'an index is applied whoever has the table\'s lock');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE relation = 'orders'::regclass AND mode = 'ShareUpdateExclusiveLock'});
eval { $locker->quit };
$node->safe_psql('postgres', "DROP INDEX $name; UPDATE perfopt.advice_item SET status = 'open' WHERE id = $orders");

# Tables that are written much more than read
$node->safe_psql('postgres', 'SELECT perfopt.reset_latency()');
$node->safe_psql('postgres', q{SET ROLE owner; SELECT * FROM log WHERE source = 1; SELECT * FROM log WHERE source = 2; SELECT * FROM log WHERE source = 3});
analyze_now();
is($node->safe_psql('postgres', q{SELECT string_agg(relation, ',') FROM perfopt.advice WHERE relation = 'public.log' AND status = 'open'}),
	'public.log', 'a table that is read is advised on');
$node->safe_psql('postgres', q{SET ROLE owner; INSERT INTO log SELECT i, 'm', i FROM generate_series(1, 20000) i; DELETE FROM log WHERE message = 'm'; SELECT * FROM log WHERE source = 3});
analyze_now();
is($node->safe_psql('postgres', q{SELECT string_agg(relation, ',') FROM perfopt.advice WHERE relation = 'public.log' AND status = 'open'}),
	'', 'but not when it is written far more');

# Trees that are stale after DDL
$node->safe_psql('postgres', q{SET ROLE owner; SELECT * FROM orders WHERE user_id = 3; SELECT * FROM orders WHERE user_id = 4; SELECT * FROM orders WHERE user_id = 5});
my $samples = q{SELECT count(*) FROM perfopt.plan_samples};
cmp_ok($node->safe_psql('postgres', $samples), '>', 0, 'there are samples');
$node->safe_psql('postgres', q{ALTER TABLE orders DROP COLUMN code; ALTER TABLE orders ALTER user_id TYPE bigint;
	ALTER TABLE log RENAME TO old_log; DROP TABLE old_log});
analyze_now();
is($node->safe_psql('postgres', $samples), '0', 'samples of altered tables are discarded');
is($node->safe_psql('postgres', q{SELECT count(*) FROM perfopt.workers WHERE last_error IS NOT NULL}), '0', 'no duty has failed');
$node->safe_psql('postgres', 'ALTER TABLE orders RENAME user_id TO renamed');
analyze_now();
is(status_of($orders), 'obsolete', 'advice for a column that is gone is obsolete');

is($node->safe_psql('postgres', 'SELECT last_value - max(id) FROM perfopt.advice_item_id_seq, perfopt.advice_item GROUP BY last_value'),
	'0', 'a round that finds what is known already uses no id');

# Tables and columns that go while a round is at work
$node->safe_psql('postgres', 'SELECT perfopt.reset_latency()');
$node->safe_psql('postgres', q{
	SET ROLE owner;
	CREATE TABLE doomed AS SELECT i AS a, repeat('x', 100) AS filler FROM generate_series(1, 20000) i;
	CREATE TABLE narrowed AS TABLE doomed;
	CREATE TABLE retyped AS SELECT a::text, filler FROM doomed;
	ANALYZE doomed, narrowed, retyped} . q{;SELECT filler FROM doomed WHERE a = 1; SELECT filler FROM narrowed WHERE a = 1; SELECT filler FROM retyped WHERE a = '1'} x 3);
$node->safe_psql('postgres', q{SELECT stop_point_set('advise-priced', 'wait'), stop_point_set('advise-chosen', 'wait')});
my $round = $node->background_psql('postgres');
$round->query_until(qr/begun/, "\\echo begun\nSELECT perfopt.analyze_now();\n");
$node->poll_query_until('postgres', q{SELECT stop_point_waiters('advise-priced') = 1}) or die 'no round';
$node->safe_psql('postgres', q{ALTER TABLE retyped ALTER a TYPE int USING a::int; SELECT stop_point_clear('advise-priced')});
$node->poll_query_until('postgres', q{SELECT stop_point_waiters('advise-chosen') = 1}) or die 'no round';
$node->safe_psql('postgres', q{DROP TABLE doomed; ALTER TABLE narrowed DROP COLUMN a; SELECT stop_point_clear('advise-chosen')});
is($round->query_safe(q{SELECT 'lives'}) =~ /lives/, 1, 'a round survives it when tables are dropped and altered meanwhile');
$round->quit;
is($node->safe_psql('postgres', q{SELECT count(*) FROM perfopt.advice WHERE relation IN ('public.doomed', 'public.narrowed', 'public.retyped')}), '0',
	'and gives no advice for what is gone');

# A round with many candidates, and much advice that stands
my @wide = map { "c$_" } 1 .. 60;
$node->safe_psql('postgres', 'SELECT perfopt.reset_latency()');
$node->safe_psql('postgres', 'SET ROLE owner; CREATE TABLE wide AS SELECT ' . join(', ', map { "i AS $_" } @wide) .
	' FROM generate_series(1, 5000) i; ANALYZE wide;' . join(';', map { "SELECT $_ FROM wide WHERE $_ = 1" } (@wide) x 3));
analyze_now();
cmp_ok($node->safe_psql('postgres', q{SELECT count(*) FROM perfopt.advice WHERE relation = 'public.wide'}), '>', 50, 'much advice');
my ($worker) = $node->safe_psql('postgres', q{SELECT pid FROM perfopt.workers WHERE datname = 'postgres'});
my $begun = "SELECT xact_start FROM pg_stat_activity WHERE pid = $worker";
$node->safe_psql('postgres', q{SELECT stop_point_set('advise-priced', 'wait'), stop_point_set('advise-chosen', 'wait')});
$round = $node->background_psql('postgres');
$round->query_until(qr/begun/, "\\echo begun\nSELECT perfopt.analyze_now();\n");
$node->poll_query_until('postgres', q{SELECT stop_point_waiters('advise-priced') = 1}) or die 'no round';
my $first = $node->safe_psql('postgres', $begun);
$node->poll_query_until('postgres', "SELECT now() - interval '2 s' > '$first'") or die 'no time';
$node->safe_psql('postgres', q{SELECT stop_point_clear('advise-priced')});
$node->poll_query_until('postgres', q{SELECT stop_point_waiters('advise-chosen') = 1}) or die 'no round';
isnt($node->safe_psql('postgres', $begun), $first, 'no transaction is as long as the round');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $worker AND relation = 'wide'::regclass"), '0',
	'tables of advice that stands are not kept locked');
my $offset = -s $node->logfile;
$node->safe_psql('postgres', "SELECT pg_log_backend_memory_contexts($worker)");
$node->wait_for_log(qr/\[$worker\] LOG:  Grand total/, $offset);
$node->safe_psql('postgres', q{SELECT stop_point_clear('advise-chosen')});
$round->query_safe(q{SELECT 'done'});
$round->quit;
my ($used) = slurp_file($node->logfile, $offset) =~ /level: \d+; perfopt duty: .* (\d+) used/;
cmp_ok($used, '<', 2 * 1024 * 1024, 'what the choice tries leaves nothing in memory');

# Constants of an existing index's predicate are not computed
$node->safe_psql('postgres', q{
	SET ROLE owner;
	CREATE TABLE folded AS SELECT i AS a, repeat('x', 100) AS filler FROM generate_series(1, 20000) i;
	CREATE TEXT SEARCH CONFIGURATION passing (COPY = simple);
	DO $$ BEGIN EXECUTE format('CREATE INDEX ON folded (filler) WHERE to_tsvector(%s::oid::regconfig, ''x'') IS NOT NULL', 'passing'::regconfig::oid); END $$;
	ANALYZE folded});
$node->safe_psql('postgres', 'SELECT perfopt.reset_latency()');
$node->safe_psql('postgres', 'SELECT filler FROM folded WHERE a = 1;' x 3);
analyze_now();
$node->safe_psql('postgres', 'DROP TEXT SEARCH CONFIGURATION passing');
analyze_now();
is($node->safe_psql('postgres', q{SELECT count(*) FROM perfopt.advice WHERE relation = 'public.folded'}), '1', 'nor fail when that would fail');

is($node->safe_psql('postgres', qq{UPDATE perfopt.advice_item SET last_seen = now() - interval '31 days' WHERE id = $orders;
	SELECT perfopt.analyze_now(); SELECT count(*) FROM perfopt.advice WHERE id = $orders}) =~ s/.*\n//sr, '0',
	'obsolete advice is forgotten after a month');

$node->stop;
done_testing();
