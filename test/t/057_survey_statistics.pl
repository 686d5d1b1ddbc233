# Advice from the catalogs and statistics: foreign keys without an index, and
# estimates that are wrong; each with what must not be advised beside it.
use strict;
use warnings;
use Survey;
use Test::More;

my $node = start_server('survey_statistics', "perfopt_test.statement_ms = 20\n");
# Foreign keys
sql(q{
	CREATE SCHEMA f;
	CREATE TABLE f.parent (id int PRIMARY KEY, a int, b int, code text UNIQUE, UNIQUE (a, b));
	INSERT INTO f.parent SELECT i, i % 10, i, i FROM generate_series(1, 2000) i;
	CREATE TABLE f.undisturbed (id int PRIMARY KEY);
	INSERT INTO f.undisturbed SELECT generate_series(1, 2000);
	CREATE TABLE f.few (id int PRIMARY KEY);
	INSERT INTO f.few SELECT generate_series(1, 2000);
	CREATE TABLE f.child (bare int, led int, hashed int, nulls int, others int, second int, a int, b int, u int, code text, loose int);
	INSERT INTO f.child SELECT i, i, i, i, i, i, i % 10, i, i, i, i FROM generate_series(1, 2000) i, generate_series(1, 50);
	CREATE INDEX ON f.child (led, bare);
	CREATE INDEX ON f.child USING hash (hashed);
	CREATE INDEX ON f.child (nulls) WHERE nulls IS NOT NULL;
	CREATE INDEX ON f.child (others) WHERE others > 10;
	CREATE INDEX ON f.child (u, second);
	CREATE INDEX ON f.child (b);
	CREATE INDEX ON f.child (code text_pattern_ops);
	CREATE TABLE f.busy (few int);
	INSERT INTO f.busy SELECT i FROM generate_series(1, 2000) i, generate_series(1, 50);
	CREATE TABLE f.small (parent int);
	INSERT INTO f.small VALUES (1);
	ANALYZE f.child, f.busy, f.small;
	ALTER TABLE f.child ADD FOREIGN KEY (bare) REFERENCES f.parent, ADD FOREIGN KEY (led) REFERENCES f.parent,
		ADD FOREIGN KEY (hashed) REFERENCES f.parent, ADD FOREIGN KEY (nulls) REFERENCES f.parent,
		ADD FOREIGN KEY (others) REFERENCES f.parent, ADD FOREIGN KEY (second) REFERENCES f.parent,
		ADD FOREIGN KEY (a, b) REFERENCES f.parent (a, b), ADD FOREIGN KEY (code) REFERENCES f.parent (code), ADD FOREIGN KEY (u) REFERENCES f.undisturbed;
	ALTER TABLE f.busy ADD FOREIGN KEY (few) REFERENCES f.few;
	ALTER TABLE f.small ADD FOREIGN KEY (parent) REFERENCES f.parent});
sql('ALTER TABLE f.child ADD FOREIGN KEY (loose) REFERENCES f.parent NOT ENFORCED') if sql('SHOW server_version_num') >= 180000;
survey();
is(advice('index_foreign_key'), '', 'no row of the referenced tables was deleted yet');
sql(q{
	DELETE FROM f.parent WHERE id = (SELECT count(*) FROM f.child);
	DELETE FROM f.parent WHERE id = (SELECT count(*) FROM f.child);
	SET session_replication_role = replica;
	DELETE FROM f.parent WHERE id <= 200;
	DELETE FROM f.few WHERE id <= 100;
	UPDATE f.busy SET few = few + 0});
survey();
is(advice('index_foreign_key'), '', 'none that was not read for the rows deleted');
sql('SELECT sum(n) FROM generate_series(1, 200) g, LATERAL (SELECT count(*) AS n FROM f.child WHERE bare + g < 0) c');
survey();
is(advice('index_foreign_key'), 'USING btree (bare), USING btree (others), USING btree (second)',
	'foreign keys without an index; not those that have one, of any sort, nor small tables, nor such that are written more, nor such that refer to tables without deletes, nor such that nothing is checked by');
