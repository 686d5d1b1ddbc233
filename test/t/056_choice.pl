# The choice over the whole workload: what writes cost, budgets, and indexes
# that become superfluous.  ANALYZE looks at all rows: no chance in the estimates.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = $ENV{PERFOPT_ROOT} || '.';
my $node = PostgreSQL::Test::Cluster->new('choice');
$node->init;
$node->append_conf('postgresql.conf', slurp_file($ENV{PERFOPT_CONF} || "$root/test/perfopt.conf"));
$node->append_conf('postgresql.conf', "perfopt.advice_interval = 0\nautovacuum = off\nperfopt.advice_storage_budget = -1\nperfopt_test.statement_ms = 5\ndefault_statistics_target = 1000\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION perfopt CASCADE');
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM perfopt.workers WHERE datname = 'postgres' AND pid IS NOT NULL})
  or die 'no worker';
my $sql = sub { $node->safe_psql('postgres', join ";\n", @_) };

# Start over with these statements only, and what is advised then
sub advised_for
{
	$sql->('SELECT perfopt.reset_latency()');
	$sql->('DELETE FROM perfopt.advice_item');
	$sql->(@_);
	return advised();
}
sub advised
{
	$sql->('SELECT perfopt.analyze_now()');
	return $sql->(q{SELECT string_agg(relation || ' ' || substring(ddl from '\(.*'), ', ' ORDER BY relation, ddl COLLATE "C")
		FROM perfopt.advice WHERE status = 'open'});
}
sub setting
{
	my ($name, $value) = @_;
	$sql->("ALTER SYSTEM SET $name = '$value'", 'SELECT pg_reload_conf()');
	$node->poll_query_until('postgres', "SELECT current_setting('$name') = '$value'") or die $name;
}

# Updates that are HOT: pages are half empty.  A table that is made anew under its old
# name meets, from 18 on, the samples of statements over the one before.
sub carts
{
	$sql->("CREATE TABLE carts (id int PRIMARY KEY, state int, note int, filler text) WITH (fillfactor = 45)",
		"INSERT INTO carts SELECT i, i % 1000, 0, repeat('f', 80) FROM generate_series(1, 40000) i", "VACUUM ANALYZE carts");
	return map { "SELECT * FROM carts WHERE state = $_" } 1 .. 6;
}
my @thirds = map { "WHERE id % 3 = $_" } 0 .. 2;
my @reads = carts();
is(advised_for(@reads), 'public.carts (state)', 'an index that helps to read');
is(advised_for(@reads, map { "UPDATE carts SET state = state + 5000 $_" } @thirds), '', 'not advised where updates would be HOT no longer');
$sql->('DROP TABLE carts');
@reads = carts();
is(advised_for(@reads, map { "UPDATE carts SET note = note + 1 $_" } @thirds), 'public.carts (state)', 'updates of other columns stay HOT');
is($sql->(q{SELECT n_tup_hot_upd > 35000 FROM pg_stat_user_tables WHERE relname = 'carts'}), 't', 'they were HOT');
$sql->('SELECT perfopt.reset_latency()');
$sql->(map { "UPDATE carts SET state = 1 WHERE id = $_" } 1 .. 3);
is($sql->(q{SELECT count(*) FROM perfopt.plan_samples s JOIN pg_stat_statements q USING (queryid)
	WHERE q.query LIKE 'UPDATE carts SET state = $_ WHERE id =%'}), '1', 'a cheap UPDATE is sampled once');
$sql->('DROP TABLE carts');
@reads = carts();
is(advised_for(@reads, map { "INSERT INTO carts SELECT * FROM carts $_ ON CONFLICT (id) DO UPDATE SET state = excluded.state + 5000" } @thirds), '',
	'INSERT that updates what is there keeps updates from being HOT as well');
$sql->('DROP TABLE carts');

# Rows inserted
$sql->('CREATE TABLE log (at int, source int, message text)',
	q{INSERT INTO log SELECT i, i % 5000, repeat('m', 80) FROM generate_series(1, 30000) i}, 'VACUUM ANALYZE log');
@reads = map { "SELECT * FROM log WHERE source = $_" } 1 .. 6;
is(advised_for(@reads), 'public.log (source)', 'an index on a table that has been loaded');
is(advised_for(@reads, map { "INSERT INTO log SELECT i, i, 'm' FROM generate_series(1, 50000) i" } 1 .. 3), '',
	'not advised where many rows are inserted');
