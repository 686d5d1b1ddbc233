# Apps.pm: applications for the index advisor, whose schemas and statements
# (lib/Apps/*.pm) were written before any advisor was run on them, and a judge
# that goes by the processor time statements really take.
#
# A statement is { name, kind, weight, sql, args, simple, expert, tried }:
#
#   need      an index makes it at least three times as fast; "expert" has the
#             sets of indexes somebody with experience would make, any of which
#             will do
#   control   none of the indexes "tried" makes it 1.3 times as fast
#   rare      what an index would help, of a table that is written far more often
#   write     is there to cost what indexes cost
#
# Which of them are really so, measuring says: see truth().  "weight" is how
# often it runs, beside the others; "args" gives values for $1, ...; it runs as a
# prepared statement, or as text where "simple" is set.
#
# A need is met where, with all advised indexes built, it is at least three
# times as fast as with none, or gains half of what the best of the expert's
# does.  An advised index is false when no statement uses it, when it makes none
# 1.3 times as fast, or when those that use it and those that write its table
# take longer with it, by their weights, than without.
package Apps;

use strict;
use warnings;
use Exporter 'import';
use Bench;
use Contenders 'connect_to';
use List::Util qw(sum0 min max shuffle);
use Time::HiRes 'time';

our @EXPORT = qw(apps_connect apps_load apps_run apps_times apps_truth apps_judge apps_text apps_build);

my $sets = 6;	  # of values for each statement
my $rounds = 3;
my $rounds_of_short = 15;	  # where a call takes less than 3 ms
my $long = 1;	  # seconds of one round: it is enough

sub apps_connect { return connect_to($_[0], pg_server_prepare => 1, pg_placeholder_dollaronly => 1); }

# The database of an application, with its data
sub apps_load
{
	my ($app) = @_;
	my $database = 'bench_' . $app->name;
	my $any = apps_connect('postgres');
	$any->do("DROP DATABASE IF EXISTS $database WITH (FORCE)");
	$any->do("CREATE DATABASE $database");
	$any->disconnect;
	my $db = apps_connect($database);
	$db->do('SET client_min_messages = warning');
	$db->do("CREATE EXTENSION $_") for qw(pg_stat_statements perfopt hypopg pg_qualstats pg_trgm);
	$db->do('SELECT setseed(0.5)');
	$db->do($app->schema, { pg_direct => 1 });
	$db->do('VACUUM ANALYZE');
	$db->do('CHECKPOINT');
	return $db;
}

# The statement with values in it, as a client that prepares nothing sends it
sub apps_text
{
	my ($db, $sql, @values) = @_;
	$sql =~ s/\$(\d+)/$db->quote($values[ $1 - 1 ])/ge;
	return $sql;
}

# A call of the statement with values: its rows are fetched
sub _call
{
	my ($db, $statement) = @_;
	if ($statement->{simple})
	{
		return sub {
			my $sth = $db->prepare(apps_text($db, $statement->{sql}, @_), { pg_direct => 1, pg_server_prepare => 0 });
			$sth->execute;
			$sth->fetchall_arrayref if $sth->{NUM_OF_FIELDS};
		};
	}
	my $sth = $db->prepare($statement->{sql}, { pg_switch_prepared => 1 });
	return sub {
		$sth->execute(@_);
		$sth->fetchall_arrayref if $sth->{NUM_OF_FIELDS};
	};
}

# apps_run(DATABASE, STATEMENTS, CYCLES, SESSIONS): the workload.  In each cycle
# a statement runs as often as its weight says, in no order.
sub apps_run
{
	my ($database, $statements, $cycles, $sessions) = @_;
	my @runs = shuffle map { my $s = $_; ($s) x max(1, int($s->{weight} * $cycles + 0.5)) } @$statements;
	my @children;
	for my $session (0 .. $sessions - 1)
	{
		my $pid = fork // die "fork: $!";
		if ($pid == 0)
		{
			srand($session + 1);
			my $db = apps_connect($database);
			my %call;
			for (my $i = $session; $i < @runs; $i += $sessions)
			{
				my $statement = $runs[$i];
				my $call = $call{ $statement->{name} } //= _call($db, $statement);
				# a deadlock of two that delete is nobody's fault, nor what is new of a row that is gone
				eval { $call->($statement->{args}->()); 1 } or $@ =~ /deadlock|violates foreign key/ or die "$statement->{name}: $@";
			}
			$db->disconnect;
			exec 'true';
		}
		push @children, $pid;
	}
	my $failed = 0;
	for (@children) { waitpid $_, 0; $failed ||= $?; }
	die 'a session of the workload failed' if $failed;
	return scalar @runs;
}

