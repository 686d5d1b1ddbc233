# The part of "advisor" about TPC-H: 19 queries, budgets of 500 MB and 1 GB,
# perfopt.advise() beside Extend with HypoPG (lib/Extend.pm), the advisor of
# pg_qualstats, and no index.  Every choice is built for real, its real size is
# what counts, and its queries are run, all contenders in turn for each query:
# BEGIN; DROP INDEX of the others; run; ROLLBACK.
#
#   DBGEN=.../dbgen           directory of TPC-H's dbgen and qgen, built
#   SCALE=1 BUDGETS="500 1000"     SCALE is a whole number: dbgen may hang otherwise
#   ROUNDS=3                  0: only plan costs; WARMUP=0 spares the round before them
#   RIVALS="qualstats filled" beside Extend: pg_qualstats; Extend given more until its real bytes fill the budget
#   TIMEOUT=30                seconds; a query that takes longer counts so many, and is not run again
#   TPCH_DATABASE=name        already loaded (else tpch, loaded when it is not there)
use strict;
use warnings;
use Bench;
use DBI;
use Extend 'extend';
use List::Util qw(sum min max shuffle);
use Time::HiRes 'time';
use Tpch qw(tpch_load tpch_queries tpch_missing);

my $scale = $ENV{SCALE} || 1;
my $rounds = $ENV{ROUNDS} // 3;
my $timeout_ms = 1000 * ($ENV{TIMEOUT} || 30);
my @budgets = split ' ', $ENV{BUDGETS} || '500 1000';
my $name = $ENV{TPCH_DATABASE} || 'tpch';
my %rival = map { $_ => 1 } split ' ', $ENV{RIVALS} // 'qualstats filled';
my $most_seconds = 5;
srand(1);
$| = 1;

if (my $why = tpch_missing($ENV{DBGEN}))
{
	print <<TEXT;

SKIPPED: TPC-H, because $why.
  DBGEN names the directory of dbgen and qgen of TPC-H, built from one of their public sources, say
  github.com/gregrahn/tpch-kit: make -C tpch-kit/dbgen MACHINE=LINUX DATABASE=POSTGRESQL dbgen qgen
  and then DBGEN=\$PWD/tpch-kit/dbgen make bench-advisor
TEXT
	exit 0;
}
my $queries = tpch_queries($ENV{DBGEN}, $scale);
my @queries = sort keys %$queries;

sub progress { printf STDERR "\r\e[K%s", @_ ? sprintf(shift, @_) : '' if -t STDERR; }
sub connect_to { return DBI->connect("dbi:Pg:dbname=$_[0];host=$ENV{PGHOST}" . ($ENV{PGPORT} ? ";port=$ENV{PGPORT}" : ''), 'postgres', '',
	{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0 }); }

# CPU seconds of a process so far
sub cpu { my ($pid) = @_; return (split ' ', Bench::slurp("/proc/$pid/schedstat"))[0] / 1e9; }

my $any = connect_to('postgres');
unless ($any->selectrow_array('SELECT 1 FROM pg_database WHERE datname = ?', undef, $name))
{
	$any->do("CREATE DATABASE $name");
	tpch_load($ENV{DBGEN}, $scale, $ENV{SCRATCH}, sub {
		my ($sql, $input) = @_;
		progress('TPC-H, loading: %s', substr $sql, 0, 60);
		my $psql = "\"$ENV{BIN}/psql\" -Xq -v ON_ERROR_STOP=1 -d $name -c \"\$SQL\"";
		local $ENV{SQL} = $sql;
		system('bash', '-o', 'pipefail', '-c', $input ? "$input | $psql" : $psql) == 0 or die "failed: $sql";
	});
	progress();
}
my $db = connect_to($name);
$db->do('SET client_min_messages = warning');
$db->do("CREATE EXTENSION IF NOT EXISTS $_") for qw(pg_stat_statements perfopt hypopg pg_qualstats);
# of a run that was interrupted
$db->do("DROP INDEX $_") for @{ $db->selectcol_arrayref(q(SELECT indexname FROM pg_indexes WHERE schemaname = 'public' AND indexname LIKE 'advised\_%')) };
my $columns = $db->selectall_arrayref(q(SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
	WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
	AND c.relname IN ('customer', 'lineitem', 'nation', 'region', 'orders', 'part', 'partsupp', 'supplier') ORDER BY c.oid, a.attnum));

