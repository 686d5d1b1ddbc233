# Batched inserts into foreign tables, whose wrapper sends rows in batches of its
# own: an error comes later than its row, and still the right row is rejected.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('batch_foreign');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->start;
my ($host, $port) = ($node->host, $node->port);
my ($code, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION postgres_fdw');
plan skip_all => 'no postgres_fdw' if $code;
$node->safe_psql('postgres', qq{
	CREATE EXTENSION perfopt CASCADE;
	CREATE SERVER here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'postgres');
	CREATE USER MAPPING FOR CURRENT_USER SERVER here;
	CREATE TABLE far (id int PRIMARY KEY, a int CHECK (a > 0));
	CREATE FOREIGN TABLE near (id int, a int) SERVER here OPTIONS (table_name 'far', batch_size '10');
	CREATE TABLE parted (id int, a int) PARTITION BY RANGE (id);
	CREATE TABLE parted_here PARTITION OF parted FOR VALUES FROM (0) TO (1000);
	CREATE FOREIGN TABLE parted_far PARTITION OF parted FOR VALUES FROM (1000) TO (2000) SERVER here OPTIONS (table_name 'far', batch_size '10')});

is($node->safe_psql('postgres', q{SELECT path, reason FROM perfopt.batch_insert_path('near')}),
	'statement|an INSERT of the server, as it is not an ordinary table', 'a foreign table');
is($node->safe_psql('postgres', q{SELECT inserted FROM perfopt.batch_insert('near', '{id,a}', ARRAY(SELECT generate_series(1, 25)), ARRAY(SELECT generate_series(1, 25)))}),
	'25', 'is written');
is($node->safe_psql('postgres', 'SELECT count(*), sum(a) FROM far'), '25|325', 'there');
($code, $out, $err) = $node->psql('postgres', q{SELECT perfopt.batch_insert('near', '[{"id":30,"a":1},{"id":31,"a":0}]')});
like($err, qr/violates check constraint "far_a_check"/, 'errors come from there');
is($node->safe_psql('postgres', q{SELECT inserted, rejected FROM perfopt.batch_insert('near', '{id,a}', ARRAY(SELECT generate_series(101, 200)),
	ARRAY(SELECT CASE WHEN i IN (1, 13, 14, 50, 99, 100) THEN -i ELSE i END FROM generate_series(1, 100) i), perfopt.insert_options(on_error => 'skip'))}),
	'94|6', 'bad rows in batches of the wrapper');
is($node->safe_psql('postgres', q{SELECT string_agg(ordinal || ':' || sqlstate, ' ' ORDER BY ordinal) FROM perfopt.rejected_rows}),
	join(' ', map { "$_:23514" } 1, 13, 14, 50, 99, 100), 'exactly those');
is($node->safe_psql('postgres', 'SELECT count(*), count(*) FILTER (WHERE a <> id - 100) FROM far WHERE id > 100'), '94|0', 'the others are in');
is($node->safe_psql('postgres', q{SELECT string_agg(ordinal || action || coalesce(key->>'id', ''), ' ' ORDER BY ordinal)
	FROM perfopt.batch_insert_keys('parted', '{id,a}', '{1,1001,2,1002,3000,1001}'::int[], '{1,2,3,-4,5,6}'::int[], perfopt.insert_options(on_error => 'skip', key_columns => '{id}'))}),
	'1inserted1 2inserted1001 3inserted2 4rejected 5rejected 6rejected', 'a partition that is one');
$node->stop;
done_testing();
