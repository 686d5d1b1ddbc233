# Survey.pm: a server of its own for a test of duty "survey", which runs on demand only.
package Survey;

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(start_server sql flushed survey advice);

my $node;

# start_server(NAME, CONF, init's arguments): the node, with the extension.
sub start_server
{
	my ($name, $conf, @init) = @_;
	my $root = $ENV{PERFOPT_ROOT} || '.';

	$node = PostgreSQL::Test::Cluster->new($name);
	$node->init(@init);
	$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
	$node->append_conf('postgresql.conf',
		"perfopt.advice_interval = 0\nperfopt.survey_interval = 0\nautovacuum = off\n$conf");
	$node->start;
	sql('CREATE EXTENSION perfopt CASCADE');
	return $node;
}

sub sql { return $node->safe_psql('postgres', $_[0]); }

# Counters of a session reach the server's when it ends.
sub flushed
{
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()});
}

sub survey
{
	flushed();
	$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM perfopt.workers WHERE datname = 'postgres' AND pid IS NOT NULL}) or die 'no worker';
	return sql('SELECT perfopt.survey_now()');
}

# advice(KIND): the definitions of what is open.
sub advice
{
	my ($kind) = @_;
	return sql("SELECT coalesce(string_agg(definition, ', ' ORDER BY definition COLLATE \"C\"), '') FROM perfopt.advice_item WHERE kind = '$kind' AND status = 'open'");
}

1;
