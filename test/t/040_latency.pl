# What is measured under which query: errors and timeouts, nesting, drivers'
# prepared utility commands, pg_stat_statements beside it, and the two orders
# of preloading.
use strict;
use warnings;
use File::Basename qw(dirname);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $conf = slurp_file($ENV{PERFOPT_CONF} || dirname(__FILE__) . '/../perfopt.conf');

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', $conf . "perfopt.worker = off\nautovacuum = off\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION perfopt CASCADE;
	CREATE TABLE t (id int PRIMARY KEY, v int);
	INSERT INTO t SELECT i, i FROM generate_series(1, 1000) i;
	CREATE FUNCTION nested(n int) RETURNS int LANGUAGE plpgsql AS $$
		BEGIN PERFORM count(*) FROM t WHERE v > n; RETURN n; END $$;
	CREATE FUNCTION caught() RETURNS int LANGUAGE plpgsql AS $$
		BEGIN PERFORM 1 / (v - 1) FROM t WHERE id = 1; RETURN 1;
		EXCEPTION WHEN division_by_zero THEN RETURN 0; END $$;
});

# Run a script in one session, go on after errors, under some settings.
sub run_script
{
	my ($script, %settings) = @_;
	local $ENV{PGOPTIONS} = join ' ', map { "-c $_=$settings{$_}" } sort keys %settings;
	my ($rc, $out, $err) = $node->psql('postgres', $script, on_error_stop => 0, on_error_die => 0);
	return $err;
}

# Columns of the rows whose query matches, after a fresh start and a script.
# Looks with tracking off, so that looking is not seen.
sub look
{
	my ($columns, $where, $view) = @_;
	local $ENV{PGOPTIONS} = '-c perfopt.track=none';
	$view ||= 'query_latency';
	return $node->safe_psql('postgres', "SELECT $columns FROM perfopt.$view WHERE $where");
}

sub reset_all
{
	local $ENV{PGOPTIONS} = '-c perfopt.track=none -c pg_stat_statements.track=none';
	$node->safe_psql('postgres', 'SELECT perfopt.reset_latency(), pg_stat_statements_reset()');
}

# Timeouts make it worse, not better
reset_all();
run_script(q{
	SELECT pg_sleep(0.002);
	SET statement_timeout = 120;
	SELECT pg_sleep(10.5);
	SELECT pg_sleep(10.5);
	SELECT pg_sleep(10.5);
});
is(look('calls, errors, rows, p99_ms BETWEEN 110 AND 1000, p50_ms BETWEEN 110 AND 1000, min_ms < 100, mean_ms > 80', "query LIKE '%pg_sleep%'"),
	'4|3|1|t|t|t|t', 'statements that time out count with the time they took');
is(look('sqlstate_class, errors', "query LIKE '%pg_sleep%'", 'query_errors'), '57|3', 'under their class');

# Every class, once, under one query; errors at each stage
reset_all();
my %class = (
	'22' => '22012', '23' => '23505', '25' => '25006', '40' => '40001', '42' => '42501', '53' => '53200',
	'54' => '54000', '55' => '55P03', '57' => '57014', '08' => '08006', 'P0' => 'P0001', 'XX' => 'XX000', '' => '0A000');
$node->safe_psql('postgres', q{
	CREATE OR REPLACE FUNCTION raise(code text) RETURNS int LANGUAGE plpgsql AS
	$$ BEGIN IF code <> '' THEN RAISE EXCEPTION USING ERRCODE = code; END IF; RETURN 1; END $$});
run_script(join("\n", map { "SELECT raise('$_');" } '', sort values %class));
is(look(q{coalesce(sqlstate_class, ''), errors}, q{query = 'SELECT raise($1)' ORDER BY coalesce(sqlstate_class, '') COLLATE "C"}, 'query_errors'),
	join("\n", map { "$_|1" } sort keys %class), 'errors are counted by class');
is(look('calls, errors, rows', q{query = 'SELECT raise($1)'}), '14|13|1', 'and once');

reset_all();
my $err = run_script(q{
	SELEC 1;
	SELECT * FROM missing;
	EXECUTE missing;
	BEGIN;
	SELECT 1/0;
	SELECT 2;
	ROLLBACK;
});
is(look('calls, errors, rows', 'queryid = 0'), '4|4|0', 'errors outside of the execution are counted under queryid 0');
is(look('class_name, errors', 'queryid = 0 ORDER BY class_name', 'query_errors'),
	"Invalid SQL Statement Name|1\nInvalid Transaction State|1\nSyntax Error or Access Rule Violation|2", 'by class');
is(look('sum(errors)', 'queryid <> 0 AND sqlstate_class = \'22\'', 'query_errors'), '1', 'an error in the planner has its query');
is(look('sum(errors), sum(calls)', 'errors > 0'), '5|5', 'none is counted twice');

