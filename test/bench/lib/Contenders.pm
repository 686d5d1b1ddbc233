# Contenders.pm: what the parts of "advisor" that have several advisors look at
# one application have in common: each in a session of its own, its time and
# its processor time, and the goals said at the end.
package Contenders;

use strict;
use warnings;
use Bench ();
use DBI;
use Exporter 'import';
use Time::HiRes 'time';

our @EXPORT = qw(progress connect_to cpu contender perfopt_rounds perfopt_advise qualstats goal failed);

my $failed = 0;

# One line on a terminal, of what is being done; without arguments it goes
sub progress { printf STDERR "\r\e[K%s", @_ ? sprintf(shift, @_) : '' if -t STDERR; }

sub connect_to
{
	my ($database, %attributes) = @_;
	return DBI->connect("dbi:Pg:dbname=$database;host=$ENV{PGHOST}" . ($ENV{PGPORT} ? ";port=$ENV{PGPORT}" : ''), 'postgres', '',
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, pg_server_prepare => 0, %attributes });
}

# Processor time of a process so far, in seconds
sub cpu { my ($pid) = @_; return (split ' ', Bench::slurp("/proc/$pid/schedstat"))[0] / 1e9; }

# contender(DATABASE, NAME, sub): the sub is given a session and returns the DDL
# it would have, a note, and the processor time where it is another's than that
# of the session and of this process.
sub contender
{
	my ($database, $name, $advise) = @_;
	progress('%s', $name);
	my $session = connect_to($database);
	my ($started, $cpu) = (time, cpu($session->{pg_pid}) + cpu($$));
	my ($ddl, $note, $cpu_seconds) = $advise->($session);
	my $contender = {
		name => $name,
		ddl => $ddl,
		note => $note,
		seconds => time - $started,
		cpu => $cpu_seconds // cpu($session->{pg_pid}) + cpu($$) - $cpu
	};
	$session->disconnect;
	return $contender;
}

# perfopt, from the workload: rounds until one finds what the one before has
# found, but at most MOST.  What there was no time for comes in the next one.
sub perfopt_rounds
{
	my ($session, $most) = @_;
	my $worker = $session->selectrow_array(q(SELECT pid FROM perfopt.workers WHERE datname = current_database()));
	my $cpu = cpu($worker);
	my ($ddl, $rounds, $before) = ([], 0, '');
	do
	{
		$before = "@$ddl";
		$session->do('SELECT perfopt.analyze_now()');
		$ddl = $session->selectcol_arrayref(
			q(SELECT ddl FROM perfopt.advice WHERE kind IN ('create_index', 'index_foreign_key') AND status = 'open' ORDER BY id));
	} while (++$rounds < $most && $before ne "@$ddl");
	return ($ddl, $rounds . ($rounds == 1 ? ' round' : ' rounds'), cpu($worker) - $cpu);
}

# perfopt.advise() of statements
sub perfopt_advise
{
	my ($session, @statements) = @_;
	my $rows = $session->selectall_arrayref('SELECT * FROM perfopt.advise(?)', { Slice => {} }, \@statements);
	return ($rows->[0]{ddl}, '');
}

sub qualstats
{
	my ($session) = @_;
	return ($session->selectcol_arrayref(q(SELECT v FROM json_array_elements_text(pg_qualstats_index_advisor() -> 'indexes') v)), 'its defaults');
}

sub goal
{
	my ($met, $format, @arguments) = @_;
	printf "%s: $format\n", $met ? 'ok' : 'FAIL', @arguments;
	$failed ||= !$met;
}

sub failed { return $failed }

1;
