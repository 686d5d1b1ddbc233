# The extension as an administrator meets it: without the preload, dumped and
# restored, upgraded from every released version, and through pg_upgrade.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $conf = slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf");

# A row for each table whose rows belong into a dump.
my %config_row = (
	'perfopt.advice_item' => q{(kind, schema_name, table_name, definition, index_name, ddl, reason, evidence,
		estimated_bytes, status, requested_by)
		VALUES ('create_index', 'public', 't', 'USING btree (a)', 't_a_idx', 'CREATE INDEX ...', 'it''s "missing"', '{"a": 1}',
		8192, 'applied', 'somebody')},
	'perfopt.advice_log' => q{(advice, actor, act, from_status, to_status, detail) VALUES (1, 'somebody', 'apply', 'open', 'queued', 'd')},
	'perfopt.batch_job' => q{(target, target_name, key, key_types, statement, settings, batch_size, workers, chunk_ms, lock_ms,
		max_attempts, max_failed, last_key, estimated_rows, origin, chunk_size, state)
		VALUES ('pg_class', 'pg_catalog.pg_class', '{oid}', '{oid}', 'SELECT $1, $2', '', 1, 1, 1, 1, 1, 1, '{1}', 1, '', 1, 'done')},
	'perfopt.batch_chunk' => q{(job, lower_bound, upper_bound, keys) VALUES (1, '{1}', '{2}', 1)},
	'perfopt.cache_writes' => q{(key, statement, parameter_types, parameters, settings, failed_at)
		VALUES ('k', 'SELECT $1', '{integer}', '{1}', '', now())},
	'perfopt.index_usage' => q{(schema_name, index_name, table_name, index_oid, scans, unused_since, table_uses, other_indexes)
		VALUES ('public', 'i "quoted"', 't', 16384, 7, '2026-01-01', 8, '{a,"b c"}')},
	'perfopt.index_usage_state' => q{(looked_at, database_reset, system_identifier, database) VALUES ('2026-01-01', '2025-01-01', 7, 5)},
	'perfopt.insert_spool' => q{(role, target, payload, next_attempt_at)
		VALUES (current_user::regrole, 'pg_class', '{"a": 1}', 'infinity')},
	'perfopt.rejected_rows' => q{(batch, target, ordinal, sqlstate, message, payload)
		VALUES (1, 'public.t', 7, '23505', 'it''s there', '{"a": "it''s \"quoted\""}')});

sub new_node
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	$node->init;
	$node->append_conf('postgresql.conf', $conf);
	# nothing but the test writes
	$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nperfopt.sample_interval = 0");
	return $node;
}

# What the extension consists of, in a database.
sub objects
{
	my ($node, $db) = @_;
	my $list = $node->safe_psql($db, slurp_file("$root/test/tools/extension_objects.sql"));
	return $list;
}

# Everything in the schema that can be read or called without arguments.
my $readable = q{
	SELECT format('SELECT * FROM %s', c.oid::regclass) FROM pg_class c
	WHERE c.relnamespace = 'perfopt'::regnamespace AND c.relkind IN ('r', 'v', 'm')
	UNION ALL
	SELECT format('SELECT * FROM %s()', p.oid::regproc) FROM pg_proc p
	WHERE p.pronamespace = 'perfopt'::regnamespace AND p.prokind = 'f' AND p.pronargs = p.pronargdefaults
		AND p.prorettype <> 'trigger'::regtype
	ORDER BY 1};

# Without the preload
my $node = new_node('main');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
my ($rc, $out, $err) = $node->psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
is($rc, 0, 'CREATE EXTENSION works without the preload') or BAIL_OUT($err);
like($err, qr/installing required extension "pg_stat_statements"/, 'CASCADE installs pg_stat_statements');

