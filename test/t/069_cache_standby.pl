# The cache on a hot standby, before and after it is promoted.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$primary->append_conf('postgresql.conf', "perfopt.sample_interval = 0\nperfopt.advice_interval = 0");
$primary->start;
$primary->safe_psql('postgres', q{CREATE EXTENSION perfopt CASCADE;
	CREATE TABLE items (id int PRIMARY KEY, n int);
	INSERT INTO items SELECT i, 1 FROM generate_series(1, 100) i;
	CREATE TABLE untracked (n int);
	CREATE FUNCTION total() RETURNS bigint STABLE LANGUAGE sql AS 'SELECT sum(n) FROM items';
	SELECT perfopt.cache_track('items');
	SELECT perfopt.memoize('total()')});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

my $total = q{SELECT perfopt.cached_json('SELECT sum(n) FROM items')};

sub on_standby { my ($sql) = @_; return $standby->safe_psql('postgres', $sql); }

is(on_standby($total), '[{"sum": 100}]', 'a query is answered');
is(on_standby('SELECT total()'), '100', 'a memoized function, too');
is(on_standby(q{SELECT perfopt.cached_json('SELECT count(*) FROM untracked')}), '[{"count": 0}]', 'of a table without the trigger, too');
is(on_standby(q{SELECT perfopt.cache_get('key') IS NULL}), 't', 'there are no values under keys');
is(on_standby(q{SELECT perfopt.cache_set('key', '1'), perfopt.cache_get('key') IS NULL}), '|t', 'and setting one does nothing');
like(on_standby('SELECT bypasses_by_reason FROM perfopt.cache_stats'), qr/"recovery": [1-9]/, 'it goes past the cache, and says so');
$primary->safe_psql('postgres', 'UPDATE items SET n = 2');
$primary->wait_for_catchup($standby);
is(on_standby($total), '[{"sum": 200}]', 'what was replayed is seen');
is(on_standby('SELECT entries FROM perfopt.cache_stats'), '0', 'nothing is kept');

$primary->stop;
$standby->promote;
on_standby('INSERT INTO items VALUES (101, 1)');
is(on_standby("$total; $total"), qq([{"sum": 201}]\n[{"sum": 201}]), 'promoted: right');
cmp_ok(on_standby('SELECT hits FROM perfopt.cache_stats'), '>', 0, 'and kept');
on_standby('UPDATE items SET n = 3');
is(on_standby("$total; SELECT total()"), qq([{"sum": 303}]\n303), 'until the table is written');

done_testing();
