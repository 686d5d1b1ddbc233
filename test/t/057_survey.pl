# Advice from the catalogs: indexes that are not needed, not valid or bloated;
# each with what must not be advised beside it.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use Survey;
use Test::More;

my $node = start_server('survey', "restart_after_crash = on\nwal_level = replica\nperfopt_test.statement_ms = 5\n", allows_streaming => 1);
sub days_pass { sql("UPDATE perfopt.index_usage SET unused_since = unused_since - interval '$_[0] days'"); }

sql(q{
	CREATE TABLE items (id int PRIMARY KEY, a int, b int, c int, d text, e int, f int, g int UNIQUE, h int);
	INSERT INTO items SELECT i, i, i, i, 'd' || i, i, i, i, i FROM generate_series(1, 5000) i;
	CREATE INDEX items_a ON items (a);
	CREATE INDEX items_a_again ON items (a);
	CREATE INDEX items_a_b ON items (a, b);
	CREATE INDEX items_b_down ON items (b DESC);
	CREATE INDEX items_b ON items (b);
	CREATE INDEX items_id ON items (id);
	CREATE UNIQUE INDEX items_c_unique ON items (c);
	CREATE INDEX items_c_e ON items (c, e);
	CREATE INDEX items_c_with ON items (c) INCLUDE (e);
	CREATE INDEX items_d ON items (d text_pattern_ops);
	CREATE INDEX items_d_plain ON items (d);
	CREATE INDEX items_e_some ON items (e) WHERE a > 0;
	CREATE INDEX items_e ON items (e);
	CREATE INDEX items_lower ON items (lower(d));
	CREATE INDEX items_lower_again ON items (lower(d));
	CREATE INDEX items_f_wide ON items (f, (repeat(d, 40)));
	CREATE INDEX items_f ON items (f);
	CREATE INDEX items_h_some ON items (h) WHERE h IS NOT NULL;
	CREATE INDEX items_h_fewer ON items (h) WHERE h > 10;
	CREATE INDEX items_lower_more ON items (lower(d));
	ALTER INDEX items_lower_more ALTER COLUMN 1 SET STATISTICS 1000;
	CREATE INDEX items_g_brin ON items USING brin (g);
	CREATE INDEX items_g_brin_fine ON items USING brin (g) WITH (pages_per_range = 4);
	CREATE INDEX items_g_brin_again ON items USING brin (g);
	CREATE TABLE kept (id int NOT NULL, a int);
	INSERT INTO kept SELECT i, i FROM generate_series(1, 5000) i;
	CREATE UNIQUE INDEX kept_id ON kept (id);
	ALTER TABLE kept REPLICA IDENTITY USING INDEX kept_id;
	CREATE INDEX kept_a ON kept (a);
	CREATE INDEX kept_a_again ON kept (a);
	CLUSTER kept USING kept_a_again;
	CREATE TABLE parted (a int, b int) PARTITION BY LIST (a);
	CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1);
	CREATE INDEX parted_b ON parted (b);
	CREATE INDEX parted_b_again ON parted (b);
	VACUUM ANALYZE});

# Duplicates: the first one made stays, and what a constraint needs always does.
survey();
is(advice('drop_index'),
	'items_a, items_a_again, items_b, items_c_with, items_g_brin_again, items_h_fewer, items_id, items_lower, items_lower_again, kept_a',
	'duplicates, and what another index begins with or has, and nothing else');
is(sql(q{SELECT reason FROM perfopt.advice_item WHERE index_name = 'items_b'}),
	'Index public.items_b (128 kB) is not needed: public.items_b_down is the same; each row written to the table keeps both up.',
	'the reason in a sentence');
is(sql(q{SELECT ddl || '; ' || undo FROM perfopt.advice_item WHERE index_name = 'items_h_fewer'}),
	'DROP INDEX CONCURRENTLY public.items_h_fewer; CREATE INDEX CONCURRENTLY items_h_fewer ON public.items USING btree (h) WHERE (h > 10)',
	'what to run, and what takes it back');
is(sql(q{SELECT string_agg(evidence ->> 'covered_by', ', ' ORDER BY definition) FROM perfopt.advice_item WHERE definition IN ('items_a', 'items_a_again')}),
	'public.items_a_b, public.items_a_b', 'the one that stays is named, not one that goes too');


# An advice is old when it is followed: what was true is looked at again.
sub ends_as
{
	my ($index) = @_;
	my $id = sql("SELECT id FROM perfopt.advice_item WHERE definition = '$index' AND kind = 'drop_index'");
	sql("SELECT perfopt.apply_advice($id)");
	$node->poll_query_until('postgres', "SELECT status NOT IN ('queued', 'applying') FROM perfopt.advice WHERE id = $id");
	return sql("SELECT concat_ws(': ', status, error) FROM perfopt.advice WHERE id = $id");
}
sql('DROP INDEX items_b_down');
is(ends_as('items_b'), 'failed: index "items_b" is needed: no other index does what it does any more', 'what did its work is gone');
is(ends_as('items_c_with'), 'applied', 'another one is dropped');
is(sql(q{SELECT to_regclass('items_c_with') IS NULL}), 't', '... indeed');

