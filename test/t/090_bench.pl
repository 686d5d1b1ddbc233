# benchmark() and compare() where a test in one session cannot see it: without
# the library preloaded, on a standby, cancelled, for many runs, and how often
# compare() finds a difference where there is none.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $root = $ENV{PERFOPT_ROOT} || '.';
my $primary = PostgreSQL::Test::Cluster->new('measured');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$primary->append_conf('postgresql.conf', "autovacuum = off\nperfopt.sample_interval = 0\nperfopt.advice_interval = 0");
$primary->start;
$primary->safe_psql('postgres', q{CREATE EXTENSION perfopt CASCADE;
	CREATE TABLE items (id int PRIMARY KEY, n int);
	INSERT INTO items SELECT i, i FROM generate_series(1, 10000) i;
	VACUUM ANALYZE items});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('measured_standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

sub sql { my ($sql) = @_; return $primary->safe_psql('postgres', $sql); }

# A standby
is($standby->safe_psql('postgres', q{SELECT iterations, rows FROM perfopt.benchmark('SELECT * FROM items WHERE id < $1', ROW(11), 10)}), '100|10',
	'on a standby a query is measured');
is($standby->safe_psql('postgres', q{SELECT same_rows, rounds FROM perfopt.compare('SELECT 1', 'SELECT 1', iterations => 2)}), 't|10', 'compared');
is($standby->safe_psql('postgres', q{SELECT sum(share) FROM perfopt.profile('SELECT count(*) FROM items')}), '100.0', 'and profiled');
my ($code, $out, $err) = $standby->psql('postgres', q{SELECT perfopt.benchmark('UPDATE items SET n = 1')});
like($err, qr/cannot execute UPDATE in a read-only transaction/, 'and nothing else');
$standby->stop;

# Transaction IDs are taken by what writes, and by nothing else.
my $next = q{SELECT pg_snapshot_xmax(pg_current_snapshot())};
my $xid = sql($next);
sql(q{SELECT perfopt.benchmark('SELECT * FROM items WHERE id = 1', iterations => 10)});
is(sql($next), $xid, 'reading takes no transaction ID');
sql(q{SELECT perfopt.benchmark('UPDATE items SET n = 1 WHERE id = 1', iterations => 10, repeat => 2, warmup => 5)});
is(sql($next), $xid + 26, 'writing takes one for each run, and one around them');

# Cancelled, and out of time
($code, $out, $err) = $primary->psql('postgres', q{SET statement_timeout = '300 ms'; SELECT perfopt.benchmark('SELECT pg_sleep(0.02)')});
like($err, qr/canceling statement due to statement timeout\nCONTEXT:.*run \d+ of perfopt\.benchmark\(\)/, 'statement_timeout ends it');
($code, $out, $err) = $primary->psql('postgres', q{SET statement_timeout = '300 ms'; SELECT perfopt.benchmark('SELECT 1', iterations => 1000000)});
like($err, qr/canceling statement due to statement timeout/, 'between short runs as well');
my $session = $primary->background_psql('postgres', on_error_stop => 0);
my $pid = $session->query_safe('SELECT pg_backend_pid()');
$session->query_until(qr/begun/, "\\echo begun\nSELECT perfopt.compare('SELECT pg_sleep(0.01)', 'SELECT pg_sleep(0.01)', max_time => '1 h', iterations => 100000, check_rows => false);\n");
$primary->poll_query_until('postgres', "SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = $pid") or die 'it does not run';
sql("SELECT pg_cancel_backend($pid)");
$primary->poll_query_until('postgres', "SELECT state = 'idle' FROM pg_stat_activity WHERE pid = $pid") or die 'it runs on';
is(scalar $session->query(q{SELECT 'alive'}), 'alive', 'cancelled, the session goes on');
$session->quit;
# also while millions of times are sorted
sql(q{CREATE FUNCTION statistics(float8[], float8[]) RETURNS float8[] LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_bench_statistics';
	CREATE TABLE times (t float8[]);
	ALTER TABLE times ALTER t SET STORAGE EXTERNAL;
	INSERT INTO times SELECT array_agg(hashint4(i)) FROM generate_series(1, 2000000) i});
my $sort = q{SELECT array_length(statistics(t, '{0.5}'), 1) FROM times};
my $begun = time;
is(sql($sort), 4, 'millions of times');
my $whole = time - $begun;
$begun = time;
($code, $out, $err) = $primary->psql('postgres', sprintf "SET statement_timeout = %d; $sort", $whole * 200);
like($err, qr/canceling statement due to statement timeout/, 'are not sorted to the end');
cmp_ok(time - $begun, '<', $whole * 0.6, 'when that is cancelled');

# Errors leave nothing behind in whoever catches them.
is(sql(q{
	CREATE FUNCTION caught(i int) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE c text;
	BEGIN
		INSERT INTO items VALUES (i, i);
		BEGIN
			PERFORM perfopt.benchmark('INSERT INTO items VALUES (-$1, 1 / (n_zero()))', ROW(i), keep_changes => i % 2 = 0);
		EXCEPTION WHEN division_by_zero THEN
			GET STACKED DIAGNOSTICS c = PG_EXCEPTION_CONTEXT;
			INSERT INTO items VALUES (i + 1, i);
		END;
		RETURN split_part(c, E'\n', 1);
	END$$;
	CREATE FUNCTION n_zero() RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN 0; END';
	SELECT caught(20001), caught(20004);
	SELECT array_agg(id ORDER BY id) FROM items WHERE id NOT BETWEEN 1 AND 10000}),
	"warm-up run 1 of perfopt.benchmark()|warm-up run 1 of perfopt.benchmark()\n{20001,20002,20004,20005}",
	'what an error undoes is its own subtransaction');

# Progress, for who waits long; and no leak over many runs
my $memory = q{SELECT sum(total_bytes) FROM pg_backend_memory_contexts};
my ($before, $after) = split /\n/, sql(qq{
	SELECT FROM perfopt.benchmark('SELECT * FROM items WHERE id = 1', iterations => 1000, repeat => 1) \\g /dev/null
	SELECT FROM perfopt.profile('SELECT * FROM items WHERE id = 1') \\g /dev/null
	$memory;
	SELECT FROM perfopt.benchmark('SELECT * FROM items WHERE id = 1', iterations => 20000, repeat => 10) \\g /dev/null
	DO \$\$ BEGIN FOR i IN 1 .. 300 LOOP PERFORM perfopt.profile('SELECT * FROM items WHERE id = 1'); END LOOP; END \$\$;
	$memory});
cmp_ok($after - $before, '<', 200_000, "200,000 runs and 300 profiles leave no memory behind: $before, $after bytes");
# memory while it runs, written down by what no rollback undoes
my $rise = sql(q{
	CREATE FUNCTION used() RETURNS bigint LANGUAGE sql AS 'SELECT sum(total_bytes)::bigint FROM pg_backend_memory_contexts';
	CREATE SEQUENCE run;
	CREATE SEQUENCE early;
	CREATE SEQUENCE late;
	CREATE TABLE seen (n bigint);
	SELECT FROM perfopt.benchmark('INSERT INTO seen SELECT CASE n WHEN 1000 THEN setval(''early'', used()) WHEN 20000 THEN setval(''late'', used()) ELSE n END FROM nextval(''run'') n', iterations => 20000, repeat => 1, warmup => 0);
	SELECT (SELECT last_value FROM late) - (SELECT last_value FROM early)}) =~ s/\s//gr;
ok($rise ne '' && abs($rise) < 600_000, "nor do they hold it while they run, but for their times: $rise bytes");

# No difference where there is none.  The test's level is 5 %, so that 60 calls
# find 3 on average; more than 14 come of one in 100,000 machines.  Where things
# lie in memory may be worth a percent or two to one of them in a whole session.
my ($found, $all, $large) = split /\|/, sql(q{
	SELECT count(*) FILTER (WHERE significant AND abs(improvement_percent) > 5), count(*), count(*) FILTER (WHERE significant AND abs(improvement_percent) > 20)
	FROM generate_series(1, 60) i, LATERAL perfopt.compare('SELECT * FROM items WHERE id = $1', 'SELECT * FROM items WHERE id = $1',
		ROW(i), iterations => 40, check_rows => false)});
cmp_ok($found, '<=', 14, "of $all comparisons of a query with itself, $found find one of more than 5 %");
is($large, 0, 'a large one never');
# One that is there: four times the rows
my $seen = sql(q{
	SELECT count(*) FROM generate_series(1, 10) i, LATERAL perfopt.compare('SELECT sum(n) FROM items WHERE id < 1000', 'SELECT sum(n) FROM items WHERE id < 4000',
		iterations => 10 + 0 * i, check_rows => false) WHERE faster = 'a' AND improvement_percent < -100});
cmp_ok($seen, '>=', 9, "of 10 comparisons with four times the work, $seen find it");

# Without the library preloaded
$primary->append_conf('postgresql.conf', "shared_preload_libraries = 'pg_stat_statements'");
$primary->restart;
is(sql(q{SELECT rows FROM perfopt.benchmark('SELECT * FROM items WHERE id = 7', iterations => 3)}), '1', 'it works without shared_preload_libraries');
is(sql(q{SELECT sum(share) FROM perfopt.profile('SELECT count(*) FROM items')}), '100.0', 'all of it');

$primary->stop;
done_testing();