$sql->('DROP TABLE log');
$sql->('CREATE TABLE log (at int, source int, message text) PARTITION BY RANGE (at)',
	map({ "CREATE TABLE log_$_ PARTITION OF log FOR VALUES FROM ($_) TO ($_ + 1)" } 0 .. 2),
	q{INSERT INTO log SELECT i % 2, i % 5000, repeat('m', 80) FROM generate_series(1, 30000) i}, 'VACUUM ANALYZE log');
like(advised_for(@reads), qr/^public\.log \(source\)/, 'the same of a partitioned table');
is(advised_for(@reads, map { "INSERT INTO log SELECT 2, i, 'm' FROM generate_series(1, 50000) i" } 1 .. 3), '',
	'... into a partition of which many rows are inserted');
$sql->('DROP TABLE log');

# 30 ms of reading, and entries of 5 us each
$sql->('CREATE TABLE diary (at int, source int, message text)',
	q{INSERT INTO diary SELECT i, i % 5000, repeat('m', 80) FROM generate_series(1, 30000) i}, 'VACUUM ANALYZE diary');
@reads = map { "SELECT * FROM diary WHERE source = $_" } 1 .. 6;
is(advised_for(@reads, q{INSERT INTO diary SELECT i, i, 'm' FROM generate_series(1, 8000) i}), 'public.diary (source)',
	'a statement made much faster is worth a little more of writes than it saves');
is(advised_for(@reads, q{INSERT INTO diary SELECT i, i, 'm' FROM generate_series(1, 13000) i}), '', '... not twice as much');
$sql->('DROP TABLE diary');

# A share of the time, or so much that it counts anyway
$sql->('CREATE TABLE seldom (a int, filler text)', q{INSERT INTO seldom SELECT i, repeat('f', 60) FROM generate_series(1, 30000) i}, 'VACUUM ANALYZE seldom');
setting('perfopt.advice_min_share', '1');
@reads = map { "SELECT * FROM seldom WHERE a = $_" } 1 .. 6;
is(advised_for('SET perfopt_test.statement_ms = 400', @reads), '', 'less than its share of the time, and little');
is(advised_for('SET perfopt_test.statement_ms = 1000', @reads), 'public.seldom (a)', '... and seconds, of a statement made much faster');
setting('perfopt.advice_min_share', '0.01');
$sql->('DROP TABLE seldom');

# Bytes
$sql->('CREATE TABLE large (a int, b int, filler text)', 'CREATE TABLE small (a int, filler text)',
	q{INSERT INTO large SELECT i, i % 30000, repeat('f', 60) FROM generate_series(1, 90000) i},
	q{INSERT INTO small SELECT i, repeat('f', 60) FROM generate_series(1, 30000) i}, 'VACUUM ANALYZE large, small');
my @both = map { ("SELECT * FROM large WHERE a = $_", "SELECT * FROM small WHERE a = $_") } 1 .. 6;
is(advised_for(@both), 'public.large (a), public.small (a)', 'without a limit');
setting('perfopt.advice_storage_budget', '1MB');
is(advised_for(@both), 'public.small (a)', 'what the budget has room for');
setting('perfopt.advice_storage_budget', '3MB');
is(advised_for(@both), 'public.large (a), public.small (a)', 'room for both');
$sql->(q{DELETE FROM perfopt.advice_item WHERE table_name = 'small'}, 'CREATE INDEX large_a_idx ON large (a)');
is(advised(), 'public.small (a)', 'one is built');
is($sql->(q{SELECT status IN ('applied', 'confirmed') FROM perfopt.advice WHERE relation = 'public.large'}), 't', '... and known');
setting('perfopt.advice_storage_budget', '2MB');
$sql->(q{DELETE FROM perfopt.advice_item WHERE table_name = 'small'});
is(advised(), '', 'what is built counts');
setting('perfopt.advice_storage_budget', '-1');

# Two indexes that would be called the same
$sql->('CREATE TABLE named (a_b int, a int, b int, filler text)',
	q{INSERT INTO named SELECT i % 20000, i % 200, i / 200 % 200, repeat('f', 60) FROM generate_series(1, 40000) i}, 'VACUUM ANALYZE named');