# A statement that would cost more with what is left
sql(q{
	CREATE TABLE narrow (a int, b int, c int, d int);
	INSERT INTO narrow SELECT i, i, i, i FROM generate_series(1, 20000) i;
	CREATE INDEX narrow_a ON narrow (a);
	CREATE INDEX narrow_all ON narrow (a, b, c, d)});
sql('VACUUM ANALYZE narrow');
survey();
like(advice('drop_index'), qr/narrow_a/, 'a narrow index beside a wide one');
sql('SELECT count(*) FROM narrow WHERE a > 8000; ' x 3);
survey();
unlike(advice('drop_index'), qr/narrow_a/, 'is kept when a statement reads much of it');
sql('DROP TABLE narrow');

# Not used: needs time, and use of the table
sql(q{
	CREATE SCHEMA u;
	CREATE TABLE u.parent (id int PRIMARY KEY);
	INSERT INTO u.parent SELECT generate_series(1, 5000);
	CREATE TABLE u.t (id int PRIMARY KEY, a int, b int, d text, p int REFERENCES u.parent, k int UNIQUE, q int REFERENCES u.parent);
	INSERT INTO u.t SELECT i, i, i, 'd' || i, i, i, i FROM generate_series(1, 5000) i;
	CREATE INDEX t_a ON u.t (a);
	CREATE INDEX t_b ON u.t (b);
	CREATE INDEX t_lower ON u.t (lower(d));
	CREATE INDEX t_p ON u.t (p);
	CREATE INDEX t_none ON u.t (k, a) WHERE a < 0;
	CREATE INDEX t_hash ON u.t USING hash (d);
	CREATE INDEX t_q ON u.t USING hash (q);
	VACUUM ANALYZE u.t});
sub unused { survey(); return sql(q{SELECT coalesce(string_agg(definition, ', ' ORDER BY definition), '') FROM perfopt.advice_item
	WHERE kind = 'drop_index' AND status = 'open' AND schema_name = 'u'}); }
sub use_table { sql('UPDATE u.t SET id = id WHERE ctid = (SELECT ctid FROM u.t LIMIT 1)'); }
sub watch_anew
{
	use_table(); unused(); days_pass(40); use_table();
	is(unused(), 't_a, t_b, t_hash', "$_[0]: and found again in time");
}
is(unused(), '', 'none is unused at first sight');
days_pass(40);
is(unused(), '', 'nor while its table is not used either');
use_table();
is(unused(), 't_a, t_b, t_hash',
	'but when the table is; not the one with an expression, nor a constraint\'s, nor a foreign key\'s, nor a tiny one');
like(sql(q{SELECT reason FROM perfopt.advice_item WHERE index_name = 't_a'}),
	qr/^Index u\.t_a \(128 kB\) has not been used since \d{4}-\d\d-\d\d, for 40 days, while table u\.t was\.$/, 'the reason');
sql(q{SELECT pg_create_physical_replication_slot('standby')});
survey();
like(sql(q{SELECT reason FROM perfopt.advice_item WHERE index_name = 't_a'}), qr/while table u\.t was\. Look at pg_stat_user_indexes on the standbys first/,
	'with a warning where there may be standbys');
sql(q{SELECT pg_drop_replication_slot('standby')});
sql('SET enable_seqscan = off; SELECT * FROM u.t WHERE b = 7');
is(unused(), 't_a, t_hash', 'one use is enough');
days_pass(40);
is(unused(), 't_a, t_hash', 'and counts for as long, whatever a row of long ago says');
watch_anew('used');

# What the server forgets
$node->restart;
is(unused(), 't_a, t_b, t_hash', 'a restart forgets nothing');
sql('SELECT pg_stat_reset()');
is(unused(), 't_a, t_b, t_hash', 'a reset right after a look hides nothing');
sql(q{UPDATE perfopt.index_usage_state SET looked_at = looked_at - interval '2 days'});
sql('SELECT pg_stat_reset()');
is(unused(), '', 'a reset may hide what was two days before');
watch_anew('reset');
sql(q{UPDATE perfopt.index_usage_state SET looked_at = looked_at - interval '2 days'});
sql('SELECT pg_switch_wal()');
$node->stop('immediate');
$node->start;
is(unused(), '', 'and so may a crash');
watch_anew('crash');
sql('DROP INDEX u.t_hash; CREATE INDEX t_hash ON u.t USING hash (d)');
is(unused(), 't_a, t_b', 'another index of the same name is watched anew');
sql('DROP INDEX u.t_lower');
is(unused(), '', 'and so are all that may have to do the work of one that is gone');
watch_anew('one is gone');

