# Loops become advice, and stop being it; sessions that end, and standbys.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('main');
$node->init(allows_streaming => 1);
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', q{
perfopt.sample_interval = 0
perfopt.advice_interval = 0
perfopt.n_plus_one_interval = 0
perfopt.n_plus_one_max_gap = 1min
perfopt.n_plus_one_min_lost = 40
autovacuum = off
});
$node->start;
$node->safe_psql('postgres', q{CREATE EXTENSION perfopt CASCADE;
	CREATE TABLE users (id bigint PRIMARY KEY, name text);
	INSERT INTO users SELECT i, 'name' FROM generate_series(1, 100) i;
	CREATE TABLE log (a int);
	CREATE ROLE alice LOGIN});

sub look
{
	my ($sql, $on) = @_;
	local $ENV{PGOPTIONS} = '-c perfopt.detect_n_plus_one=off';
	return ($on || $node)->safe_psql('postgres', $sql);
}
my @users = ('SELECT id FROM users ORDER BY id LIMIT 20;', map { "SELECT name, pg_sleep(0.003) FROM users WHERE id = $_;" } 1 .. 20);

# Advice
$node->safe_psql('postgres', join "\n", @users);
$node->safe_psql('postgres', join "\n", map { "INSERT INTO log SELECT $_ FROM pg_sleep(0.003);" } 1 .. 20);
$node->safe_psql('postgres', join "\n", map { "INSERT INTO log VALUES ($_ + length(pg_sleep(0.003)::text));" } 1 .. 20);
$node->safe_psql('postgres', join "\n", ('SELECT name, pg_sleep(0.003) FROM users WHERE id = 1;') x 20);
sub min_lost
{
	my ($value) = @_;
	look("ALTER SYSTEM SET perfopt.n_plus_one_min_lost = '$value'");
	$node->reload;
	$node->poll_query_until('postgres', "SELECT current_setting('perfopt.n_plus_one_min_lost') = '$value'") or die;
}
min_lost('1h');
look('SELECT perfopt.advise_n_plus_one_now()');
is(look('SELECT count(*) FROM perfopt.advice'), '0', 'loops that lose little are no advice');
min_lost('40ms');
look('SELECT perfopt.advise_n_plus_one_now()');
is(look(q{SELECT string_agg(kind || ' ' || status, ', ' ORDER BY kind) FROM perfopt.advice}),
	'batchable_inserts open, cacheable_query open, n_plus_one open', 'what loses enough is advised, once for each kind');
like(look(q{SELECT reason FROM perfopt.advice WHERE kind = 'n_plus_one'}),
	qr/^Run once for each row of another statement: 20 runs in one loop lost 0\.\d s, \d+\.\d\d ms a run; one statement for all rows would do\.$/, 'the reason');
is(look(q{SELECT instead FROM perfopt.advice WHERE kind = 'n_plus_one'}), 'SELECT * FROM perfopt.fetch_many(NULL::public.users, $1::bigint[])', 'the call to use');
is(look(q{SELECT evidence ->> 'runs', evidence ->> 'source_query', evidence ? 'function', (evidence ->> 'lost_ms')::float8 > 50
	FROM perfopt.advice WHERE kind = 'n_plus_one'}), '20|SELECT id FROM users ORDER BY id LIMIT $1|f|t', 'the evidence');
my $id = look(q{SELECT id FROM perfopt.advice WHERE kind = 'n_plus_one'});
my ($rc, $out, $err) = $node->psql('postgres', "SELECT perfopt.apply_advice($id)");
like($err, qr/ERROR:  advice $id is not for the server to apply or revert\nDETAIL:  Only the application can follow advice of kind n_plus_one\.\nHINT:/, 'nobody but the application can follow it');
is($node->safe_psql('postgres', 'SELECT perfopt.analyze_now() >= 3'), 't', 'the index advisor goes on beside it');

