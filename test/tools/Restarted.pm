# Restarted.pm: waiting for a server that restarts after one of its processes
# was killed.
package Restarted;

use strict;
use warnings;
use Exporter 'import';
use Time::HiRes qw(usleep);

our @EXPORT = qw(psql_if_there wait_for_restart wait_until_back);

# psql_if_there(NODE, STATEMENT): its exit status, also from a server that is gone.
#
# By -c: to a client that is refused while its standard input is written, as
# psql() and poll_query_until() do, the test would lose its life by SIGPIPE.
sub psql_if_there
{
	my ($node, $statement) = @_;
	return $node->psql('postgres', undef, extra_params => [ '-c', $statement ], on_error_die => 0);
}

# wait_until_back(NODE, CONDITION): true once the server answers that so it is.
sub wait_until_back
{
	my ($node, $condition) = @_;
	for (1 .. 1800)
	{
		return 1 if psql_if_there($node, "SELECT 1 / ($condition)::int") == 0;
		usleep(100_000);	# between two looks
	}
	return 0;
}

# wait_for_restart(NODE, PID...): the same once none of these processes is there.
sub wait_for_restart
{
	my ($node, @pids) = @_;
	return wait_until_back($node, 'SELECT count(*) = 0 FROM pg_stat_activity WHERE pid IN (' . join(', ', @pids) . ')');
}

1;
