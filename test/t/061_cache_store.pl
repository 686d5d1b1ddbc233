# The cache's memory: what is put in comes out or not at all, within its bounds,
# and goes away when told to, in all sessions; what the views say of it.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Restarted;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('cache_store');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.cache_size = 1MB\nautovacuum = off\nrestart_after_crash = on\n");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION perfopt CASCADE;
	CREATE ROLE alice LOGIN;
	CREATE ROLE bob LOGIN;
	CREATE ROLE watcher LOGIN IN ROLE pg_read_all_stats;
	-- a value that tells its key, and whether it is whole
	CREATE FUNCTION put(k text, size int) RETURNS void LANGUAGE sql AS
		$$SELECT perfopt.cache_set(k, jsonb_build_object('k', k, 'size', size, 'p', repeat(left(k, 1), size)),
			interval '1 hour')$$;
	CREATE FUNCTION is_whole(k text, v jsonb) RETURNS boolean LANGUAGE sql AS
		$$SELECT v->>'k' = k AND v->>'p' = repeat(left(k, 1), (v->>'size')::int)$$});

# psql($sql, user): without the words of the commands
sub psql
{
	my ($sql, $user) = @_;
	return $node->safe_psql('postgres', $sql, extra_params => [ '-U', $user ]);
}
sub stat_of { return $node->safe_psql('postgres', "SELECT $_[0] FROM perfopt.cache_stats") }

# Put and get
$node->safe_psql('postgres', q{SELECT put('a:' || i, i) FROM generate_series(1, 20) i});
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM generate_series(1, 20) i, perfopt.cache_get('a:' || i) v
	WHERE is_whole('a:' || i, v)}), 20, 'what was put is found by another session');
is(stat_of('entries'), 20, 'entries are counted');
is($node->safe_psql('postgres', q{
	SELECT string_agg(key_prefix, ' ' ORDER BY key_prefix) = string_agg('a:' || i, ' ' ORDER BY 'a:' || i)
		AND bool_and(current) AND bool_and(face = 'key-value') AND bool_and(rolname = current_user)
		AND bool_and(expires_at > now()) AND bool_and(filled_at <= now()) AND bool_and(bytes > 0)
	FROM perfopt.cache_entries JOIN generate_series(1, 20) i ON key_prefix = 'a:' || i}),
	't', 'and seen in the view');

# The local level
$node->safe_psql('postgres', 'SELECT perfopt.cache_stats_reset()');
my $many = join ';', ("SELECT perfopt.cache_get('a:1') IS NOT NULL") x 200;
$node->safe_psql('postgres', $many);
is(stat_of('hits'), 200, 'hits are counted');
is(stat_of('local_hits'), 199, 'all but the first are answered from the local level');
cmp_ok($node->safe_psql('postgres', q{SELECT hits FROM perfopt.cache_entries WHERE key_prefix = 'a:1'}),
	'>=', 192, 'and the shared level learns of them');
$node->safe_psql('postgres', "SET perfopt.cache_local_size = 0; $many");
is(stat_of('local_hits'), 199, 'a size of 0 turns it off');
is($node->safe_psql('postgres', q{
	SET perfopt.cache_local_size = 64;
	SELECT count(*) FROM generate_series(1, 5), generate_series(1, 20) i, perfopt.cache_get('a:' || i) v
	WHERE is_whole('a:' || i, v)}), 100, 'it makes room for others');

# Bounds
$node->safe_psql('postgres', q{SELECT put('b:' || i, (random() * 3000)::int) FROM generate_series(1, 3000) i});
is(stat_of('bytes <= size_limit'), 't', 'no more bytes than there may be');
is(stat_of('size_limit'), 1024 * 1024, 'size_limit is perfopt.cache_size');
cmp_ok(stat_of('evictions'), '>', 1000, 'others were evicted');
cmp_ok(stat_of('bytes'), '>', 500 * 1024, 'the memory is used');
is($node->safe_psql('postgres', q{
	SELECT bool_and(is_whole('b:' || i, v))
	FROM generate_series(1, 3000) i, perfopt.cache_get('b:' || i) v WHERE v IS NOT NULL}),
	't', 'what has stayed is whole');