# Dump and restore
my $dump = "$PostgreSQL::Test::Utils::tmp_check/survey_$$.sql";
$node->command_ok([ 'pg_dump', '-d', $node->connstr('postgres'), '-f', $dump ], 'pg_dump');
sql('CREATE DATABASE restored');
$node->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('restored'), '-f', $dump ], 'restore');
$node->poll_query_until('postgres', q{SELECT count(*) > 0 FROM perfopt.workers WHERE datname = 'restored' AND pid IS NOT NULL});
$node->safe_psql('restored', 'VACUUM ANALYZE u.t; SELECT perfopt.survey_now()');
is($node->safe_psql('restored', q{SELECT string_agg(index_name, ', ' ORDER BY index_name) FROM perfopt.index_usage u
	JOIN pg_class c ON c.oid = u.index_oid AND c.relname = u.index_name
	WHERE schema_name = 'u' AND unused_since < now() - interval '39 days'}),
	't_a, t_b, t_hash, t_none, t_p, t_q', 'what is restored goes on where it was dumped');
sql('DROP DATABASE restored WITH (FORCE)');

# Used, or alone, since it was advised to be dropped
sql('SET enable_seqscan = off; SELECT count(*) FROM generate_series(1, 20), LATERAL (SELECT FROM u.t WHERE b = generate_series) x');
watch_anew('used again');
sql('SELECT pg_stat_reset()');
sql('SET enable_seqscan = off; SELECT * FROM u.t WHERE b = 7');
flushed();
like(ends_as('t_b'), qr/^failed: index "t_b" is needed: it has been used/, 'used after a reset, if less than before');
sql('DROP INDEX u.t_hash');
like(ends_as('t_a'), qr/^failed: index "t_a" is needed: it has been used .* or may have to be from now on/, 'another index of the table is gone');
sql('DROP TABLE items, kept, parted; DROP SCHEMA u CASCADE');

# Not valid
sql(q{
	CREATE SCHEMA v;
	CREATE TABLE v.t (a int, b int, c int);
	INSERT INTO v.t SELECT i / 2, i, i FROM generate_series(1, 1000) i;
	CREATE INDEX t_b ON v.t (b);
	CREATE INDEX t_c ON v.t (c);
	CREATE INDEX t_c_ccnew ON v.t (c);
	UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'v.t_c_ccnew'::regclass});
$node->psql('postgres', 'CREATE UNIQUE INDEX CONCURRENTLY t_a ON v.t (a)');
survey();
is(advice('reindex') . '; ' . advice('drop_index'), 't_a; t_c_ccnew', 'an index that failed to be built, and one that a REINDEX has left');
is(sql(q{SELECT ddl || ' -- ' || reason FROM perfopt.advice_item WHERE index_name = 't_a' AND schema_name = 'v'}),
	'REINDEX INDEX CONCURRENTLY v.t_a -- Index v.t_a is not valid: building it was interrupted or failed, perhaps because of rows with the same key, so no statement can use it.',
	'the reason');
sql('DROP INDEX v.t_a, v.t_c_ccnew');
for my $work ('CREATE INDEX CONCURRENTLY t_made ON v.t (a)', 'DROP INDEX CONCURRENTLY v.t_b')
{
	my $writer = $node->background_psql('postgres');
	$writer->query_safe('BEGIN; INSERT INTO v.t VALUES (0, 0, 0)');
	my $builder = $node->background_psql('postgres');
	$builder->query_until(qr/begun/, "\\echo begun\n$work;\n");
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_index WHERE NOT indisvalid AND indrelid = 'v.t'::regclass});
	sql('SELECT perfopt.survey_now()');
	is(advice('reindex') . advice('drop_index'), '', "nothing to do about what is under way: $work");
	$writer->query_safe('COMMIT');
	$writer->quit;
	$builder->query_safe('SELECT 1');
	$builder->quit;
}

# Bloated
sql(q{
	CREATE TABLE v.big (a text);
	INSERT INTO v.big SELECT md5(i::text) || md5(i::text) FROM generate_series(1, 200000) i;
	CREATE INDEX big_a ON v.big (a);
	CREATE INDEX big_plain ON v.big (a) WITH (fillfactor = 30);
	VACUUM ANALYZE v.big});
survey();
is(advice('reindex'), '', 'fresh indexes are not bloated, whatever their fill factor is');
sql(q{DELETE FROM v.big WHERE ctid < '(2000,1)'; VACUUM v.big});
survey();
is(advice('reindex'), 'big_a, big_plain', 'but are when most rows have gone');
like(sql(q{SELECT reason FROM perfopt.advice_item WHERE index_name = 'big_a'}),
	qr/^Index v\.big_a takes 1\d MB, and about \d+ kB when it is built anew\.$/, 'the reason');
sql('REINDEX INDEX v.big_a');
survey();
is(advice('reindex'), 'big_plain', 'until it is built anew');
done_testing();
