# Clients.pm: real clients for the tests of what perfopt finds in their
# workload.
#
# A client is a program of test/clients that reads a line of JSON for each thing
# to do, does it over a connection of its own, and answers with a line: "done",
# or what went wrong.  So a program is started once, and the test looks after
# each thing it did.
package Clients;

use strict;
use warnings;
use Exporter 'import';
use IPC::Open2;
use JSON::PP;
use Test::More;
use Time::HiRes;

our @EXPORT = qw(python node missing_node start_client found shown gone);

my $clients = ($ENV{PERFOPT_ROOT} || '.') . '/test/clients';
my $json = JSON::PP->new->canonical;

# Debian's, whose packages the clients are, whatever comes first on the PATH
sub python { return ('/usr/bin/python3', '-B', "$clients/" . shift); }

sub node
{
	my ($script) = @_;
	return ('env', "NODE_PATH=$ENV{PERFOPT_NODE_MODULES}", $ENV{PERFOPT_NODE} || 'node', "$clients/$script");
}

# Why there is no node with its packages, or nothing
sub missing_node
{
	return if $ENV{PERFOPT_NODE_MODULES};
	return $ENV{PERFOPT_NO_NODE} || 'PERFOPT_NODE_MODULES names no folder: test/tools/install_clients.sh makes one';
}

# start_client(NODE, COMMAND...): a function that has the program do something,
# and dies when that fails: $do->(name => ..., application_name => ..., ...)
sub start_client
{
	my ($node, @command) = @_;
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres', PGUSER => 'shop');
	my $pid = open2(my $from, my $to, @command);
	return sub {
		my (%what) = @_;
		unless (%what)
		{
			close $to;
			waitpid $pid, 0;
			return $? == 0;
		}
		print $to $json->encode(\%what), "\n";
		$to->flush;
		local $SIG{ALRM} = sub { kill 'KILL', $pid; die "no answer to $what{name} of @command" };
		alarm 60;
		my $answer = <$from>;
		alarm 0;
		$answer //= "the program ended\n";
		chomp $answer;
		die "@command, $what{name}: $answer\n" if $answer ne 'done';
		return 1;
	};
}

# gone(NODE, APPLICATION): waits until its sessions have ended
sub gone
{
	my ($node, $application) = @_;
	return $node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = '$application' AND pid <> pg_backend_pid()");
}

# found(NODE, APPLICATION): the view's rows of it, as hashes
sub found
{
	my ($node, $application) = @_;
	return @{ $json->decode($node->safe_psql('postgres', qq{
		SELECT coalesce(json_agg(n ORDER BY kind, queryid), '[]') FROM perfopt.n_plus_one n
		WHERE application_name = '$application'})) };
}

# shown(ROW...): for people
sub shown
{
	return 'nothing' unless @_;
	return join '; ', map {
		my $row = $_;
		sprintf '%s, loops %d, runs %d, %.0f of %s rows: %s', $row->{kind}, $row->{loops}, $row->{runs},
		  $row->{rows} // 0, $row->{source_rows} // 'no', $row->{query} // '?' } @_;
}

1;