like(sql(q{SELECT ddl || ' -- ' || reason FROM perfopt.advice_item WHERE definition = 'USING btree (bare)'}),
	qr/^CREATE INDEX CONCURRENTLY child_bare_idx ON f\.child \(bare\) -- Each row deleted from f\.parent has the server read all of f\.child \(\d+ kB, about [\d.]+ ms\) for rows that refer to it, as no index begins with foreign key child_bare_fkey \(bare\); 200 rows were deleted\. The heaviest statement that does so takes [\d.]+ ms a call and \d+ % of the statement time\. The index would take \d+ kB\.$/,
	'the reason');
sql(q{INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, index_name, ddl, reason, evidence, status)
	VALUES ('create_index', 'f', 'child', 'USING btree (bare, second)', 'i', 'CREATE INDEX', 'r', '{}', 'open')});
survey();
is(advice('index_foreign_key'), 'USING btree (others), USING btree (second)', 'nor such that advice for a new index will do for');
sql('DROP SCHEMA f CASCADE; DELETE FROM perfopt.advice_item');

# Estimates
sql(q{
	CREATE ROLE owner LOGIN;
	CREATE SCHEMA e AUTHORIZATION owner;
	SET ROLE owner;
	CREATE TABLE e.stale (status int, at int);
	INSERT INTO e.stale SELECT 0, i FROM generate_series(1, 20000) i;
	CREATE TABLE e.skewed (status int, at int);
	INSERT INTO e.skewed SELECT (i % 20 = 0)::int, i FROM generate_series(1, 20000) i;
	CREATE TABLE e.pairs (id int, one int, same int, other int, half int, half_too int, x int, open bool, done int);
	INSERT INTO e.pairs SELECT i, i % 20, i % 20, i / 1000, i % 2, i % 2, i, i % 20 = 0, nullif(i % 20, 0) * 1000 + i FROM generate_series(0, 19999) i;
	CREATE TABLE e.known (id int, x int, y int);
	INSERT INTO e.known SELECT i, i, i FROM generate_series(0, 19999) i;
	CREATE INDEX ON e.known ((x % 10));
	CREATE INDEX ON e.known ((y % 5)) WHERE x >= 0;
	CREATE TABLE e.listed (id int, k int, x int, a int, b int);
	ALTER TABLE e.listed ALTER k SET STATISTICS 2, ALTER a SET STATISTICS 2, ALTER b SET STATISTICS 2;
	INSERT INTO e.listed SELECT i, CASE WHEN i < 14000 THEN i % 7 / 3 ELSE i END, i, i % 12, i % 12 FROM generate_series(0, 19999) i;
	CREATE TABLE e.ids (id int);
	INSERT INTO e.ids SELECT generate_series(0, 19999);
	CREATE TABLE e.parted (a int, b int) PARTITION BY LIST (a);
	CREATE TABLE e.parted_1 PARTITION OF e.parted FOR VALUES IN (1);
	CREATE TABLE e.parted_2 PARTITION OF e.parted FOR VALUES IN (2);
	INSERT INTO e.parted SELECT 1 + i % 2, i FROM generate_series(1, 20000) i;
	CREATE SEQUENCE e.calls;
	CREATE FUNCTION e.evil(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM nextval(''e.calls''); RETURN 1; END';
});
flushed();
sql('ANALYZE e.stale, e.skewed, e.pairs, e.known, e.listed, e.ids, e.parted_1, e.parted_2');
sql('UPDATE e.stale SET status = 1 WHERE at <= 6000; UPDATE e.listed SET x = 1 WHERE id < 4000');
sub estimates
{
	sql('SELECT perfopt.reset_latency()');
	sql("SET ROLE owner; $_; $_; $_") foreach @_;
	survey();
	return sql(q{SELECT coalesce(string_agg(concat_ws(' ', kind, table_name, nullif(definition, '')), '; ' ORDER BY kind, table_name, definition), '')
		FROM perfopt.advice_item WHERE kind IN ('analyze', 'create_statistics') AND status = 'open'});
}
my $join = 'SELECT count(*) FROM e.pairs p JOIN e.ids USING (id) WHERE';
is(estimates('SELECT * FROM e.skewed WHERE status = 1', "$join one = 3 AND other = 3", 'SELECT * FROM e.pairs WHERE one = 3 AND same = 3',
		'SELECT * FROM e.known WHERE x % 10 = 3', 'SELECT * FROM e.known WHERE e.evil(x) = 1', 'SELECT * FROM e.listed WHERE k = 2', 'SELECT count(*) FROM e.parted WHERE b < 10'),
	'', 'estimates that are right, do not matter, can\'t be judged, or would not be better');
is(sql('SELECT last_value FROM e.calls'), '60000', 'no function of a user is called for that');
is(estimates('SELECT * FROM e.stale WHERE status = 1'), 'analyze stale', 'old statistics');
like(sql(q{SELECT ddl || ' -- ' || reason FROM perfopt.advice_item WHERE table_name = 'stale'}),
	qr/^ANALYZE e\.stale -- A statement that takes [\d.]+ ms a call and \d+ % of the statement time is planned for 1 rows of e\.stale where there are about 6000\. 6000 rows have changed since the table was analyzed, and autovacuum is off for it\.$/,
	'the reason');
$node->append_conf('postgresql.conf', "autovacuum = on\nautovacuum_naptime = 1d");
$node->reload;
is(estimates('SELECT * FROM e.stale WHERE status = 1'), '', 'nothing that autovacuum is about to do');
sql('ALTER TABLE e.stale SET (autovacuum_analyze_scale_factor = 0.5)');
is(estimates('SELECT * FROM e.stale WHERE status = 1'), 'analyze stale', 'but what it will not do');
sql('ANALYZE e.stale');
is(estimates('SELECT * FROM e.stale WHERE status = 1'), '', 'until it is done');
sql('UPDATE e.pairs SET x = x + 1 WHERE id < 6000');
my @dependent = ("$join one = 3 AND same = 3", "$join half = 0 AND half_too = 1", "$join open AND done IS NULL",
	'SELECT count(*) FROM e.listed JOIN e.ids USING (id) WHERE a = 3 AND b = 3');
is(estimates(@dependent),
	'create_statistics listed (dependencies) ON a, b; create_statistics pairs (dependencies, mcv) ON one, same; create_statistics pairs (mcv) ON half, half_too; create_statistics pairs (mcv) ON open, done', 'columns that depend on each other, whatever else has changed');
$node->safe_psql('postgres', sql(q{SELECT string_agg(ddl, ';') FROM perfopt.advice_item WHERE kind = 'create_statistics' AND status = 'open'}));
is(estimates(@dependent), 'analyze listed; analyze pairs', 'statistics that have not been made');
sub set_target { sql(sql("SELECT string_agg(format('ALTER STATISTICS e.%I SET STATISTICS $_[0]', stxname), ';') FROM pg_statistic_ext")); }
set_target(0);
is(estimates(@dependent), '', 'but not such that nobody wants');
set_target(-1);
sql('ANALYZE e.pairs, e.listed');
is(estimates(@dependent), '', 'these are right');
is(estimates('SELECT * FROM e.known WHERE y % 10 = 3', 'SELECT * FROM e.known WHERE y % 5 = 3'),
	'create_statistics known ON ((y % 10)); create_statistics known ON ((y % 5))', 'expressions');
my $known = sql(q{SELECT string_agg(ddl, ';') FROM perfopt.advice_item WHERE table_name = 'known' AND status = 'open'});
sql(q{INSERT INTO perfopt.advice_item (kind, schema_name, table_name, definition, index_name, ddl, reason, evidence, status)
	VALUES ('create_index', 'e', 'known', 'USING btree (((y % 5)))', 'i', 'CREATE INDEX', 'r', '{}', 'open')});
is(estimates('SELECT * FROM e.known WHERE y % 10 = 3', 'SELECT * FROM e.known WHERE y % 5 = 3'),
	'create_statistics known ON ((y % 10))', 'not of those that an advised index is on');
sql('CREATE INDEX known_new ON e.known ((y % 5))');
is(estimates('SELECT * FROM e.known WHERE y % 5 = 3'), 'analyze known; create_statistics known ON ((y % 10))', 'an index on one has no statistics yet');
sql("DROP INDEX e.known_new; $known; ANALYZE e.known");
is(estimates('SELECT * FROM e.known WHERE y % 10 = 3', 'SELECT * FROM e.known WHERE y % 5 = 3'), '', 'are estimated well then');
is(estimates('SELECT b, count(*) FROM e.parted GROUP BY b'), 'analyze parted', 'a partitioned table that was never analyzed');
sql('ANALYZE e.parted');
is(estimates('SELECT b, count(*) FROM e.parted GROUP BY b'), '', 'has been now');
done_testing();