#
# Indexes: those that anybody chose, built once
#
my %built;			# definition => name
sub index_of
{
	my ($ddl) = @_;
	$ddl =~ /^CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?(?:IF NOT EXISTS )?(?:(?:"[^"]+"|[\w.]+) )?ON (?:ONLY )?(?:public\.)?(.*?);?\s*$/is or die "what is $ddl";
	my $definition = $1;
	$definition =~ s/ USING btree//;
	$definition =~ s/\s+/ /g;
	$definition =~ s/^(\w+)\(/$1 (/;
	unless ($built{$definition})
	{
		my $index = sprintf 'advised_%02d', 1 + keys %built;
		progress('building %s', $definition);
		(my $statement = $definition) =~ s/^(\w+) (?=\()/$1 USING btree /;
		$db->do("CREATE INDEX $index ON public.$statement");
		$built{$definition} = $index;
	}
	return $built{$definition};
}
sub size_of { my $sum = 0; $sum += $db->selectrow_array('SELECT pg_relation_size(?::regclass)', undef, $_) for @_; return $sum; }
sub definition_of { my ($index) = @_; my %name = reverse %built; return $name{$index}; }

#
# The contenders: { name, budget, indexes => [names], bytes (as it says), seconds, cpu }
#
my @contenders = ({ name => 'no index', indexes => [] });
sub contender
{
	my ($title, $budget, $advise) = @_;
	progress('%s, %s', $title, $budget ? sprintf('%d MB', $budget / 1e6) : 'no budget');
	# a session of its own: what it has cached does not help the next one
	my $session = connect_to($name);
	# what the others chose is not there
	$session->begin_work;
	$session->do('SET LOCAL client_min_messages = error');
	$session->do('DROP INDEX ' . join ', ', values %built) if %built;
	my ($started, $cpu_started) = (time, cpu($session->{pg_pid}) + cpu($$));
	my $said = $advise->($session, $budget);
	my %contender = (name => $title, budget => $budget, seconds => time - $started,
		cpu => cpu($session->{pg_pid}) + cpu($$) - $cpu_started, bytes => $said->{bytes}, note => $said->{note});
	$session->rollback;
	$session->disconnect;
	my %seen;
	$contender{indexes} = [ grep { !$seen{$_}++ } map { index_of($_) } @{ $said->{ddl} } ];
	$contender{real} = size_of(@{ $contender{indexes} });
	push @contenders, \%contender;
	return \%contender;
}

sub ask_extend
{
	my ($session, $budget, $width) = @_;
	my $said = extend($session, $queries, $columns, $budget, $width || 2);
	return { ddl => [ map { "CREATE INDEX ON $_" } @{ $said->{indexes} } ], bytes => $said->{bytes}, note => "$said->{plannings} plannings" };
}

sub ask_perfopt
{
	my ($session, $budget) = @_;
	my $rows = $session->selectall_arrayref('SELECT * FROM perfopt.advise($1, $2, $3)', { Slice => {} }, [ @$queries{@queries} ], int $budget, '4 s');
	return { ddl => $rows->[0]{ddl}, bytes => $rows->[0]{estimated_bytes}, note => sprintf('cost %.1f %% as it says', 100 * $rows->[0]{cost_after} / $rows->[0]{cost_before}) };
}

# pg_qualstats has to see the queries run; its advisor knows no budget
sub ask_qualstats
{
	my ($session) = @_;
	return { ddl => [ map { $_->[0] } @{ $session->selectall_arrayref(
		q(SELECT v FROM json_array_elements_text(pg_qualstats_index_advisor() -> 'indexes') v)) } ] };
}

my $has_perfopt = $db->selectrow_array(q(SELECT to_regproc('perfopt.advise') IS NOT NULL));
my $qualstats;
if ($rival{qualstats})
{
	$db->do('SET pg_qualstats.enabled = on');
	$db->do('SET pg_qualstats.sample_rate = 1');
	$db->do('SELECT pg_qualstats_reset()');
	# Without an index Q21 would take hours in nested loops; the conditions seen are the same.
	$db->do('SET enable_nestloop = off');
	for (@queries) { progress('pg_qualstats watches %s', $_); $db->selectall_arrayref($queries->{$_}); }
	$db->do('RESET enable_nestloop');
	$db->do('SET pg_qualstats.enabled = off');
	$qualstats = contender('pg_qualstats', undef, \&ask_qualstats);
}

for my $budget (map { $_ * 1e6 } @budgets)
{
	my $extend = contender('Extend', $budget, \&ask_extend);
	# the same with a nominal budget so much larger that its real bytes fill the budget
	my ($low, $high, $fills) = ($budget, 4 * $budget, undef);
	for ($rival{filled} ? (1 .. 3) : ())
	{
		my $nominal = ($low + $high) / 2;
		my $more = contender('Extend, filled', $nominal, \&ask_extend);
		pop @contenders;
		($low, $high, $fills) = $more->{real} <= $budget ? ($nominal, $high, $more) : ($low, $nominal, $fills);
	}
	if ($fills && $fills->{real} > $extend->{real})
	{
		$fills->{note} .= sprintf ', given %d MB', $fills->{budget} / 1e6;
		$fills->{budget} = $budget;
		push @contenders, $fills;
	}
	# what of pg_qualstats' list fits, in its order
	if ($qualstats)
	{
		my ($size, @fit) = (0);
		for (@{ $qualstats->{indexes} })
		{
			my $more = size_of($_);
			next if $size + $more > $budget;
			push @fit, $_;
			$size += $more;
		}
		push @contenders, { %$qualstats, budget => $budget, indexes => \@fit, real => $size, note => 'those that fit, in its order' };
	}
	if ($has_perfopt)
	{
		contender('perfopt', $budget, \&ask_perfopt);
		(contender('perfopt, as Extend', $extend->{real}, \&ask_perfopt))->{against} = $extend;
		(contender('perfopt, as filled', $fills->{real}, \&ask_perfopt))->{against} = $fills if $fills && $fills->{real} > $extend->{real};
	}
}
# statistics of expressions, and everything all-visible for all alike
$db->do('VACUUM (ANALYZE)');

#
# Scoring
#
my %all = map { $_ => 1 } values %built;
sub with_only
{
	my ($contender, $what) = @_;
	my %keep = map { $_ => 1 } @{ $contender->{indexes} };
	my @gone = grep { !$keep{$_} } sort keys %all;
	$db->begin_work;
	$db->do('SET LOCAL client_min_messages = error');
	$db->do('DROP INDEX ' . join ', ', @gone) if @gone;
	my $result = $what->();
	$db->rollback;
	return $result;
}
for my $contender (@contenders)
{
	with_only($contender, sub {
		for my $query (@queries)
		{
			$db->selectrow_array("EXPLAIN (FORMAT JSON) $queries->{$query}") =~ /"Total Cost": ([\d.]+)/;
			$contender->{cost}{$query} = $1;
		}
	});
	$contender->{total_cost} = sum values %{ $contender->{cost} };
}
# equal choices are run once
my %runs;
push @{ $runs{ join ',', sort @{ $_->{indexes} } } }, $_ for @contenders;
my @runs = map { $_->[0] } @runs{ sort keys %runs };
for my $round ($rounds ? (($ENV{WARMUP} // 1 ? 0 : 1) .. $rounds) : ())
{
	for my $query (@queries)
	{
		for my $contender (shuffle @runs)
		{
			next if $contender->{cut}{$query};
			progress('round %d of %d: %s', $round, $rounds, $query);
			my $ms = with_only($contender, sub {
				# planned once before: what the DROPs made anew is not its time
				$db->do("EXPLAIN $queries->{$query}");
				$db->do("SET LOCAL statement_timeout = $timeout_ms");
				my $started = time;
				return 1000 * (time - $started) if eval { $db->selectall_arrayref($queries->{$query}) };
				die $@ unless $db->state eq '57014';
				return undef;
			});
			if (defined $ms) { push @{ $contender->{ms}{$query} }, $ms if $round; }
			else { $contender->{cut}{$query} = 1; $contender->{ms}{$query} = [ ($timeout_ms) x $rounds ]; }
		}
	}
}
progress();
for my $same (values %runs) { @$_{qw(ms cut)} = @{ $same->[0] }{qw(ms cut)} for @$same; }
for my $contender ($rounds ? @contenders : ())
{
	$contender->{best}{$_} = min @{ $contender->{ms}{$_} } for @queries;
	$contender->{total} = sum values %{ $contender->{best} };
	my @round = map { my $r = $_; sum map { $contender->{ms}{$_}[$r] } @queries } 0 .. $rounds - 1;
	@$contender{qw(fastest slowest)} = (min(@round), max(@round));
}

#
# What it says
#
my $none = $contenders[0];
print "\nTPC-H, scale factor $scale, ", scalar(@queries), " queries\n";
print 'machine    ', machine(), "\n";
print 'server     ', $db->selectrow_array('SELECT version()'), "\n";
print 'settings   ', $db->selectrow_array(q(SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name) FROM pg_settings
	WHERE source = 'configuration file' AND name NOT LIKE 'lc%' AND name NOT IN ('port', 'unix_socket_directories', 'listen_addresses',
	'log_timezone', 'TimeZone', 'DateStyle', 'default_text_search_config'))), "\n";
print "method     all indexes are built; in each of $rounds rounds, for each query, all contenders in random order:\n",
  "           BEGIN; DROP INDEX of all that are not its own; run; ROLLBACK. Time: the sum of the queries' minima, [the rounds' sums];\n",
  "           cost: planned with the real indexes. MB = 1,000,000 bytes. CPU: of the server's process and of the client.\n\n";
my $format = "%-19s %7s %4s %8s %8s %8s %7s %11s %7s  %-26s %s\n";
printf $format, '', 'budget', 'no.', 'says MB', 'real MB', 'advising', 'CPU s', 'plan cost', '', 'run time s', '';
my $mb = sub { defined $_[0] ? sprintf '%.0f', $_[0] / 1e6 : '' };
for my $contender (@contenders)
{
	my $over = $contender->{budget} && $contender->{real} > $contender->{budget};
	printf $format, $contender->{name}, $mb->($contender->{budget}), scalar @{ $contender->{indexes} }, $mb->($contender->{bytes}), $mb->($contender->{real}),
	  defined $contender->{seconds} ? sprintf('%.1f s', $contender->{seconds}) : '', defined $contender->{cpu} ? sprintf('%.1f', $contender->{cpu}) : '',
	  thousands($contender->{total_cost}), sprintf('%.1f %%', 100 * $contender->{total_cost} / $none->{total_cost}),
	  !$rounds ? '' : sprintf('%s%.2f = %.1f %% [%.1f %.1f]', %{ $contender->{cut} // {} } ? '>' : '', $contender->{total} / 1000, 100 * $contender->{total} / $none->{total}, $contender->{fastest} / 1000, $contender->{slowest} / 1000),
	  join ', ', grep { $_ } $over ? 'DOES NOT FIT' : '', $contender->{note};
}

print "\nIndexes\n";
for my $contender (@contenders[ 1 .. $#contenders ])
{
	printf "  %s, %s MB\n", $contender->{name}, $contender->{budget} ? $mb->($contender->{budget}) : 'no end of';
	printf "    %7.1f MB  %s\n", size_of($_) / 1e6, definition_of($_) for @{ $contender->{indexes} };
}

print "\nEach query: plan cost in thousands, and milliseconds\n";
printf "%-24s" . (' %15s' x @queries) . "\n", '', @queries;
for my $contender (@contenders)
{
	printf "%-24s" . (' %15s' x @queries) . "\n", "$contender->{name} " . $mb->($contender->{budget}),
	  map { sprintf '%.1f / %s%.0f', $contender->{cost}{$_} / 1000, $contender->{cut}{$_} ? '>' : '', $contender->{best}{$_} // 0 } @queries;
}

# lose(WHAT, PART, LEAST, UNIT): queries worse by that part and that much
sub lose
{
	my ($what, $part, $least, $unit) = @_;
	for my $contender (@contenders[ 1 .. $#contenders ])
	{
		for my $base ($none, grep { $_ } $contender->{against})
		{
			my ($mine, $theirs) = ($contender->{$what}, $base->{$what});
			my @lose = grep { $mine->{$_} > (1 + $part) * $theirs->{$_} && $mine->{$_} > $theirs->{$_} + $least } @queries;
			printf "  %-19s %5s MB beside %-15s %s\n", $contender->{name}, $mb->($contender->{budget}), $base->{name},
			  join(', ', map { sprintf '%s %.0f (%.0f)', $_, $mine->{$_} / $unit, $theirs->{$_} / $unit } @lose) || 'none';
		}
	}
}
print "\nQueries that lose: dearer by more than 1 % than without an index, or than with Extend's choice (thousands)\n";
lose('cost', 0.01, 0, 1000);
print "\n... slower by more than 10 % and 10 ms (ms)\n" if $rounds;
lose('best', 0.1, 10, 1) if $rounds;
print "\n";

my $failed = 0;
sub goal
{
	my ($met, $format, @arguments) = @_;
	printf "%s: $format\n", $met ? 'ok' : 'FAIL', @arguments;
	$failed ||= !$met;
}
for my $contender (grep { $_->{name} =~ /^perfopt/ } @contenders)
{
	my $title = sprintf '%s, %d MB', $contender->{name}, $contender->{budget} / 1e6;
	goal($contender->{real} <= $contender->{budget}, '%s: the choice takes %.1f MB in truth', $title, $contender->{real} / 1e6);
	goal($contender->{seconds} <= $most_seconds, '%s: %.1f s of advising, at most %d', $title, $contender->{seconds}, $most_seconds);
	my $against = $contender->{against} or next;
	goal($contender->{total_cost} < $against->{total_cost}, '%s: plan cost %s, %s with %s', $title, thousands($contender->{total_cost}), thousands($against->{total_cost}), $against->{name});
	goal($contender->{total} < $against->{total}, '%s: run time %.2f s, %.2f s with %s', $title, $contender->{total} / 1000, $against->{total} / 1000, $against->{name}) if $rounds;
}
print "perfopt.advise() is not there: only the rivals were measured\n" unless $has_perfopt;
$db->do("DROP INDEX $_") for values %built;
exit $failed;
