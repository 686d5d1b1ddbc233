# Refresh-ahead: an entry used shortly before its end is computed anew by a
# job, as the same role and with the same settings, and no statement fails
# because that is not possible.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('cache_refresh');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', q{
	CREATE ROLE reader LOGIN;
	CREATE ROLE nologin;
	CREATE TABLE items AS SELECT i AS id FROM generate_series(1, 10) i;
	GRANT SELECT ON items TO reader, nologin});
$node->safe_psql('postgres', q{SELECT perfopt.cached_json('SELECT count(*) FROM items')});

my $long = join(' + ', ('count(*)') x 1000);
my $number = 0;
my $settings = q{SET datestyle = 'German'; SET app.tenant = 'it''s = "one"';};

# The call, and always within refresh_ahead of its end.
sub call
{
	my ($sql, $params) = @_;
	return "SELECT perfopt.cached_json(\$q\$$sql\$q\$, $params, '1 hour', '2 hours')";
}
sub result { return $node->safe_psql('postgres', "$settings $_[0]") }
sub refreshes { return $node->safe_psql('postgres', 'SELECT refreshes FROM perfopt.cache_stats') }
sub no_jobs { return $node->poll_query_until('postgres', 'SELECT count(*) = 0 FROM perfopt.jobs') }

my $sql = q{SELECT count(*) AS n, $1::date AS d, $2 AS t, $3 AS x, current_setting('app.tenant') AS s FROM items};
my $call = call($sql, q{ROW(date '2001-02-03', E'5:a\n''b''', NULL::int)});
my $expected = result($call);
my $filled = $node->safe_psql('postgres', q{SELECT filled_at FROM perfopt.cache_entries WHERE query LIKE '%tenant%'});
is(result($call), $expected, 'a hit');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 AND bool_and(filled_at > '$filled')
	FROM perfopt.cache_entries WHERE query LIKE '%tenant%'"), 'its entry is computed anew, with the same key');
is(result($call), $expected, 'with the same result');
ok(no_jobs(), 'the job is gone');

# As another role
$sql = q{SELECT current_user::text AS u, count(*) AS n FROM items};
$call = 'SET SESSION AUTHORIZATION reader; ' . call($sql, 'NULL');
$expected = result($call);
my $before = refreshes();
is(result($call), $expected, 'another role');
is(refreshes(), $before + 1, 'has its entry refreshed');
ok(no_jobs(), 'by a job that ends');
is(result($call), $expected, 'with the same result');
ok(no_jobs(), 'and ends again');

# No refresh, and no error
for my $case (
	['behind SET ROLE', 'SET ROLE nologin; ' . call('SELECT 1 AS a FROM items', 'NULL')],
	['in a query too long for a job', call("SELECT $long AS a FROM items", 'NULL')])
{
	my ($name, $call) = @$case;
	$expected = result($call);
	$before = refreshes();
	is(result($call), $expected, "$name: the result");
	is(refreshes(), $before, "$name: no refresh");
}
$node->safe_psql('postgres', 'ALTER SYSTEM SET perfopt.worker = off');
$node->reload;
$node->poll_query_until('postgres', q{SELECT current_setting('perfopt.worker') = 'off'});
$call = call('SELECT 2 AS a FROM items', 'NULL');
$expected = result($call);
$before = refreshes();
is(result($call), $expected, 'without workers: the result');
is(refreshes(), $before, 'without workers: no refresh');
$node->stop;
done_testing();