my ($needing, $other) = (0, 0);
foreach my $statement (split /\n/, $node->safe_psql('postgres', $readable))
{
	($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$statement");
	# reading pg_stat_statements itself needs its own preload
	next if $rc == 0 || $err =~ /pg_stat_statements must be loaded/;
	$needing++;
	next if $err =~ /ERROR:  55000: .*shared_preload_libraries.*\nHINT:  .*shared_preload_libraries/s;
	$other++;
	diag("$statement: $err");
}
is($other, 0, 'what needs the preload says so, with a hint');
cmp_ok($needing, '>', 0, 'something needs it');
is($node->safe_psql('postgres', 'SELECT 1'), '1', 'the server is well');

# Dump and restore
$node->append_conf('postgresql.conf', $conf);
$node->restart;
$node->safe_psql('postgres', "CREATE DATABASE source; CREATE DATABASE target");
$node->safe_psql('source', 'CREATE EXTENSION perfopt CASCADE');
my @config_tables = split /\n/, $node->safe_psql('source',
	q{SELECT c.oid::regclass FROM pg_extension, unnest(extconfig) t JOIN pg_class c ON c.oid = t
	WHERE extname = 'perfopt' AND c.relkind = 'r' ORDER BY 1});
my @config_sequences = split /\n/, $node->safe_psql('source',
	q{SELECT c.oid::regclass FROM pg_extension, unnest(extconfig) t JOIN pg_class c ON c.oid = t
	WHERE extname = 'perfopt' AND c.relkind = 'S' ORDER BY 1});
is_deeply([ sort keys %config_row ], [ sort @config_tables ], 'this test has a row for each configuration table');
$node->safe_psql('source', "INSERT INTO $_ $config_row{$_}") foreach reverse sort keys %config_row;

my $dump = "$PostgreSQL::Test::Utils::tmp_check/dump_$$.sql";
$node->command_ok([ 'pg_dump', '-d', $node->connstr('source'), '-f', $dump ], 'pg_dump');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('target'), '-f', $dump ], 'restore');
isnt(objects($node, 'source'), '', 'there are objects to compare');
is(objects($node, 'target'), objects($node, 'source'), 'the restored extension is the same');
sub config_rows
{
	my ($n, $db) = @_;
	return join "\n", (map { $n->safe_psql($db, "SELECT '$_', t FROM $_ t ORDER BY 2") } @config_tables),
		(map { $n->safe_psql($db, "SELECT '$_', last_value, is_called FROM $_") } @config_sequences);
}
is(config_rows($node, 'target'), config_rows($node, 'source'), 'rows of configuration tables and positions of their sequences are in the dump');

# Dropped and made again
$node->safe_psql('target', 'DROP EXTENSION perfopt');
is($node->safe_psql('target',
		q{SELECT count(*) FROM pg_class WHERE relnamespace = 'perfopt'::regnamespace}), '0',
	'DROP EXTENSION leaves no relation');
$node->safe_psql('target', 'CREATE EXTENSION perfopt');
is(objects($node, 'target'), objects($node, 'source'), 'the extension made again is the same');

# Upgrades: from every released version there is a path, and it ends in what a
# fresh installation makes.  The runner installs the scripts of the releases.
my $default = $node->safe_psql('postgres',
	"SELECT default_version FROM pg_available_extensions WHERE name = 'perfopt'");
my @released = map { /perfopt--([^-]+)\.sql$/ ? $1 : () } glob("$root/test/upgrade/perfopt--*.sql");
my @from = map { /perfopt--([^-]+)--/ ? $1 : () } glob("$root/src/upgrade/perfopt--*--*.sql");
foreach my $version (@from)
{
	ok((grep { $_ eq $version } @released), "test/upgrade has the script released as $version");
}
foreach my $version (grep { $_ ne $default } @released)
{
	$node->safe_psql('postgres', "CREATE DATABASE from_$$");
	$node->safe_psql("from_$$", "CREATE EXTENSION pg_stat_statements; CREATE EXTENSION perfopt VERSION '$version'");
	$node->safe_psql("from_$$", 'ALTER EXTENSION perfopt UPDATE');
	is(objects($node, "from_$$"), objects($node, 'source'), "upgraded from $version");
	$node->safe_psql('postgres', "DROP DATABASE from_$$");
}
is($node->safe_psql('postgres',
		"SELECT count(*) FROM pg_extension_update_paths('perfopt') WHERE path IS NULL AND target = '$default'"),
	'0', "every installed version has a path to $default");

# pg_upgrade, here to the same version
my $before = objects($node, 'source');
my $rows_before = config_rows($node, 'source');
$node->stop;
my $new = new_node('new');
chdir $PostgreSQL::Test::Utils::tmp_check or die;
command_ok(
	[   'pg_upgrade', '--no-sync', '-d', $node->data_dir, '-D', $new->data_dir,
		'-b', $node->config_data('--bindir'), '-B', $new->config_data('--bindir'),
		'-s', $node->host, '-p', $node->port, '-P', $new->port ],
	'pg_upgrade');
$new->start;
is(objects($new, 'source'), $before, 'the upgraded cluster has the same extension');
is(config_rows($new, 'source'), $rows_before, 'and the same rows');
$new->stop;

done_testing;