# It is kept up to date, and one row each
$node->safe_psql('postgres', join "\n", @users);
look('SELECT perfopt.advise_n_plus_one_now()') for 1 .. 2;
is(look(q{SELECT count(*), max(evidence ->> 'runs') FROM perfopt.advice WHERE kind = 'n_plus_one'}), '1|40', 'new figures');
look('SELECT perfopt.reset_n_plus_one()');
look(q{UPDATE perfopt.advice_item SET last_seen = last_seen - interval '25 hours', first_seen = first_seen - interval '25 hours'});
look('SELECT perfopt.advise_n_plus_one_now()');
is(look('SELECT DISTINCT status FROM perfopt.advice'), 'obsolete', 'not seen for a day: obsolete');
$node->safe_psql('postgres', join "\n", @users);
look('SELECT perfopt.advise_n_plus_one_now()');
is(look("SELECT status, first_seen > now() - interval '1 hour' FROM perfopt.advice WHERE id = $id"), 'open|t', 'seen again: open again');
look(q{UPDATE perfopt.advice_item SET last_seen = last_seen - interval '31 days' WHERE status = 'obsolete'});
look('SELECT perfopt.advise_n_plus_one_now()');
is(look('SELECT count(*) FROM perfopt.advice'), '1', 'after a month it is forgotten');
($rc, $out, $err) = $node->psql('postgres', 'SELECT perfopt.advise_n_plus_one_now()', extra_params => [ '-U', 'alice' ]);
like($err, qr/permission denied/, 'not everybody has it looked for');
is(look('SELECT sum(errors) FROM perfopt.workers'), '0', 'no duty had an error');

# Names as long as they get, and roles that are gone, do not end the duty
my $type = join '', map { chr(97 + $_ % 26) } 1 .. 40;
look("CREATE SCHEMA x; " . join ' ', map { "CREATE DOMAIN x.${type}_" . substr(unpack('H*', pack('N', $_ * 40503 * 40503 % 2**32)), 0, 8) . "$_ AS int;" } 1 .. 60);
look(q{DO $do$ BEGIN EXECUTE (SELECT format('CREATE FUNCTION x.f(%s) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
	FOR i IN 1 .. 20 LOOP PERFORM name, pg_sleep(0.003) FROM users WHERE id = 1; END LOOP; END $$',
	string_agg('a' || md5(i::text) || ' x.' || typname || ' DEFAULT NULL', ', ')) FROM (SELECT typname, row_number() OVER () AS i
	FROM pg_type WHERE typnamespace = 'x'::regnamespace AND typtype = 'd') t); END $do$});
$node->safe_psql('postgres', 'SELECT x.f()');
foreach my $role (qw(r1 r2))
{
	look("CREATE ROLE $role LOGIN; GRANT SELECT ON users TO $role");
	$node->safe_psql('postgres', join("\n", @users), extra_params => [ '-U', $role ]);
	look("DROP OWNED BY $role; DROP ROLE $role");
}
look('SELECT perfopt.advise_n_plus_one_now()') for 1 .. 2;
is(look(q{SELECT length(evidence ->> 'function') FROM perfopt.advice WHERE reason LIKE '%x.f(%'}) =~ /^5\d\d$/, 1, 'a long name is cut');
is(look(q{SELECT count(*) FROM perfopt.advice_item WHERE role_name = ''}), '0', 'roles that are gone have no advice');
look('DROP SCHEMA x CASCADE');

# Two applications with one loop: one advice
look('SELECT perfopt.reset_n_plus_one()');
$node->safe_psql('postgres', join "\n", "SET application_name = '$_';", @users) foreach qw(shop mail);
look('SELECT perfopt.advise_n_plus_one_now()');
is(look(q{SELECT evidence ->> 'runs', evidence ->> 'application_name' FROM perfopt.advice WHERE kind = 'n_plus_one'}), '40|mail, shop', 'one advice for two applications');

# As soon as the last run is over, without anything more from the session
look('SELECT perfopt.reset_n_plus_one()');
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query($_) foreach 'SELECT id FROM users ORDER BY id LIMIT 10', map { "SELECT name FROM users WHERE id = $_" } 1 .. 10;
is(look('SELECT runs FROM perfopt.n_plus_one'), '10', 'a loop is seen while its session is idle');
$session->query("SELECT name FROM users WHERE id = $_") foreach 11 .. 20;
is(look('SELECT count(*) FROM perfopt.n_plus_one'), '0', 'and taken back when it goes on');
# a long loop is told in steps; its end tells the rest
$session->query('BEGIN;' . join ';', map { "INSERT INTO log VALUES ($_)" } 1 .. 1050);
is(look('SELECT runs FROM perfopt.n_plus_one'), '1024', 'a long one in steps');
$session->query('COMMIT');
$session->query('DISCARD ALL');
is(look(q{SELECT runs FROM perfopt.n_plus_one}), '1050', 'the rest at its end');
$session->quit;

# A standby
$node->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'backup', has_streaming => 1);
$standby->start;
$standby->safe_psql('postgres', join "\n", @users);
is(look('SELECT kind, runs FROM perfopt.n_plus_one', $standby), 'n_plus_one|20', 'loops on a standby are seen there');
$standby->stop;
$node->stop;
done_testing();
