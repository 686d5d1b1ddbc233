# The part of "advisor" about an application's database (lib/Oltp.pm): which of
# the indexes it needs are advised, by perfopt from the workload it has seen and
# from the statements alone, by pg_qualstats, and by Extend with HypoPG, and
# what perfopt's do to latency and to writes.
#
#   USERS=50000 ROUNDS=4 WRITE_SECONDS=8
use strict;
use warnings;
use Bench;
use Contenders;
use Extend 'extend';
use List::Util qw(sum max);
use Oltp qw(oltp_schema oltp_needs oltp_controls oltp_writes oltp_rare oltp_judge oltp_script);
use Time::HiRes 'time';

my $users = $ENV{USERS} || 50000;
my $rounds = $ENV{ROUNDS} || 4;
my $seconds = $ENV{WRITE_SECONDS} || 8;
my $runs_of_each = 20;
srand(1);
$| = 1;

progress('%s users, and what they have', thousands($users));
my $any = connect_to('postgres');
$any->do("DROP DATABASE IF EXISTS bench_oltp");
$any->do('CREATE DATABASE bench_oltp');
my $db = connect_to('bench_oltp');
$db->do('SET client_min_messages = warning');
$db->do("CREATE EXTENSION $_") for qw(pg_stat_statements perfopt hypopg pg_qualstats);
$db->do(oltp_schema($users));
$db->do('VACUUM ANALYZE');
$db->do('CHECKPOINT');
my $sql = sub {
	my $statement = $db->prepare($_[0], { pg_direct => 1 });
	$statement->execute;
	return $statement->{NUM_OF_FIELDS} ? map { $_->[0] } @{ $statement->fetchall_arrayref } : ();
};

my @needs = oltp_needs($users);
my @controls = oltp_controls($users);
my @writes = oltp_writes($users);
for (@needs, @controls, @writes, oltp_rare()) { Bench::spew("$ENV{SCRATCH}/$_->[0].sql", $_->[1]); }

# pgbench(SCRIPTS, ARGUMENT...): what it says
sub pgbench
{
	my ($scripts, @arguments) = @_;
	# it says which seed it was told, too
	open my $stderr, '>&', \*STDERR or die;
	open STDERR, '>', "$ENV{SCRATCH}/pgbench.err";
	open my $output, '-|', "$ENV{BIN}/pgbench", '-n', @arguments, (map { ('-f', "$ENV{SCRATCH}/$_->[0].sql") } @$scripts), 'bench_oltp' or die "pgbench: $!";
	open STDERR, '>&', $stderr;
	local $/;
	my $said = <$output>;
	close $output or die "pgbench failed:\n$said" . Bench::slurp("$ENV{SCRATCH}/pgbench.err");
	die "pgbench had failed transactions:\n$said" if $said =~ /^number of failed transactions: [1-9]/m;
	return $said;
}
# mean latency of each script in ms: run one after another, one client
sub latencies
{
	my ($seed, @scripts) = @_;
	my %ms;
	for my $script (@scripts)
	{
		pgbench([$script], '-M', 'prepared', '-t', $runs_of_each, "--random-seed=$seed") =~ /^latency average = ([\d.]+) ms/m or die 'no latency';
		$ms{ $script->[0] } = $1;
	}
	return \%ms;
}
sub writes_a_second
{
	my ($seed) = @_;
	pgbench(\@writes, '-M', 'prepared', '-c', 4, '-j', 2, '-T', $seconds, "--random-seed=$seed") =~ /^tps = ([\d.]+)/m or die 'no tps';
	return $1;
}

