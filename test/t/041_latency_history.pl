# Nothing is lost and nothing counted twice: a full table under concurrent
# clients, samples taken meanwhile, samples that fail, and standbys.
use strict;
use warnings;
use File::Basename qw(dirname);
use IPC::Run qw(start finish);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || dirname(__FILE__) . '/../..';
my $conf = slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf");
my $tmp = $PostgreSQL::Test::Utils::tmp_check;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', $conf . q{
perfopt.max_queries = 100
perfopt.sample_interval = 0
autovacuum = off
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE; CREATE ROLE client LOGIN;');
$node->safe_psql('postgres', slurp_file("$root/test/tools/stop_points.sql"));

# A look at things that is not seen itself
sub look
{
	my ($sql, $db) = @_;
	local $ENV{PGOPTIONS} = '-c perfopt.track=none';
	return $node->safe_psql($db || 'postgres', $sql);
}

look('SELECT perfopt.sample_now()');
look('SELECT perfopt.reset_latency()');
look('TRUNCATE perfopt.latency_history');

# 300 queries, 4 clients, 100 rows, and samples all the while.  (Every query
# has a different number of columns, so it has an identifier of its own.)
my $queries = 300;
my $rounds = 3;
my @clients;
foreach my $c (1 .. 4)
{
	my $file = "$tmp/many_$c.sql";
	# all of them, but from another end
	my @n = map { 1 + ($_ + $c * 70) % $queries } 0 .. $queries - 1;
	open my $out, '>', $file or die $!;
	print $out 'SELECT ', join(',', (1) x $_), ";\nSELECT 0 AS hot;\n" foreach @n;
	close $out;
	push @clients, start([ 'pgbench', '-n', '-U', 'client', '-t', $rounds, '-f', $file, $node->connstr('postgres') ], '>', \my $o, '2>', \my $e);
}
my $samples = 0;
while (grep { $_->pumpable } @clients)
{
	look('SELECT perfopt.sample_now()');
	$samples++;
	$_->pump_nb foreach grep { $_->pumpable } @clients;
}
finish $_ foreach @clients;
is(scalar(grep { $_->result(0) } @clients), 0, 'pgbench is content');

my $expected = 4 * $rounds * $queries * 2;
my $database = q{(SELECT oid FROM pg_database WHERE datname = 'postgres')};
is(look("SELECT sum(calls), sum(rows), sum(errors) FROM perfopt.latency() WHERE dbid = $database"), "$expected|$expected|0",
	'the table has room for a third of the queries, and counts all calls');
is(look('SELECT rows_used, rows_max, dropped > 200 FROM perfopt.latency_info()'), '100|100|t', 'it is full');
is(look("SELECT dropped > 200, calls > 0 FROM perfopt.latency() WHERE dbid = $database AND userid = 0"), 't|t',
	'what had no room is in the row of others');
is(look(q{SELECT query, rolname FROM perfopt.query_latency WHERE query LIKE '<other%' AND datname = 'postgres'}), '<other queries>|',
	'which is shown as such');
is(look("SELECT count(*) FROM perfopt.latency(true), perfopt.histogram_buckets(histogram) b GROUP BY dbid, userid, queryid, latency.calls HAVING sum(b.calls) <> latency.calls"), '',
	'every histogram has as many calls as its row');
look('SELECT perfopt.sample_now()');
is(look('SELECT sum(calls), sum(rows), count(DISTINCT sampled_at) > 1 FROM perfopt.latency_history'), "$expected|$expected|t",
	"$samples samples meanwhile add up to the same");
