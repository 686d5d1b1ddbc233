# Restarted.pm: waiting for a server that restarts after one of its processes
# was killed.
package Restarted;

use strict;
use warnings;
use Exporter 'import';
use Time::HiRes qw(usleep);

our @EXPORT = qw(wait_for_restart wait_until_back);

# wait_until_back(NODE, CONDITION): true once the server answers that so it is.
#
# By -c: to a client that is refused while its standard input is written, as
# poll_query_until() does, the test would lose its life by SIGPIPE.
sub wait_until_back
{
	my ($node, $condition) = @_;
	for (1 .. 1800)
	{
		return 1 if $node->psql('postgres', undef, extra_params => [ '-c', "SELECT 1 / ($condition)::int" ], on_error_die => 0) == 0;
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
