# Batched inserts beside other sessions: cancels, timeouts and deadlocks are not
# the fault of a row; statistics; and on a standby, and in a dump.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('batch_insert');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "autovacuum = off\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', q{
	CREATE ROLE alice;
	CREATE TABLE t (id int PRIMARY KEY, a int CHECK (a > 0));
	GRANT ALL ON t TO alice;
	CREATE TABLE slow (a int);
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(60); RETURN new; END $$; -- until it is cancelled
	CREATE TRIGGER slow BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION slow()});

# What ends statements ends the call, also when bad rows are rejected
my ($code, $out, $err) = $node->psql('postgres', q{SET statement_timeout = '100ms';
	SELECT perfopt.batch_insert('slow', '[{"a":1},{"a":2}]', on_error => 'skip')});
like($err, qr/canceling statement due to statement timeout/, 'a timeout is no bad row');

my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; INSERT INTO t VALUES (1, 1)');
($code, $out, $err) = $node->psql('postgres', q{SET lock_timeout = '100ms';
	SELECT perfopt.batch_insert('t', '[{"id":5,"a":5},{"id":1,"a":1}]', on_error => 'skip')});
like($err, qr/canceling statement due to lock timeout/, 'neither is a lock that is not to be had');

# One that is decided while we wait for it
my $waiter = $node->background_psql('postgres');
$waiter->query_until(qr/started/, qq{\\echo started
SELECT 'waited ' || inserted || ' ' || rejected FROM perfopt.batch_insert('t', '[{"id":5,"a":5},{"id":1,"a":1},{"id":6,"a":6}]', on_error => 'skip');
});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%batch_insert%' AND pid <> pg_backend_pid()}), 'a call waits for a row');
$holder->query_safe('COMMIT');
$waiter->query_until(qr/waited 2 1/, "\n");
pass('and then rejects its own');
is($node->safe_psql('postgres', 'SELECT string_agg(id::text, $$,$$ ORDER BY id) FROM t'), '1,5,6', 'the others are in');

# Deadlocks
$node->safe_psql('postgres', q{TRUNCATE t; SELECT perfopt.delete_rejected_rows()});
$holder->query_safe(q{SET deadlock_timeout = '1h'; BEGIN; INSERT INTO t VALUES (1, 1)});
$waiter->query_safe(q{SET deadlock_timeout = '10ms'; BEGIN; INSERT INTO t VALUES (2, 2)});
$holder->query_until(qr/waiting/, q{\echo waiting
INSERT INTO t VALUES (2, 2);
});
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'}), 'another session waits');
$waiter->query_until(qr/state 40P01/, q{SELECT perfopt.batch_insert('t', '[{"id":1,"a":1}]', on_error => 'skip');
\echo state :LAST_ERROR_SQLSTATE
ROLLBACK;
});
pass('a deadlock is no bad row');
$holder->query_safe('ROLLBACK');
$holder->quit;
$waiter->quit;

# Serializable
my $one = $node->background_psql('postgres');
my $two = $node->background_psql('postgres');
$node->safe_psql('postgres', 'TRUNCATE t');
for ($one, $two)
{
	$_->query_safe('BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM t');
}
$one->query_safe(q{SELECT perfopt.batch_insert('t', '[{"id":1,"a":1}]')});
$one->query_safe('COMMIT');
$two->query_until(qr/state 40001/, q{SELECT perfopt.batch_insert('t', '[{"id":2,"a":1}]', on_error => 'skip');
COMMIT;
\echo state :LAST_ERROR_SQLSTATE
});
pass('a serialization failure is no bad row');
$_->quit for $one, $two;

# Counted as what it is
is($node->safe_psql('postgres', q{
	SELECT pg_stat_reset(); SELECT perfopt.batch_insert('t', '{id,a}', ARRAY(SELECT generate_series(11, 3010)), ARRAY(SELECT generate_series(1, 3000)));}) =~ /3000/, 1, 'many rows');
ok($node->poll_query_until('postgres', q{SELECT n_tup_ins = 3000 FROM pg_stat_user_tables WHERE relname = 't'}), 'are counted as inserted');

# A dump keeps rejected rows, with their roles
$node->safe_psql('postgres', q{SET ROLE alice; SELECT perfopt.batch_insert('t', '[{"id":-1,"a":-1}]', on_error => 'skip')});
$node->backup('base');
$node->run_log([ 'pg_dump', '-f', $node->data_dir . '/dump.sql', $node->connstr('postgres') ]);
$node->safe_psql('postgres', 'CREATE DATABASE again');
($code, $out, $err) = $node->psql('again', slurp_file($node->data_dir . '/dump.sql'), on_error_stop => 1);
is($err, '', 'a dump is restored');
my $rejected = q{SELECT role, target, ordinal, sqlstate, payload FROM perfopt.rejected_rows};
is($node->safe_psql('again', $rejected), 'alice|public.t|1|23514|{"a": -1, "id": -1}', 'with rejected rows');
is($node->safe_psql('again', q{SET ROLE alice; SELECT batch > (SELECT max(id) FROM perfopt.rejected_rows) FROM perfopt.batch_insert('t', '[{"id":-1,"a":-1}]', on_error => 'skip')}),
	't', 'whose numbers go on');

# A standby
my $standby = PostgreSQL::Test::Cluster->new('batch_standby');
$standby->init_from_backup($node, 'base', has_streaming => 1);
$standby->start;
for my $on_error ('abort', 'skip')
{
	($code, $out, $err) = $standby->psql('postgres', qq{SELECT perfopt.batch_insert('t', '[{"id":7,"a":7}]', on_error => '$on_error')});
	like($err, qr/cannot execute perfopt\.batch_insert\(\) during recovery/, "not on a standby, $on_error");
}
($code, $out, $err) = $standby->psql('postgres', q{SELECT * FROM perfopt.batch_insert_path('t')});
like($err, qr/cannot execute perfopt\.batch_insert_path\(\) during recovery/, 'nor is there a way there');
$standby->stop;

# Killed in the middle, nothing is there
$node->safe_psql('postgres', 'TRUNCATE t');
my $session = $node->background_psql('postgres');
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_safe(q{BEGIN; SELECT perfopt.batch_insert('t', '{id,a}', ARRAY(SELECT generate_series(1, 3000)), ARRAY(SELECT generate_series(1, 3000)))});
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SELECT count(*) FROM t'), '0', 'a crash leaves nothing of what was not committed');
$node->safe_psql('postgres', q{SELECT perfopt.batch_insert('t', '{id,a}', ARRAY(SELECT generate_series(1, 3000)), ARRAY(SELECT generate_series(1, 3000)))});
$node->stop('immediate');
$node->start;
is($node->safe_psql('postgres', 'SET enable_seqscan = off; SELECT count(*), sum(a) FROM t WHERE id > 0'), '3000|4501500', 'and all of what was');
$node->stop;
done_testing();