sub _writes { return $_[0]{sql} =~ /^(INSERT|UPDATE|DELETE)|FOR UPDATE/ }

# Processor time of the session's backend so far, in milliseconds: exact, as it
# is read while the backend waits for the next call.
sub _cpu
{
	my ($db) = @_;
	return (split ' ', Bench::slurp("/proc/$db->{pg_pid}/schedstat"))[0] / 1e6;
}

# Milliseconds of processor time a call, without parallel workers: all data are
# in memory, and this is the same whatever else the machine does.  The mean over
# some values, each the median of several calls.  What is written is taken back.
sub apps_times
{
	my ($db, $statement) = @_;
	srand(length($statement->{sql}) + length $statement->{name});
	my @values = map { [ $statement->{args}->() ] } 1 .. $sets;
	$db->do('SET max_parallel_workers_per_gather = 0');
	my $call = _call($db, $statement);
	my $outside = $db->{AutoCommit};
	my @ms;
	for (my ($round, $last) = (1, $rounds); $round <= $last; $round++)
	{
		my $begun = time;
		for my $i (0 .. $#values)
		{
			# what takes seconds tells it soon
			last if $i > 0 && time - $begun > $long;
			if (_writes($statement)) { $outside ? $db->begin_work : $db->do('SAVEPOINT s'); }
			my $before = _cpu($db);
			$call->(@{ $values[$i] });
			push @{ $ms[$i] }, _cpu($db) - $before;
			if (_writes($statement)) { $outside ? $db->rollback : $db->do('ROLLBACK TO s'); }
		}
		$last = $rounds_of_short if time - $begun < 0.003 * @values;
		$last = 1 if time - $begun > $long;
	}
	return sum0(map { median(@$_) } @ms) / @ms;
}

sub _create
{
	my ($db, @indexes) = @_;
	my @names;
	for my $index (@indexes)
	{
		my $last = $db->selectrow_array('SELECT max(indexrelid::bigint) FROM pg_index');
		$db->do("CREATE INDEX ON $index");
		push @names, $db->selectcol_arrayref("SELECT indexrelid::regclass::text FROM pg_index WHERE indexrelid > $last ORDER BY indexrelid")->[0];
		# statistics of expressions
		$db->do("ANALYZE $1") if $index =~ /^(\w+) .*\(.*\(/;
	}
	return @names;
}

# apps_truth(DB, STATEMENTS, PROGRESS): sets each one's { ms, best, with, real }:
# the time without an index, the best set of the expert's (or of those tried) and
# the time with it, and whether the statement is what its kind says.
sub apps_truth
{
	my ($db, $statements, $progress) = @_;
	for my $statement (@$statements)
	{
		$progress->($statement->{name});
		$statement->{ms} = apps_times($db, $statement);
		for my $set (@{ $statement->{expert} // [] }, map { [$_] } @{ $statement->{tried} // [] })
		{
			my @names = _create($db, @$set);
			my $ms = apps_times($db, $statement);
			$db->do("DROP INDEX $_") for @names;
			push @{ $statement->{measured} }, [ $ms, join '; ', @$set ];
			($statement->{with}, $statement->{best}) = ($ms, $set) if !defined $statement->{with} || $ms < $statement->{with};
		}
		my $gain = defined $statement->{with} ? $statement->{ms} / $statement->{with} : 1;
		$statement->{real} = $statement->{kind} eq 'need' ? $gain >= 3 : $statement->{kind} eq 'control' ? $gain <= 1.3 : 1;
	}
}

# Indexes as advised: { name => DDL } of those built, and what could not be
sub apps_build
{
	my ($db, $advised) = @_;
	my (%built, @impossible);
	for my $ddl (@$advised)
	{
		(my $index = $ddl) =~ s/^CREATE INDEX (CONCURRENTLY )?(("[^"]+"|\S+) )?ON // or die "what is $ddl";
		my ($name) = eval { _create($db, $index) };
		if ($name) { $built{$name} = $ddl }
		else { push @impossible, $ddl }
	}
	$db->do('ANALYZE');
	return (\%built, \@impossible);
}

# Scans so far of all indexes: { name => count }
sub _scans
{
	my ($db) = @_;
	$db->do('SELECT pg_stat_force_next_flush()');
	$db->do('SELECT pg_stat_clear_snapshot()');
	return { map { @$_ } @{ $db->selectall_arrayref('SELECT indexrelid::regclass::text, idx_scan FROM pg_stat_user_indexes') } };
}

# apps_judge(DB, STATEMENTS, [CREATE INDEX ...], PROGRESS): they are built, and
# dropped again.  Returns { found, missed (needs' names), false ([DDL, why]),
# impossible ([DDL]), hurt ([control, factor]), ms ({ name => with them }), bytes }.
sub apps_judge
{
	my ($db, $statements, $advised, $progress) = @_;
	my ($built, $impossible) = apps_build($db, $advised);
	my (%ms, %users);
	for my $statement (@$statements)
	{
		$progress->($statement->{name});
		my $before = _scans($db);
		$ms{ $statement->{name} } = apps_times($db, $statement);
		my $after = _scans($db);
		for (keys %$built) { $users{$_}{ $statement->{name} } = 1 if $after->{$_} > $before->{$_}; }
	}
	my (@found, @missed);
	for my $need (grep { $_->{kind} eq 'need' && $_->{real} } @$statements)
	{
		my $gain = $need->{ms} / $ms{ $need->{name} };
		push @{ $gain >= 3 || $gain >= 0.5 * $need->{ms} / $need->{with} ? \@found : \@missed }, $need->{name};
	}
	my $bytes = sum0 map { $db->selectrow_array('SELECT pg_relation_size($1::regclass)', undef, $_) } keys %$built;

	# One after another, so that of two that do the same one stays.
	my @false;
	for my $index (sort { $a cmp $b } keys %$built)
	{
		$progress->("without $index");
		my ($table) = $db->selectrow_array('SELECT indrelid::regclass::text FROM pg_index WHERE indexrelid = $1::regclass', undef, $index);
		my @concerned = grep { $users{$index}{ $_->{name} } || $_->{sql} =~ /^(INSERT INTO|UPDATE|DELETE FROM) \Q$table\E\b/ } @$statements;
		my ($why, %now);
		if (!grep { $users{$index}{ $_->{name} } } @concerned) { $why = 'no statement uses it' }
		else
		{
			$now{ $_->{name} } = apps_times($db, $_) for @concerned;
			$db->begin_work;
			$db->do("DROP INDEX $index");
			my ($with, $without, $best) = (0, 0, 0);
			for my $statement (@concerned)
			{
				my $ms = apps_times($db, $statement);
				$with += $statement->{weight} * $now{ $statement->{name} };
				$without += $statement->{weight} * $ms;
				$best = max($best, $ms / $now{ $statement->{name} });
			}
			$db->rollback;
			if ($best < 1.3) { $why = sprintf 'makes none faster than %.2f times', $best }
			elsif ($with >= $without) { $why = sprintf 'costs more than it saves: %.1f and %.1f ms', $with, $without }
		}
		next unless $why;
		push @false, [ delete $built->{$index}, $why ];
		$db->do("DROP INDEX $index");
	}
	$db->do("DROP INDEX $_") for keys %$built;
	my @hurt = grep { $_->[1] > 1.3 } map { [ $_->{name}, $ms{ $_->{name} } / $_->{ms} ] } grep { $_->{kind} ne 'write' } @$statements;
	return { found => \@found, missed => \@missed, false => \@false, impossible => $impossible, hurt => \@hurt, ms => \%ms, bytes => $bytes };
}

1;