is(look('SELECT count(*) FROM perfopt.latency_history h WHERE calls <> (SELECT sum(b.calls) FROM perfopt.histogram_buckets(h.histogram) b)
	OR NOT (p50_ms <= p95_ms AND p95_ms <= p99_ms AND p99_ms <= max_ms AND total_ms <= calls * max_ms AND interval_ms > 0)'), '0',
	'each has its histogram and its times');

# Rows of dropped roles are displaced like others; the rest stays
is(look(q{SELECT count(*) > 0 FROM perfopt.query_latency WHERE rolname = 'client' AND query IS NOT NULL}), 't', 'rows have texts');

# Intervals end where the next begins
look('SELECT perfopt.reset_latency()');
$node->safe_psql('postgres', 'SELECT 1');
look('SELECT perfopt.sample_now()');
$node->safe_psql('postgres', 'SELECT 1; SELECT pg_sleep(0.05);');
look('SELECT perfopt.sample_now()');
is(look(q{SELECT abs(interval_ms - extract(epoch FROM sampled_at - before) * 1000) < 20
	FROM (SELECT DISTINCT interval_ms, sampled_at, lag(sampled_at) OVER (ORDER BY sampled_at) AS before
		FROM (SELECT DISTINCT interval_ms, sampled_at FROM perfopt.latency_history) s) s ORDER BY sampled_at DESC LIMIT 1}), 't',
	'interval_ms is the time between samples');

# A sample that fails is written later, with what was in it
look('SELECT perfopt.reset_latency(); TRUNCATE perfopt.latency_history');
$node->safe_psql('postgres', 'SELECT 1') for 1 .. 3;
look(q{SELECT stop_point_set('monitor_sample_written', 'error')});
my ($rc, $out, $err) = $node->psql('postgres', 'SET perfopt.track = none; SELECT perfopt.sample_now()');
is($rc, 3, 'sample_now() says that the sample failed');
look(q{SELECT stop_point_clear('monitor_sample_written')});
is(look('SELECT count(*) FROM perfopt.latency_history'), '0', 'nothing was written');
$node->safe_psql('postgres', 'SELECT 1') for 1 .. 2;
look('SELECT perfopt.sample_now()');
is(look(q{SELECT string_agg(calls::text, ',' ORDER BY id) FROM perfopt.latency_history WHERE queryid IN
	(SELECT queryid FROM perfopt.query_latency WHERE query = 'SELECT $1')}), '3,2', 'the next one writes both');

# A run that fails when its sample has been committed already
look('TRUNCATE perfopt.latency_history');
$node->safe_psql('postgres', 'SELECT 1') for 1 .. 4;
look(q{SELECT stop_point_set('monitor_sample_committed', 'error')});
($rc, $out, $err) = $node->psql('postgres', 'SET perfopt.track = none; SELECT perfopt.sample_now()');
is($rc, 3, 'a sample fails after its commit');
look(q{SELECT stop_point_clear('monitor_sample_committed')});
look('SELECT perfopt.sample_now()');
is(look(q{SELECT string_agg(calls::text, ',' ORDER BY id) FROM perfopt.latency_history WHERE queryid IN
	(SELECT queryid FROM perfopt.query_latency WHERE query = 'SELECT $1')}), '4', 'and is not written twice');

# Retention, in time and in rows
look(q{INSERT INTO perfopt.latency_history (sampled_at, interval_ms, role, queryid, calls, errors, rows, total_ms, max_ms, p50_ms, p95_ms, p99_ms, histogram)
	SELECT now() - i * interval '1 hour', 10000, 10, i, 1, 0, 1, 1, 1, 1, 1, 1, '{80,1}' FROM generate_series(200, 1, -1) i});
look('SELECT perfopt.sample_now()');
is(look(q{SELECT max(queryid) FROM perfopt.latency_history WHERE max_ms = 1}), '167', 'history is kept for a week');
look(q{INSERT INTO perfopt.latency_history (sampled_at, interval_ms, role, queryid, calls, errors, rows, total_ms, max_ms, p50_ms, p95_ms, p99_ms, histogram)
	SELECT now(), 10000, 10, i, 1, 0, 1, 1, 1, 1, 1, 1, '{80,1}' FROM generate_series(1, 1500) i});
$node->append_conf('postgresql.conf', 'perfopt.history_max_rows = 1000');
$node->reload;
my $kept = 0;
for (1 .. 100)
{
	# the worker need not have seen the new setting yet
	look('SELECT perfopt.sample_now()');
	$kept = look('SELECT count(*) FROM perfopt.latency_history');
	last if $kept <= 1000;
}
ok($kept <= 1000 && $kept > 900, "and bounded in rows ($kept)");

# A standby keeps what it measures in memory
$node->safe_psql('postgres', 'SELECT 1');
look('SELECT perfopt.sample_now()');
my $rows = look('SELECT count(*) FROM perfopt.latency_history');
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'perfopt.sample_interval = 100');
$standby->start;
$standby->safe_psql('postgres', 'SELECT 1 AS on_standby') for 1 .. 5;
is($standby->safe_psql('postgres', q{SELECT sum(calls) FROM perfopt.latency() WHERE calls = 5}), '5', 'a standby measures');
($rc, $out, $err) = $standby->psql('postgres', 'SELECT perfopt.sample_now()');
isnt($rc, 0, 'but writes no samples');
is($standby->safe_psql('postgres', 'SELECT count(*) FROM perfopt.latency_history'), $rows, 'only those of its primary are there');
$node->stop;
$standby->promote;
ok($standby->poll_query_until('postgres', 'SELECT count(*) = 1 FROM perfopt.latency_history WHERE calls = 5 AND rows = 5'),
	'once promoted, it writes them from the beginning');
$standby->stop;

done_testing();
