# Restarted.pm: waiting for a server that restarts after one of its processes
# was killed.
package Restarted;

use strict;
use warnings;
use Exporter 'import';
use Time::HiRes qw(usleep);

our @EXPORT = qw(wait_for_restart);

# wait_for_restart(NODE, PID...): true once the server answers and has none of
# these processes.
#
# By -c: to a client that is refused while its standard input is written, as
# poll_query_until() does, the test would lose its life by SIGPIPE.
sub wait_for_restart
{
	my ($node, @pids) = @_;
	my $gone = 'SELECT 1 / (count(*) = 0)::int FROM pg_stat_activity WHERE pid IN (' . join(', ', @pids) . ')';
	for (1 .. 1800)
	{
		return 1 if $node->psql('postgres', undef, extra_params => [ '-c', $gone ], on_error_die => 0) == 0;
		usleep(100_000);	# between two looks
	}
	return 0;
}

1;
