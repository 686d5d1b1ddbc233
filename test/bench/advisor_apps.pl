# The part of "advisor" about applications that were written down before any
# advisor saw them (lib/Apps.pm, lib/Apps/*.pm): which of the indexes they need
# are advised, by the processor time that statements really take, and which are
# advised in vain; by perfopt from the workload, and from the statements alone
# with values and with $1, by pg_qualstats, and by Extend with HypoPG.
#
#   APPS="Social Tracker Shop" CYCLES=12 SESSIONS=3
#   RIVALS=0                        perfopt only
use strict;
use warnings;
use Apps;
use Bench;
use Contenders;
use Extend 'extend';
use Time::HiRes 'time';

my $cycles = $ENV{CYCLES} || 12;
my $sessions = $ENV{SESSIONS} || 3;
$| = 1;

# One need's row, and what an advised index of no use says
sub report
{
	my ($statements, $contender) = @_;
	my $judged = $contender->{judged};
	printf "\n  %s: %d advised, %.1f MB, in %.1f s (%.1f s of processor time%s)\n", $contender->{name}, scalar @{ $contender->{ddl} }, $judged->{bytes} / 1e6,
	  $contender->{seconds}, $contender->{cpu}, $contender->{note} ? "; $contender->{note}" : '';
	print "    $_\n" for @{ $contender->{ddl} };
	my %missed = map { $_ => 1 } @{ $judged->{missed} };
	for my $need (grep { $missed{ $_->{name} } } @$statements)
	{
		printf "    missed  %s: %.3g ms without, %.3g with these, %.3g with %s\n", $need->{name}, $need->{ms}, $judged->{ms}{ $need->{name} }, $need->{with}, join ' and ', @{ $need->{best} };
	}
	printf "    false   %s: %s\n", @$_ for @{ $judged->{false} };
	printf "    error   %s\n", $_ for @{ $judged->{impossible} };
	printf "    slower  %s: %.1f times\n", @$_ for @{ $judged->{hurt} };
}

