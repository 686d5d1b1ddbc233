# Results that depend on more than tables' rows, and snapshots for which a ring
# could be read wrongly.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('cache_exact');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->safe_psql('postgres', slurp_file("$root/test/tools/stop_points.sql"));

sub sql { my ($sql) = @_; return $node->safe_psql('postgres', $sql); }
sub call { my ($query) = @_; return "SELECT perfopt.cached_json(\$query\$$query\$query\$)"; }
sub session { return $node->background_psql('postgres', on_error_stop => 0); }

# Twice, so that it is in the cache.
sub fill { my ($query) = @_; sql(call($query)) for 1 .. 2; return; }

# ---- definitions that no table stands for
sql(q{
	CREATE SCHEMA early;
	CREATE SCHEMA late;
	CREATE TYPE mood AS ENUM ('sad', 'ok');
	CREATE TYPE pair AS (a int, b int);
	CREATE DOMAIN positive AS int CHECK (value > 0);
	CREATE DOMAIN late.amount AS numeric(10, 2);
	CREATE TEXT SEARCH CONFIGURATION words (COPY = english);
	CREATE TABLE t (id int PRIMARY KEY, m mood, p pair, n numeric, v text);
	INSERT INTO t VALUES (1, 'ok', (1, 2), 5.1234, 'running');
	SELECT perfopt.cache_track('t')});

# Within the transaction that changes it, and after it has been rolled back
sub undone
{
	my ($name, $query, $change, $old, $new) = @_;
	is(sql('SELECT FROM perfopt.cache_clear(); BEGIN; ' . "$change; " . call($query) . '; ROLLBACK; ' . call($query)),
		"$new\n$old", "$name: what was computed in between is not published");
	fill($query);
	is(sql("BEGIN; $change; " . call($query) . '; ROLLBACK'), $new, "$name: seen by the transaction that changed it");
}
undone('label of an enum', 'SELECT m FROM t', q{ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'},
	'[{"m": "ok"}]', '[{"m": "fine"}]');
undone('text search', q{SELECT to_tsvector('words', v) AS w FROM t},
	'ALTER TEXT SEARCH CONFIGURATION words ALTER MAPPING FOR asciiword WITH simple',
	q{[{"w": "'run':1"}]}, q{[{"w": "'running':1"}]});

fill('SELECT p FROM t');
sql('ALTER TYPE pair RENAME ATTRIBUTE a TO first');
is(sql(call('SELECT p FROM t')), '[{"p": {"b": 2, "first": 1}}]', 'attribute of a composite type');

fill('SELECT id::positive AS id FROM t');
sql('ALTER DOMAIN positive ADD CHECK (value > 10)');
my ($result, $out, $error) = $node->psql('postgres', call('SELECT id::positive AS id FROM t'));
like($error, qr/violates check constraint/, 'constraint of a domain');

my $path = 'SET search_path = early, late, public; ';
sql($path . call('SELECT n::amount AS n FROM t')) for 1 .. 2;
sql('CREATE DOMAIN early.amount AS numeric(10, 3)');
is(sql($path . call('SELECT n::amount AS n FROM t')), '[{"n": 5.123}]', 'a type in front of another one');

# ---- what only one session sees
my $session = session();
my $other = session();
$session->query_safe('CREATE TEMP TABLE part_of_t () INHERITS (t)');
$other->query_safe(call('SELECT count(*) FROM t')) for 1 .. 2;
$session->query_safe(q{INSERT INTO part_of_t VALUES (2)});
$session->query(call('SELECT count(*) FROM t'));
like($session->{stderr}, qr/temporary table "part_of_t"/, 'a temporary table that inherits');
$session->{stderr} = '';
is($other->query_safe(call('SELECT count(*) FROM t')), '[{"count": 1}]', '... does not matter to others');
$session->query_safe(q{CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'});
$session->query(call('SELECT pg_temp.f()'));
like($session->{stderr}, qr/Function "f" is temporary/, 'a temporary function');
$session->quit;

# ---- a time as a parameter
my $now = q{SELECT perfopt.cache_get_or_compute('time', 'SELECT $1::timestamptz AS t', ROW(text 'now'))};
isnt(sql($now), sql($now), 'a parameter that means the time');

# ---- a partition that is being detached belongs to older snapshots
sql(q{
	CREATE TABLE parts (id int) PARTITION BY RANGE (id);
	CREATE TABLE parts1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
	CREATE TABLE parts2 PARTITION OF parts FOR VALUES FROM (10) TO (20);
	INSERT INTO parts VALUES (1), (11);
	SELECT perfopt.cache_track('parts')});
my $old = session();
$old->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM parts');
my $detaching = session();
$detaching->query_until(qr/begun/, "\\echo begun\nALTER TABLE parts DETACH PARTITION parts2 CONCURRENTLY;\n");
ok($node->poll_query_until('postgres', 'SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = $$parts2$$::regclass'),
	'a partition is being detached');
fill('SELECT count(*) FROM parts');
is(sql(call('SELECT count(*) FROM parts')), '[{"count": 1}]', 'new snapshots do not see it');
is($old->query_safe(call('SELECT count(*) FROM parts')), '[{"count": 2}]', 'an older one does');
$old->query_safe('COMMIT');
$old->quit;
$detaching->quit;

# ---- a writer that registers late, with a snapshot from before
# The ring is full, and an older writer that is prepared falls off as soon as it
# has committed.  One that has looked at what is running before that must not
# let it seem visible to whom it is not.
sql(q{CREATE TABLE ring (id int); INSERT INTO ring VALUES (0); SELECT perfopt.cache_track('ring')});
fill('SELECT count(*) FROM ring');
sql('INSERT INTO ring VALUES (1)') for 1 .. 9;
my $count = 'SELECT count(*) FROM ring';
my $late = session();
$late->query_safe('BEGIN; INSERT INTO ring VALUES (2)');
# the barrier and what was before have fallen off, and are older than all that follows
sql("BEGIN; INSERT INTO ring VALUES (3); PREPARE TRANSACTION 'oldest'");
sql('INSERT INTO ring VALUES (4)') for 1 .. 7;
sql(q{SELECT stop_point_set('cache-register', 'wait')});
$late->query_until(qr/begun/, "\\echo begun\nCOMMIT;\n");
ok($node->poll_query_until('postgres', q{SELECT stop_point_waiters('cache-register') = 1}), 'a writer is about to register');
sql(q{SELECT stop_point_set('cache-register', 'pass')});
sql('SELECT txid_current()');
my $reader = session();
$reader->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
sql("COMMIT PREPARED 'oldest'");
my $filler = session();
$filler->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1');
sql('INSERT INTO ring VALUES (5)');
sql(q{SELECT stop_point_clear('cache-register')});
$late->query_safe('SELECT 1');
sql('SELECT FROM perfopt.cache_clear()');
my $filled = $filler->query_safe(call($count));
is($filled, '[{"count": ' . $filler->query_safe($count) . '}]', 'exact for a snapshot after it had committed');
is($reader->query_safe(call($count)), '[{"count": ' . $reader->query_safe($count) . '}]', 'exact for one before');
isnt($reader->query_safe(call($count)), $filled, '... which sees less');
$_->quit for $late, $reader, $filler, $other;

$node->stop;
done_testing();
