# The oracle for a short while (make oracle runs it for a long one), and then
# with the cache's check weakened: it has to notice.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use JSON::PP;

my $root;
BEGIN { $root = $ENV{PERFOPT_ROOT} || '.'; }
use lib "$root/test/oracle";
use Oracle;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->start;
$ENV{PGHOST} = $node->host;
$ENV{PGPORT} = $node->port;

# The oracle in a database of its own
sub oracle
{
	my ($database, %option) = @_;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION perfopt CASCADE');
	$ENV{PGDATABASE} = $database;
	my $oracle = Oracle->new(scratch => PostgreSQL::Test::Utils::tempdir(), rate => 1, %option)->setup;
	my $before = $oracle->stats;
	for my $round (1 .. 2)
	{
		$oracle->run($option{weaken} ? 3 : 6);
		last if $option{weaken} && @{ $oracle->{mismatches} };
	}
	my $after = $oracle->stats;
	$oracle->{$_} = $after->{$_} - $before->{$_} for keys %$after;
	note sprintf '%d checks; %d hits, %d misses, %d bypasses; %d mismatches', $oracle->{checks},
	  @$oracle{qw(hits misses bypasses)}, scalar @{ $oracle->{mismatches} };
	return $oracle;
}

my $exact = oracle('exact');
is(scalar @{ $exact->{mismatches} }, 0, 'no answer differs from the one without the cache')
  or diag(JSON::PP->new->canonical->pretty->encode([ grep { defined } @{ $exact->{mismatches} }[ 0 .. 4 ] ]));
is_deeply([ sort keys %{ $exact->{unexpected} || {} } ], [], 'and nothing fails that should not');
cmp_ok($exact->{checks}, '>', 5000, 'many were compared');
cmp_ok($exact->{hits} / ($exact->{hits} + $exact->{misses} + $exact->{bypasses} || 1), '>', 0.5, 'more than half were hits');
is($node->safe_psql('exact', 'SELECT count(*) FROM pg_prepared_xacts'), 0, 'no transaction is left prepared');

my $weak = oracle('weak', weaken => 1);
cmp_ok(scalar @{ $weak->{mismatches} }, '>', 0, 'with a weaker check, it notices');

is($node->safe_psql('postgres', 'SELECT 1'), 1, 'the server is up');
unlike(slurp_file($node->logfile), qr/PANIC|TRAP|was terminated by signal/, 'and has never been down');
$node->stop;
done_testing();