sub examine
{
	my ($app) = @_;
	my $database = 'bench_' . $app->name;
	my $said = sub { progress('%s: %s', $app->name, $_[0]) };
	my @statements = $app->statements;
	my $started = time;
	$said->('data');
	my $db = apps_load($app);
	my $loaded = time - $started;

	# what was there when it was first looked at is not held against an index
	$db->do('SELECT pg_stat_force_next_flush()');
	$db->do('SELECT perfopt.analyze_now()');
	$db->do('SELECT perfopt.reset_latency()');
	$db->do('SELECT pg_qualstats_reset()');
	$said->('the workload');
	$started = time;
	my $runs;
	{
		local $ENV{PGOPTIONS} = '-c pg_qualstats.enabled=on -c pg_qualstats.sample_rate=1';
		$runs = apps_run($database, \@statements, $cycles, $sessions);
	}
	my $seconds = time - $started;

	my @contenders = contender($database, 'perfopt, from the workload', sub { perfopt_rounds($_[0], 6) });
	$db->do('VACUUM ANALYZE');
	srand(1);
	my @frequent = grep { $_->{kind} ne 'rare' } @statements;
	my @texts = map { apps_text($db, $_->{sql}, $_->{args}->()) } @frequent;
	push @contenders, contender($database, 'perfopt.advise(), with values', sub { perfopt_advise($_[0], @texts) });
	push @contenders, contender($database, 'perfopt.advise(), with $1', sub { perfopt_advise($_[0], map { $_->{sql} } @frequent) });
	if ($ENV{RIVALS} // 1)
	{
		push @contenders, contender($database, 'pg_qualstats', \&qualstats);
		push @contenders, contender(
			$database, 'Extend',
			sub {
				my ($session) = @_;
				my $columns = $session->selectall_arrayref(
					q(SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
					WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
					AND a.atttypid <> ALL ('{jsonb,tsvector,text[],daterange}'::regtype[]) ORDER BY c.oid, a.attnum)
				);
				# a column of that name in any of the query's tables: it knows no more
				my %query;
				for my $i (0 .. $#frequent) { $query{ $frequent[$i]{name} } = $texts[$i] if $frequent[$i]{kind} ne 'write'; }
				my $chosen = extend($session, \%query, $columns, 1e12, 2);
				return ([ map { "CREATE INDEX ON $_" } @{ $chosen->{indexes} } ], "$chosen->{plannings} plannings; of the queries only, each once");
			});
	}

	apps_truth($db, \@statements, $said);
	for my $contender (@contenders)
	{
		$contender->{judged} = apps_judge($db, \@statements, $contender->{ddl}, sub { $said->("judging $contender->{name}: $_[0]") });
	}
	progress();

	my $time = 0;
	$time += $_->{weight} * $_->{ms} for @statements;
	printf "\n%s: %s, loaded in %.0f s; %s runs of %d statements by %d sessions in %.0f s\n", $app->name,
	  $db->selectrow_array('SELECT pg_size_pretty(pg_database_size(current_database()))'), $loaded, thousands($runs), scalar @statements, $sessions, $seconds;
	printf "  %-42s %-7s %6s %9s %9s  %s\n", '', '', 'share', 'ms', 'with', 'the expert\'s, or tried';
	for my $statement (@statements)
	{
		printf "  %-42s %-7s %5.1f%% %9.3f %9s  %s%s\n", $statement->{name}, $statement->{kind}, 100 * $statement->{weight} * $statement->{ms} / $time, $statement->{ms},
		  defined $statement->{with} ? sprintf('%.3f', $statement->{with}) : '', join(' and ', @{ $statement->{best} // [] }), $statement->{real} ? '' : '  (not so: left out)';
	}
	report(\@statements, $_) for @contenders;
	$db->disconnect;
	my $any = connect_to('postgres');
	$any->do("DROP DATABASE $database");
	$any->disconnect;
	return {
		contenders => \@contenders,
		needs => scalar(grep { $_->{kind} eq 'need' && $_->{real} } @statements),
		controls => scalar(grep { $_->{kind} eq 'control' && $_->{real} } @statements),
	};
}

print "\nApplications: which indexes are advised\n";
print 'machine    ', machine(), "\n";
my $any = connect_to('postgres');
print 'server     ', $any->selectrow_array('SELECT version()'), "\n";
print "method     all advised indexes are built; a need is met when its statement takes a third of its processor time, or gains half of what it does\n",
  "           with the best of the expert's indexes; an index is false when no statement uses it, when none is 1.3 times as fast\n",
  "           with it, or when it costs what is written more than it saves\n",
  "settings   perfopt.advice_min_share = 0.002; pg_qualstats.sample_rate = 1\n";
# All of it is to be found, also what takes little of the time.
$any->do('ALTER SYSTEM SET perfopt.advice_min_share = 0.002');
$any->do('SELECT pg_reload_conf()');
my (%sum, @names, $needs, $controls);
for my $name (split ' ', $ENV{APPS} // 'Social Tracker Shop')
{
	require "Apps/$name.pm";
	my $result = examine("Apps::$name");
	$needs += $result->{needs};
	$controls += $result->{controls};
	for my $contender (@{ $result->{contenders} })
	{
		my $judged = $contender->{judged};
		push @names, $contender->{name} unless $sum{ $contender->{name} };
		my $sum = $sum{ $contender->{name} } //= { map { $_ => 0 } qw(index found missed false hurt bytes seconds) };
		$sum->{index} += @{ $contender->{ddl} };
		$sum->{$_} += @{ $judged->{$_} } for qw(found missed false hurt);
		$sum->{bytes} += $judged->{bytes};
		$sum->{seconds} += $contender->{seconds};
	}
}
$any->do('ALTER SYSTEM RESET perfopt.advice_min_share');
$any->do('SELECT pg_reload_conf()');

printf "\nAll of them: %d needs, %d controls\n%-32s %6s %8s %6s %7s %9s %10s\n", $needs, $controls, '', 'index', 'found', 'false', 'slower', 'real MB', 'advising';
for my $name (@names)
{
	my $sum = $sum{$name};
	printf "%-32s %6d %4d/%-3d %6d %7d %9.1f %8.1f s\n", $name, $sum->{index}, $sum->{found}, $needs, $sum->{false}, $sum->{hurt}, $sum->{bytes} / 1e6, $sum->{seconds};
}
print "\n";
for my $name (grep { /^perfopt/ } @names)
{
	my $sum = $sum{$name};
	goal($sum->{found} >= 0.95 * $needs, '%s: %d of %d needs met', $name, $sum->{found}, $needs);
	goal($sum->{false} <= 0.03 * $sum->{index}, '%s: %d of %d indexes false', $name, $sum->{false}, $sum->{index});
}
exit failed();