#
# The workload, seen by perfopt and by pg_qualstats
#
# All of it is to be found, also what takes little of the time.
$db->do('ALTER SYSTEM SET perfopt.advice_min_share = 0.0002');
$db->do('SELECT pg_reload_conf()');
# what was there when it was first looked at is not held against an index
$db->do('SELECT pg_stat_force_next_flush()');
$db->do('SELECT perfopt.analyze_now()');
$db->do('SELECT perfopt.reset_latency()');
$db->do('SELECT pg_qualstats_reset()');
progress('the workload');
my ($started, $slept) = (time, 0);
for my $part ([ \@needs, 10, 1 ], [ \@needs, 10, 2 ], [ \@needs, 10, 3 ], [ \@controls, 30 ], [ \@writes, 4000 ], [ [ grep { $_->[0] eq 'hit' } @writes ], 40000 ], [ [ oltp_rare() ], 5 ])
{
	my ($scripts, $times, $minute) = @$part;
	# a constant counts that is the same in samples of three minutes
	$slept += sleep 61 if ($minute // 1) > 1;
	local $ENV{PGOPTIONS} = '-c pg_qualstats.enabled=on -c pg_qualstats.sample_rate=1';
	pgbench($scripts, '-M', 'extended', '-t', $times * @$scripts, '--random-seed=' . ($minute // 1));
}
my $workload_seconds = time - $started - $slept;

#
# Advice
#
# what there was no time for comes in the next round
my @contenders = contender('bench_oltp', 'perfopt, from the workload', sub { perfopt_rounds($_[0], 2) });
if ($db->selectrow_array(q(SELECT to_regproc('perfopt.advise') IS NOT NULL)))
{
	# with $1, $2 ... for the variables, as pgbench prepares it
	my @statements = map {
		my $text = oltp_script($_->[1], {});
		my $number = 0;
		$text =~ s/(?<!:):[a-z]\w*/'$' . ++$number/ge;
		$text;
	} @needs, @controls, @writes;
	push @contenders, contender('bench_oltp', 'perfopt.advise(), generic', sub { perfopt_advise($_[0], @statements) });
}
push @contenders, contender('bench_oltp', 'pg_qualstats', \&qualstats);
push @contenders, contender('bench_oltp', 'Extend', sub {
	my ($session) = @_;
	my $columns = $session->selectall_arrayref(q(SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
		WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND a.atttypid <> 'jsonb'::regtype ORDER BY c.oid, a.attnum));
	# a column of that name in any of the query's tables: it knows no more
	my %query = map { $_->[0] => oltp_script(@$_[ 1, 2 ]) } @needs;
	$query{ $_->[0] } = oltp_script($_->[1], { map { $_ => 5 } qw(u n o) }) for @controls;
	my $said = extend($session, \%query, $columns, 1e12, 2);
	return ([ map { "CREATE INDEX ON $_" } @{ $said->{indexes} } ], "$said->{plannings} plannings; of the queries only, each once");
});
for my $contender (@contenders)
{
	progress('judging %s', $contender->{name});
	$contender->{judged} = oltp_judge($sql, $users, $contender->{ddl});
}

#
# What perfopt's do: without and with them in turn
#
my $perfopt = $contenders[0];
my (%ms, %tps);
my @statements = map { s/^CREATE INDEX (CONCURRENTLY )?(("[^"]+"|\S+) )?ON /CREATE INDEX ON /r } @{ $perfopt->{ddl} };
$db->do('ALTER SYSTEM SET perfopt.advice_interval = 0');
$db->do('SELECT pg_reload_conf()');
my $build_seconds = 0;
for my $round (1 .. $rounds)
{
	for my $with (0, 1)
	{
		progress('round %d of %d, %s', $round, $rounds, $with ? 'with the indexes' : 'without');
		my $last = $db->selectrow_array('SELECT max(indexrelid::bigint) FROM pg_index');
		my $started = time;
		if ($with) { $db->do($_) for @statements; }
		$build_seconds += time - $started;
		$db->do('VACUUM ANALYZE');
		$db->do('CHECKPOINT');
		# the first runs fill caches
		latencies(99, @needs) if $round == 1;
		my $latency = latencies($round, @needs, @controls);
		push @{ $ms{ $with }{$_} }, $latency->{$_} for keys %$latency;
		push @{ $tps{ $with ? 'with' : 'without' } }, writes_a_second($round);
		$db->do("DROP INDEX $_") for @{ $db->selectcol_arrayref("SELECT indexrelid::regclass FROM pg_index WHERE indexrelid > $last") };
	}
}
$db->do("ALTER SYSTEM RESET $_") for qw(perfopt.advice_interval perfopt.advice_min_share);
$db->do('SELECT pg_reload_conf()');
progress();

#
# What it says
#
print "\nAn application's database: ", thousands($users), ' users, ', $db->selectrow_array('SELECT pg_size_pretty(pg_database_size(current_database()))'), "\n";
print 'machine    ', machine(), "\n";
print 'server     ', $db->selectrow_array('SELECT version()'), "\n";
printf "workload   %d statements that need an index, %d that need none, %d that write; %.0f s of it were seen\n", scalar @needs, scalar @controls, scalar @writes, $workload_seconds;
print "settings   perfopt.advice_min_share = 0.0002; pg_qualstats.sample_rate = 1\n";
print "method     all advised indexes are built; a need is met when its plan cost falls by 95 % of what it does with an index made for it,\n",
  "           an index is false when no need's cost rises by a tenth without it; CPU: of the process that advises and of the client\n\n";
printf "%-28s %6s %6s %6s %9s %6s %9s  %s\n", '', 'index', 'found', 'false', 'real MB', 'CPU s', 'advising', '';
for my $contender (@contenders)
{
	my $judged = $contender->{judged};
	printf "%-28s %6d %3d/%-2d %6d %9.1f %6.1f %7.1f s  %s\n", $contender->{name}, scalar @{ $contender->{ddl} }, scalar @{ $judged->{found} }, scalar @needs, scalar @{ $judged->{false} },
	  $judged->{bytes} / 1e6, $contender->{cpu}, $contender->{seconds}, $contender->{note} // '';
}
for my $contender (@contenders)
{
	print "\n$contender->{name}\n";
	my %what = ((map { $_ => 'false' } @{ $contender->{judged}{false} }), map { $_ => 'ERROR' } @{ $contender->{judged}{impossible} });
	printf "  %-6s %s\n", $what{$_} // '', $_ for @{ $contender->{ddl} };
	print '  missed ', join(', ', @{ $contender->{judged}{missed} }), "\n" if @{ $contender->{judged}{missed} };
}
print "\nWith perfopt's indexes and without, in turn, $rounds rounds: cost of the plan, and milliseconds (one client, prepared; median of the rounds' means)\n";
printf "%-18s %12s %12s %12s   %10s %10s  %s\n", '', 'cost', 'with', 'reference', 'ms', 'with', 'ratio [95 %]';
for my $name (map { $_->[0] } @needs, @controls)
{
	my @cost = @{ $perfopt->{judged}{costs}{$name} // [] };
	printf "%-18s %12s %12s %12s   %10.3f %10.3f  %.3f [%.3f %.3f]\n", $name, map({ $_ // '' } @cost[ 0 .. 2 ]), median(@{ $ms{0}{$name} }), median(@{ $ms{1}{$name} }),
	  paired_ratio({ with => $ms{1}{$name}, without => $ms{0}{$name} }, 'with', 'without');
}
printf "\nWrites a second, 4 clients: %s without, %s with; ratio %.3f [%.3f %.3f]; building them took %.1f s\n\n", thousands(median(@{ $tps{without} })), thousands(median(@{ $tps{with} })),
  paired_ratio(\%tps, 'with', 'without'), $build_seconds / $rounds;

for my $contender (grep { $_->{name} =~ /^perfopt, / } @contenders)
{
	my $judged = $contender->{judged};
	goal(!@{ $judged->{missed} }, '%s: %d of %d needed indexes found', $contender->{name}, scalar @{ $judged->{found} }, scalar @needs);
	goal(!@{ $judged->{false} }, '%s: %d false', $contender->{name}, scalar @{ $judged->{false} });
	goal(!(grep { / ON (public\.)?counters / } @{ $contender->{ddl} }), '%s: no index on the table that is written all the time', $contender->{name});
}
$db->disconnect;
$any->do('DROP DATABASE bench_oltp');
exit failed();
