# The advisor on an application's workload: every index it needs is advised, and
# none that it does not.  The short form of test/bench/advisor_oltp.pl.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
require "$root/test/bench/lib/Oltp.pm";
my $users = 7000;	# no table has more rows than ANALYZE looks at

my $node = PostgreSQL::Test::Cluster->new('oltp_set');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nperfopt.advice_min_share = 0.0002\nautovacuum = off\n");
$node->start;
# one session, for transactions; an answer's first column
my $session = $node->background_psql('postgres', on_error_die => 1);
my $sql = sub { my ($statement) = @_; return split /\n/, $session->query_safe($statement) };

$sql->('SET client_min_messages = warning');
$sql->('CREATE EXTENSION perfopt CASCADE');
$sql->(Oltp::oltp_schema($users));
$sql->('VACUUM ANALYZE');
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM perfopt.workers WHERE datname = 'postgres' AND pid IS NOT NULL})
  or die 'no worker';

# Statements of so many milliseconds each, so many minutes later; their parameters
# are skewed, and the same each time.
my $dir = $node->basedir;
my $minutes = 0;
sub run
{
	my ($times, $seed, $ms, @scripts) = @_;
	local $ENV{PGOPTIONS} = "-c perfopt_test.statement_ms=$ms -c perfopt_test.minutes=$minutes";
	my @files;
	for my $script (@scripts)
	{
		append_to_file("$dir/$script->[0].sql", $script->[1]) unless -e "$dir/$script->[0].sql";
		push @files, '-f', "$dir/$script->[0].sql";
	}
	$node->command_ok([ 'pgbench', '-n', '-M', 'extended', '-c', 1, '-t', $times * @scripts, '--random-seed', $seed, @files, 'postgres' ],
		"a workload of $times runs each of " . @scripts . ' statements');
}
my @needs = Oltp::oltp_needs($users);
my @controls = Oltp::oltp_controls($users);
# what was there when it was first looked at is not held against an index, once it is known
$sql->('SELECT pg_stat_force_next_flush()');
$sql->('SELECT perfopt.analyze_now()');
$sql->('SELECT perfopt.reset_latency()');
run(4, 1, 2, @needs);
$sql->('SELECT perfopt.analyze_now()');
is(join("\n", $sql->(q{SELECT ddl FROM perfopt.advice WHERE status = 'open' AND ddl LIKE '% WHERE %=%'})), '', 'a constant of one burst makes no index partial');
# each has a sample of another minute
for (1, 2) { $minutes = $_; run(4, $_ + 1, 2, @needs); }
run(12, 2, 1, @controls);
run(300, 3, 0.1, Oltp::oltp_writes($users));
my ($hit) = grep { $_->[0] eq 'hit' } Oltp::oltp_writes($users);
run(15000, 4, 0.1, $hit);
run(25, 5, 1, Oltp::oltp_rare());
$sql->('SELECT perfopt.analyze_now()');

my @advised = $sql->(q{SELECT ddl FROM perfopt.advice WHERE kind IN ('create_index', 'index_foreign_key') AND status = 'open' ORDER BY id});
note("advised: $_") for @advised;
my $judged = Oltp::oltp_judge($sql, $users, \@advised);
for my $need (map { $_->[0] } @needs)
{
	my ($before, $with, $reference) = @{ $judged->{costs}{$need} };
	ok((grep { $_ eq $need } @{ $judged->{found} }), "needed and found: $need")
	  or diag("cost $before before, $with with what is advised, $reference with an index made for it");
}
like(join("\n", @advised), qr/ WHERE \(status = 'pending'/, 'a constant that is the same in each of three minutes does');
is(join("\n", @{ $judged->{false} }), '', 'none is advised that helps no statement');
unlike(join("\n", @advised), qr/ON public\.(counters|countries|tenants) /, 'none on a small table, nor on one that is written all the time');
$session->quit;
$node->stop;
done_testing;