is(stat_of('entries = (SELECT count(*) FROM perfopt.cache_entries)
	AND bytes = (SELECT sum(bytes) FROM perfopt.cache_entries)'), 't', 'counters and view agree');
$node->safe_psql('postgres', q{SELECT put('large', 200000)});
is($node->safe_psql('postgres', q{SELECT perfopt.cache_get('large') IS NULL}), 't',
	'more than an eighth of the cache is not kept');
is($node->safe_psql('postgres', q{SELECT put('c', 100000)}), '', 'less is');
is($node->safe_psql('postgres', q{SELECT is_whole('c', perfopt.cache_get('c'))}), 't',
	'however the memory was used before');

# Everybody has his own
psql(q{SELECT put('x:1', 10), put('x:2', 10), put('y:1', 10)}, 'alice');
is(psql(q{SELECT perfopt.cache_get('x:1') IS NULL}, 'bob'), 't', 'other roles do not get it');
is(psql('SELECT count(*) FROM perfopt.cache_entries', 'bob'), 0, 'nor see it');
is(psql(q{SELECT string_agg(key_prefix, ' ' ORDER BY key_prefix) FROM perfopt.cache_entries}, 'alice'),
	'x:1 x:2 y:1', 'whose it is does, and nothing else');
is(psql(q{SELECT count(*) FROM perfopt.cache_entries WHERE rolname = 'alice'}, 'watcher'), 3,
	'and members of pg_read_all_stats');
is(psql('SELECT perfopt.cache_clear()', 'bob'), 0, 'others cannot remove it');
is(psql(q{SELECT perfopt.cache_invalidate_prefix('x:')}, 'bob'), 0, 'by prefix neither');
is(psql(q{SELECT is_whole('x:1', perfopt.cache_get('x:1'))}, 'alice'), 't', 'it is still there');
my ($ret, $out, $err) = $node->psql('postgres', 'SELECT perfopt.cache_stats_reset()', extra_params => [ '-U', 'bob' ]);
like($err, qr/permission denied/, 'resetting counters is for superusers');

# Removing
is(psql(q{SELECT perfopt.cache_invalidate_prefix('x:')}, 'alice'), 2, 'entries are removed by prefix');
is(psql(q{SELECT count(*) FROM perfopt.cache_entries WHERE key_prefix LIKE 'x:%'}, 'alice'), 0, 'and are gone');
is($node->safe_psql('postgres', q{
	SELECT put(repeat('l', 900) || i, 1) FROM generate_series(1, 5) i;
	SELECT put(repeat('l', 899) || 'm', 1);
	SELECT perfopt.cache_invalidate_prefix(repeat('l', 900))}), "\n" x 6 . '5', 'by a long prefix, too');
($ret, $out, $err) = $node->psql('postgres', q{SELECT perfopt.cache_invalidate_prefix('')});
like($err, qr/prefix must not be empty/, 'an empty prefix is refused');

my $session = $node->background_psql('postgres', extra_params => [ '-U', 'alice' ]);
$session->query_safe(q{SELECT put('z:1', 10)});
is($session->query_safe(q{SELECT perfopt.cache_get('z:1')->>'k'}), 'z:1', 'a session has a local copy');
psql('SELECT perfopt.cache_clear()', 'alice');
is($session->query_safe(q{SELECT perfopt.cache_get('z:1') IS NULL}), 't', 'which does not survive a clear elsewhere');
$session->query_safe(q{SELECT put('z:2', 10)});
$session->query_safe(q{SELECT perfopt.cache_get('z:2')});
cmp_ok($node->safe_psql('postgres', 'SELECT perfopt.cache_clear()'), '>', 0, 'a superuser removes what all have');
is(stat_of('entries'), 0, 'nothing is left');
is(stat_of('bytes'), 0, 'not a byte');
is($session->query_safe(q{SELECT perfopt.cache_get('z:2') IS NULL}), 't', 'and no copies');
$session->quit;

# Many at the same time
$node->append_conf('postgresql.conf', 'log_min_messages = warning');
$node->safe_psql('postgres', 'SELECT pg_reload_conf()');
$node->pgbench('--no-vacuum --client=6 --jobs=2 --transactions=400', 0, [qr/processed: 2400\/2400/], [qr/^$/],
	'values stay whole while many put, get and evict',
	{ '061_cache_store@3' => q{
		\set k random(1, 300)
		\set size random(1, 20000)
		SELECT put('m' || :k, :size);
	}, '061_cache_store_get@7' => q{
		\set k random(1, 300)
		SELECT 1 / (CASE WHEN v IS NULL OR is_whole('m' || :k, v) THEN 1 ELSE 0 END) FROM perfopt.cache_get('m' || :k) v;
	}, '061_cache_store_remove@1' => q{
		SELECT perfopt.cache_invalidate_prefix('m1');
	} });
is(stat_of('entries = (SELECT count(*) FROM perfopt.cache_entries)
	AND bytes = (SELECT COALESCE(sum(bytes), 0) FROM perfopt.cache_entries)'), 't', 'and nothing is lost');

# After a crash
$node->safe_psql('postgres', q{SELECT put('k', 10)});
my $victim = $node->background_psql('postgres');
my $pid = $victim->query_safe('SELECT pg_backend_pid()');
kill 'KILL', $pid;
$victim->{run}->finish;
ok(wait_for_restart($node, $pid), 'the server restarts');
is(stat_of('entries'), 0, 'after a crash the cache is empty');
$node->safe_psql('postgres', q{SELECT put('k', 10)});
is($node->safe_psql('postgres', q{SELECT perfopt.cache_get('k')->>'k'}), 'k', 'and works');

$node->stop;
done_testing();