my @named = map { ("SELECT * FROM named WHERE a_b = $_", "SELECT * FROM named WHERE a = $_ AND b = 3") } 1 .. 6;
my $names = q{SELECT string_agg(substring(ddl from '(named\w+) ON'), ' ' ORDER BY id) FROM perfopt.advice WHERE status = 'open'};
like(advised_for(@named), qr/\(a_b\)/, 'two indexes') or diag $sql->($names);
my $given = $sql->($names);
like($given, qr/^(?:named_a_b_idx named_a_b_idx1|named_a_b_idx1 named_a_b_idx)$/, '... have names of their own');
advised();
is($sql->($names), $given, '... and keep these');
$sql->('DROP TABLE named');

# Pages by key of a tenant that has few rows, as others have more
$sql->(q{CREATE TABLE pages AS SELECT i AS id, i * 7919 % 500 AS tenant, 'kind' || i % 12 AS kind, timestamp '2024-01-01' + i * interval '10 s' AS at, repeat('f', 500) AS filler FROM generate_series(1, 40000) i},
	'VACUUM ANALYZE pages');
like($sql->(q{SELECT ddl FROM perfopt.advise(ARRAY['SELECT id, kind, at FROM pages WHERE tenant = 300 AND (at, id) < (timestamp ''2024-01-03'', 20000) ORDER BY at DESC, id DESC LIMIT 10']) WHERE statement IS NULL}),
	qr/\(tenant, at, id\)/, 'keys are preferred to included columns');

# Several statements, one index; and one that exists
is(advised_for((map { "SELECT * FROM large WHERE b = $_" } 1 .. 6), map { "SELECT * FROM large WHERE b = 7 AND filler = 'x$_'" } 1 .. 6),
	'public.large (b)', 'one index for two statements');
$sql->('CREATE TABLE events (kind int, at int, filler text)',
	q{INSERT INTO events SELECT i % 20, i * 79 % 97, repeat('f', 60) FROM generate_series(1, 40000) i}, 'CREATE INDEX by_kind ON events (kind)', 'VACUUM ANALYZE events');
is(advised_for(map { "SELECT * FROM events WHERE kind = $_ AND at = 42" } 1 .. 8), 'public.events (kind, at)',
	'longer than one that exists');
is($sql->(q{SELECT evidence -> 'supersedes' FROM perfopt.advice WHERE relation = 'public.events'}), '["public.by_kind"]', '... which is named in the evidence');
like($sql->(q{SELECT reason FROM perfopt.advice WHERE relation = 'public.events'}), qr/ It makes public\.by_kind superfluous\.$/, '... and in the reason');
$sql->('DROP INDEX by_kind', 'ALTER TABLE events ADD id serial', 'CREATE UNIQUE INDEX by_kind ON events (kind, id)', 'VACUUM ANALYZE events');
is(advised_for(map { "SELECT * FROM events WHERE kind = $_ AND at = 42" } 1 .. 8), 'public.events (at, kind)', 'beside a unique one');
is($sql->(q{SELECT evidence -> 'supersedes' FROM perfopt.advice WHERE relation = 'public.events'}), '[]', '... which is never superfluous');

# What was said before
is(advised(), 'public.events (at, kind)', 'the next round says the same');
$sql->(q{UPDATE perfopt.advice_item SET status = 'dismissed', dismiss_reason = 'no' WHERE status = 'open'});
unlike(advised() . ' ', qr/\(at, kind\)/, 'what was dismissed is not advised again');
is($sql->(q{SELECT count(*) FROM perfopt.advice WHERE relation = 'public.events' AND status = 'open'}), '0', '... nor is the next best for the same statements');
$sql->(q{DELETE FROM perfopt.advice_item WHERE status = 'open'}, q{UPDATE perfopt.advice_item SET status = 'open', dismiss_reason = NULL});

# Time
setting('perfopt.advice_time_budget', '100ms');
my ($code, $out, $err) = $node->psql('postgres', q{ALTER SYSTEM SET perfopt.advice_time_budget = '26s'});
like($err, qr/outside the valid range/, 'no more than the time a duty has');
my @many = map { 'SELECT * FROM events WHERE ' . join ' AND ', map { "at <> $_" } 1 .. $_ } 1 .. 60;
$sql->(map { "$_ AND kind < 0" } @many, @many);
advised();
is($sql->(q{SELECT status FROM perfopt.advice WHERE ddl LIKE '%(at, kind)'}), 'open', 'a round that has no time for all leaves advice alone');

$node->stop;
done_testing();