reset_all();
run_script(q{
	SELECT id FROM t WHERE id = 3;
	BEGIN READ ONLY;
	DELETE FROM t WHERE id = -1;
	ROLLBACK;
	DELETE FROM t WHERE id = -2;
	DO $$ BEGIN RAISE 'no'; END $$;
	CREATE TABLE t (id int);
	DROP TABLE missing;
	SET ROLE pg_monitor;
	SELECT id FROM t WHERE id = 4;
});
is(look('calls, errors', q{query LIKE 'DELETE%'}), '2|1', 'an error when the executor starts has its query');
is(look('calls, errors, rolname', q{query LIKE 'SELECT id%' ORDER BY errors}), '1|0|' . $node->safe_psql('postgres', 'SELECT current_user'),
	'a role without the privilege has a row of its own');
is(look('sum(errors)', q{rolname = 'pg_monitor' AND sqlstate_class = '42'}, 'query_errors'), '1', '... with the error');
is(look('count(*), sum(errors)', q{sqlstate_class IN ('P0', '42') AND queryid <> 0 AND rolname <> 'pg_monitor'}, 'query_errors'), '3|3',
	'so have utility commands');
is(look('count(*)', 'queryid = 0'), '0', 'nothing is left for queryid 0');

# An error that does not reach the server log
reset_all();
run_script('SELEC 1; SELECT 1/0', log_min_messages => 'fatal');
run_script('SELECT 1/0', log_min_messages => 'fatal');
is(look('queryid = 0, errors', 'errors > 0'), 'f|2', 'errors in a query need no log');

# Nesting
my $script = 'SELECT nested(1) FROM generate_series(1, 3); SELECT caught();';
reset_all();
run_script($script);
is(look('calls, errors', q{query LIKE '%count(*)%'}), '', 'track = top leaves out nested statements');
is(look('calls, errors', q{query LIKE '%caught()%'}), '1|0', 'a caught error is none of its caller');
reset_all();
run_script($script, 'perfopt.track' => 'all', 'pg_stat_statements.track' => 'all');
is(look('calls, errors, rows', q{query LIKE '%count(*)%'}), '3|0|3', 'track = all measures them');
is(look('sum(errors)', q{true}), '1', 'and an error that was caught further out');
reset_all();
run_script("$script SELEC 1; SELECT 1/0", 'perfopt.track' => 'none');
is(look('count(*)', 'true'), '0', 'track = none measures nothing');
# track_utility = off: neither the commands nor what is nested in them.  (Each
# statement by itself: one with an error ends a multi-statement string.)
reset_all();
run_script("DO \$\$ BEGIN PERFORM nested(1); END \$\$;\nCREATE TABLE u ();\nDROP TABLE missing;\nSELECT 1;\n", 'perfopt.track_utility' => 'off');
is(look('count(*), sum(calls)', 'true'), '1|1', 'track_utility = off leaves out utility commands and what they run');

# Portals fetched in pieces, EXPLAIN, parallel query
reset_all();
run_script(q{
	EXPLAIN SELECT v FROM t WHERE v = 1;
	EXPLAIN (ANALYZE, BUFFERS) SELECT v FROM t WHERE v = 1;
	SET min_parallel_table_scan_size = 0;
	SET parallel_setup_cost = 0;
	SET parallel_tuple_cost = 0;
	SELECT count(*) FROM t WHERE v + 1 > 0;
}, 'perfopt.track' => 'all');
is(look('calls', q{query LIKE 'SELECT count(*) FROM t%'}), '1', 'a parallel query is one call');
is(look('sum(calls)', q{query IS NULL}), '1', 'EXPLAIN ran nothing, EXPLAIN ANALYZE one query');

# A cursor WITH HOLD runs to its end at the commit, and is fetched from later;
# one that is never closed counts too, when it is gone.
reset_all();
run_script(q{
	BEGIN;
	DECLARE held CURSOR WITH HOLD FOR SELECT id AS held FROM t ORDER BY id;
	FETCH 5 FROM held;
	COMMIT;
	FETCH 10 FROM held;
	CLOSE held;
	BEGIN;
	DECLARE left_open CURSOR FOR SELECT v AS left_open FROM t ORDER BY v;
	FETCH 3 FROM left_open;
	COMMIT;
	BEGIN;
	DECLARE undone CURSOR FOR SELECT v AS undone FROM t ORDER BY v;
	FETCH 3 FROM undone;
	ROLLBACK;
}, 'perfopt.track' => 'all', 'pg_stat_statements.track' => 'all');
# since PostgreSQL 18 what the cursor runs has a text, too
is(look('DISTINCT calls, errors', q{query LIKE 'DECLARE held%'}), '1|0', 'a cursor is declared once, and runs once');
is(look('sum(calls), sum(rows), sum(errors)', q{query LIKE 'FETCH%'}), '4|21|0', 'each FETCH is a call, with its rows');
is(look('count(*)', q{errors > 0}), '0', 'none of it has failed');

# Nested statements in a parallel worker's share are not counted, only by the leader
reset_all();
$node->safe_psql('postgres', q{
	CREATE FUNCTION safe(n int) RETURNS int LANGUAGE plpgsql PARALLEL SAFE AS $$
		BEGIN RETURN n + (SELECT count(*) AS inner_one FROM t WHERE id = n); END $$});
