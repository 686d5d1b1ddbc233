# Look-ups without shared_preload_libraries, on a standby, on foreign tables,
# and in sessions whose tables others change.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 1);
$primary->start;
$primary->safe_psql('postgres', q{
	SET client_min_messages = error;
	CREATE EXTENSION perfopt CASCADE;
	CREATE TABLE users (id bigint PRIMARY KEY, name text);
	CREATE TABLE orders (id int PRIMARY KEY, user_id bigint REFERENCES users, total int);
	CREATE INDEX ON orders (user_id);
	INSERT INTO users SELECT i, 'u' || i FROM generate_series(1, 20) i;
	INSERT INTO orders SELECT i, 1 + i % 10, i FROM generate_series(1, 100) i});
my $all = q{
	SELECT string_agg(coalesce(name, '-'), ',') FROM perfopt.fetch_many(NULL::users, ARRAY[3, 99, 1]);
	SELECT string_agg(x::text, ' ') FROM perfopt.lookup_aggregates_json('users', ARRAY[3, 99], 'orders', '{count(*),sum(total)}') x;
	SELECT string_agg(x::text, ' ') FROM perfopt.lookup_children_json('users', ARRAY[3, 99], 'orders', '{id}', 'id DESC', 2) x};
my $expected = "u3,-,u1\n" . '{"id": 3, "sum": 470, "count": 10} {"id": 99, "sum": null, "count": 0}' . "\n" . '[{"id": 92}, {"id": 82}] []';
is($primary->safe_psql('postgres', $all), $expected, 'not preloaded');

$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $all), $expected, 'on a standby');

# A session keeps its statements: what others change in between is seen.
my $one = $standby->background_psql('postgres');
is($one->query(q{SELECT x::text FROM perfopt.lookup_aggregates_json('users', ARRAY[3], 'orders', '{sum(total)}') x}), '{"id": 3, "sum": 470}', 'a session on the standby');
$primary->safe_psql('postgres', 'ALTER TABLE orders ALTER total TYPE numeric USING total + 0.5');
$primary->wait_for_catchup($standby);
is($one->query(q{SELECT x::text FROM perfopt.lookup_aggregates_json('users', ARRAY[3], 'orders', '{sum(total)}') x}), '{"id": 3, "sum": 475.0}', 'sees a column that changed');
$primary->safe_psql('postgres', 'ALTER TABLE orders RENAME user_id TO customer');
$primary->wait_for_catchup($standby);
is($one->query(q{SELECT x::text FROM perfopt.lookup_aggregates_json('users', ARRAY[3], 'orders', '{sum(total)}') x}), '{"id": 3, "sum": 475.0}', 'and one that was renamed');
$one->quit;
$standby->stop;

SKIP:
{
	my ($host, $port) = ($primary->host, $primary->port);
	my ($code) = $primary->psql('postgres', 'CREATE EXTENSION postgres_fdw');
	skip 'no postgres_fdw', 3 if $code;
	$primary->safe_psql('postgres', qq{
		CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
		CREATE USER MAPPING FOR CURRENT_USER SERVER here;
		CREATE FOREIGN TABLE far (id int, customer bigint, total numeric) SERVER here OPTIONS (table_name 'orders')});
	is($primary->safe_psql('postgres', q{SELECT string_agg(coalesce(total::text, '-'), ',') FROM perfopt.fetch_many(NULL::far, ARRAY[7, 999, 5], '{id}')}),
		'7.5,-,5.5', 'rows of a foreign table');
	is($primary->safe_psql('postgres', q{SELECT string_agg(x::text, ' ') FROM perfopt.lookup_aggregates_json('users', ARRAY[3, 99], 'far', '{count(*),sum(total)}', child_key => '{customer}') x}),
		'{"id": 3, "sum": 475.0, "count": 10} {"id": 99, "sum": null, "count": 0}', 'aggregates');
	is($primary->safe_psql('postgres', q{SELECT string_agg(x::text, ' ') FROM perfopt.lookup_children_json('users', ARRAY(SELECT 3 + i FROM generate_series(0, 300) i), 'far', '{id}', 'id DESC', 1, child_key => '{customer}') x
		WHERE x <> '[]'}), '[{"id": 92}] [{"id": 93}] [{"id": 94}] [{"id": 95}] [{"id": 96}] [{"id": 97}] [{"id": 98}] [{"id": 99}]', 'children, many keys');
}
$primary->stop;
done_testing();