run_script(q{
	SET min_parallel_table_scan_size = 0;
	SET parallel_setup_cost = 0;
	SET parallel_tuple_cost = 0;
	SET parallel_leader_participation = off;
	SELECT count(safe(id)) FROM t;
}, 'perfopt.track' => 'all', 'pg_stat_statements.track' => 'all');
is(look('calls, rows', q{query LIKE 'SELECT count(safe%'}), '1|1', 'a parallel query with functions in its workers is one call');

# A driver's BEGIN and COMMIT are prepared statements
my $pgbench = "$PostgreSQL::Test::Utils::tmp_check/prepared_$$.sql";
append_to_file($pgbench, "BEGIN;\nSELECT v FROM t WHERE id = 17;\nCOMMIT;\n");
reset_all();
$node->command_ok([ 'pgbench', '-n', '-M', 'prepared', '-t', '10', '-f', $pgbench, $node->connstr('postgres') ], 'pgbench');
is(look('query, calls, errors', q{query IN ('BEGIN', 'COMMIT') ORDER BY 1}), "BEGIN|10|0\nCOMMIT|10|0",
	'each execution of a prepared utility command counts');
is(look('calls, rows', q{query LIKE 'SELECT v FROM t WHERE id%'}), '10|10', 'and each of a prepared query');

# A terminated session
reset_all();
my $sleeper = $node->background_psql('postgres', on_error_stop => 0);
$sleeper->{stdin} .= "SELECT pg_sleep(1000);\n";
$sleeper->{run}->pump_nb;
$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE wait_event = 'PgSleep'});
is(look('count(*), sum(errors)', q{sqlstate_class = '57' AND queryid <> 0}, 'query_errors'), '1|1', 'a terminated session leaves its error under its query');
eval { $sleeper->{run}->kill_kill; };

# A dropped database takes its rows along
$node->safe_psql('postgres', 'CREATE DATABASE gone');
$node->safe_psql('gone', 'SELECT 1');
is(look('count(*) > 0', q{datname = 'gone'}), 't', 'a database has rows');
$node->safe_psql('postgres', 'DROP DATABASE gone');
is(look('count(*)', q{datname IS NULL}), '0', 'until it is dropped');

# pg_stat_statements counts as it would alone, in either order
foreach my $order ('pg_stat_statements, perfopt', 'perfopt, pg_stat_statements')
{
	my $wrong = $order =~ /^perfopt/;
	$node->append_conf('postgresql.conf', "shared_preload_libraries = '$order'");
	my $log = -s $node->logfile;
	$node->restart;
	reset_all();
	run_script("SELECT sum(v) FROM t WHERE v > 5;\nSELECT sum(v) FROM t WHERE v > 6;\nCREATE TABLE w ();\nDROP TABLE w;\n");
	is(look(q{s.calls, s.rows, s.shared_blks_hit + s.shared_blks_read > 5, s.total_exec_time > 0, abs(l.total_ms - s.total_exec_time) < 1e-3},
			q{s.query LIKE 'SELECT sum%'}, q{query_latency l JOIN pg_stat_statements s USING (queryid)}), '2|2|t|t|t',
		"$order: pg_stat_statements has all its numbers, and the same time");
	is($node->safe_psql('postgres', q{SELECT sum(calls) FROM pg_stat_statements WHERE query LIKE '%TABLE w%'}), '2',
		"$order: ... and the utility commands");
	is(look('sum(calls)', $wrong ? 'queryid = 0' : q{query LIKE '%TABLE w%'}), '2', "$order: we have them too");
	my $hint = slurp_file($node->logfile, $log) =~ /perfopt is loaded before pg_stat_statements/ ? 1 : 0;
	is($hint, $wrong ? 1 : 0, "$order: the log " . ($wrong ? 'has the hint' : 'is quiet'));
}

# A full table, with nested statements: nothing is lost
$node->append_conf('postgresql.conf', "perfopt.max_queries = 100");
$node->restart;
reset_all();
$node->safe_psql('postgres', q{CREATE FUNCTION many() RETURNS void LANGUAGE plpgsql AS $$
	BEGIN FOR i IN 1 .. 150 LOOP EXECUTE 'SELECT 1' || repeat(', 1', i); END LOOP; END $$});
reset_all();
run_script("SELECT many();\nSELECT many();\nSELECT many();\nSELECT pg_sleep(0) FROM missing;\n", 'perfopt.track' => 'all');
# many() plans an expression for the loop's bounds and strings too, without running an executor
is(look('sum(calls) - 3 - 1, sum(errors), max(rows_used) = max(rows_max), max(i.dropped) > 0', 'true', 'latency() l, perfopt.latency_info() i'),
	'450|1|t|t', 'all nested calls are counted when there is no room for their queries');

# Without query identifiers, all is counted in one row
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_stat_statements, perfopt'\ncompute_query_id = off");
$node->restart;
reset_all();
run_script("SELECT 1;\nSELECT nested(1);\nCREATE TABLE w ();\nSELEC;\n");
is(look('queryid, query, calls, errors', 'true'), '0|<no query identifier>|4|1', 'compute_query_id = off leaves one row');

$node->stop;
done_testing();
