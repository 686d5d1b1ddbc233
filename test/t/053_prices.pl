# What an index that does not exist is made of, what it would weigh and what it
# would be worth: against real ones.
use strict;
use warnings;
use PostgreSQL::Test::Utils;
use TestPrices;
use Test::More;

my ($node, $sql) = start_server('prices', '');

prices_agree($sql, 32000, grep { $_->[0] !~ /^(?:documents|words|log)$/ } Prices::data_sets());	# 055 has these

# The tree's height
$sql->('DROP TABLE t; CREATE TABLE t AS SELECT i AS id, repeat(md5(i::text), 60) AS wide, NULL::int AS n FROM generate_series(1, 20000) i; VACUUM ANALYZE t');
$sql->('CREATE EXTENSION pageinspect');
for my $column ('id', 'n', 'substr(wide, 1, 700)')
{
	my $estimated = $sql->("SELECT tree_height FROM index_facts('CREATE INDEX ON t (($column))')");
	is($estimated, $sql->("CREATE INDEX tested ON t (($column)); SELECT level FROM bt_metap('tested')"), "height over $column");
	$sql->('DROP INDEX tested');
}

# Written as DDL, whatever the search_path
$sql->(q{CREATE EXTENSION pg_trgm; CREATE SCHEMA "Odd"; CREATE TABLE "Odd"."Tab le" (a int, "B" text, c timestamp, d varchar(10), "select" int, j jsonb, l int[], v tsvector);
	CREATE FUNCTION "Odd".fold(text) RETURNS text LANGUAGE sql IMMUTABLE AS 'SELECT pg_catalog.lower($1)';
	CREATE FUNCTION public.loud(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN pg_catalog.upper($1); END'});
for my $case (
	['(a)', '_a_idx', '(a)'],
	['("B" DESC, a NULLS FIRST) INCLUDE (c, "select")', '_B_a_idx', '("B" DESC, a NULLS FIRST) INCLUDE (c, "select")'],
	['("B" COLLATE "C" text_pattern_ops DESC NULLS LAST)', '_B_idx', '("B" COLLATE "C" text_pattern_ops DESC NULLS LAST)'],
	['(lower(d)) WITH (fillfactor = 70) WHERE a > 1 AND "B" IS NOT NULL', '_lower_idx', '(lower((d)::text)) WITH (fillfactor = 70) WHERE ((a > 1) AND ("B" IS NOT NULL))'],
	['(loud("B"), (a + 1))', '_loud_expr_idx', '(public.loud("B"), ((a + 1)))'],
	['USING gin (j, l)', '_j_l_idx', 'USING gin (j, l)'], ['USING gin (j jsonb_path_ops) WHERE a > 1', '_j_idx', 'USING gin (j jsonb_path_ops) WHERE (a > 1)'],
	[q{USING gin (("B" || d) gin_trgm_ops, to_tsvector('english', "B"))}, '_expr_to_tsvector_idx', q{USING gin ((("B" || (d)::text)) public.gin_trgm_ops, to_tsvector('english'::regconfig, "B"))}],
	['USING brin (c, a)', '_c_a_idx', 'USING brin (c, a)'])
{
	my ($given, $name, $expected) = @$case;
	$given =~ s/'/''/g;
	is($sql->(qq{SELECT index_ddl('CREATE INDEX ON "Odd"."Tab le" $given')}), qq{CREATE INDEX CONCURRENTLY "Tab le$name" ON "Odd"."Tab le" $expected}, "DDL of $given");
	is($sql->(qq{CREATE INDEX tested ON "Odd"."Tab le" $case->[0]; SELECT index_exists('CREATE INDEX ON "Odd"."Tab le" $given')}), 't', '... and found when it exists');
	$sql->('DROP INDEX "Odd".tested');
	is($sql->(qq{SELECT index_exists('CREATE INDEX ON "Odd"."Tab le" $given')}), 'f', '... and not when it does not');
}
for my $case (
	['UNIQUE INDEX', '(a)', qr/It would be unique/], ['INDEX', 'USING hash (a)', qr/only btree/i],
	['INDEX', '(to_char(c, $$x$$))', qr/immutable/], ['INDEX', '(a) WHERE c < now()', qr/immutable/],
	['INDEX', 'USING gin (j DESC)', qr/ordered/], ['INDEX', 'USING brin (a) INCLUDE (c)', qr/include/i], ['INDEX', 'USING brin (a int4_bloom_ops)', qr/minmax/],
	['INDEX', 'USING gin (a)', qr/no default operator class/], ['INDEX', 'USING brin (a) WITH (pages_per_range = 4)', qr/only fillfactor/],
	['INDEX', '(a) WITH (deduplicate_items = off)', qr/only fillfactor/], ['INDEX', '(ctid)', qr/System columns/])
{
	my ($kind, $given, $error) = @$case;
	my ($code, $out, $err) = $node->psql('postgres', qq{SELECT index_ddl('CREATE $kind ON "Odd"."Tab le" $given')});
	like($err, $error, "refused: $kind $given");
}

# Which one serves as another
my $i = 'CREATE INDEX ON "Odd"."Tab le" ';
for my $case (
	['(a, "B")', '(a)', 't'], ['(a)', '(a, "B")', 'f'], ['("B", a)', '(a)', 'f'], ['(a DESC)', '(a)', 't'], ['(a DESC NULLS LAST)', '(a)', 'f'],
	['(a, c DESC)', '(a, c)', 'f'], ['(a DESC, c DESC)', '(a, c)', 't'], ['(a) INCLUDE (c)', '(a)', 't'], ['(a, c)', '(a) INCLUDE (c)', 't'],
	['(a)', '(a) INCLUDE (c)', 'f'], ['(a) WHERE c IS NULL', '(a)', 'f'], ['(a)', '(a) WHERE c IS NULL', 't'], ['(a) WHERE a > 5', '(a) WHERE a > 10', 't'],
	['(a) WHERE a > 10', '(a) WHERE a > 5', 'f'], ['(lower("B"))', '(lower("B"))', 't'], ['(lower("B"))', '(upper("B"))', 'f'],
	['USING gin (l, j)', 'USING gin (j)', 't'], ['USING gin (j)', 'USING gin (j, l)', 'f'], ['USING gin (j)', 'USING gin (j jsonb_path_ops)', 't'],
	['USING gin (j jsonb_path_ops)', 'USING gin (j)', 'f'], ['USING gin (j)', '(j)', 'f'], ['USING brin (c, a)', 'USING brin (a)', 't'], ['USING brin (a)', '(a)', 'f'],
	['("B" text_pattern_ops)', '("B")', 'f'], ['("B" COLLATE "C")', '("B" COLLATE "POSIX")', 'f'], ['(a) WITH (fillfactor = 50)', '(a)', 't'])
{
	my ($by, $wanted, $expected) = @$case;
	is($sql->("SELECT index_serves('$i$by', '$i$wanted')"), $expected, "$by serves as $wanted: $expected");
}

# An index left out of the plan, and one that could not be built
$sql->('CREATE INDEX present ON t (id); ANALYZE t');
my $query = 'SELECT wide FROM t WHERE id = 5';
my $with = $sql->("SELECT what_if_cost('$query')");
my $hidden = $sql->("SELECT what_if_cost('$query', hidden => '{present}')");
$sql->('DROP INDEX present');
is($hidden, $sql->("SELECT what_if_cost('$query')"), 'hidden: as if it were dropped');
cmp_ok($with, '<', $hidden / 10, '... which it is not otherwise');
is($sql->(q{SELECT possible FROM index_facts('CREATE INDEX ON t (wide)')}), 't', 'wide values that compress can be indexed');
$sql->(q{ALTER TABLE t ADD COLUMN wider text; UPDATE t SET wider = (SELECT string_agg(md5((i * id)::text), '') FROM generate_series(1, 200) i) WHERE id % 100 = 0; VACUUM ANALYZE t});
is($sql->(q{SELECT possible FROM index_facts('CREATE INDEX ON t (wider)')}), 'f', 'wider ones cannot');
is($sql->(q{SELECT what_if_cost('SELECT id FROM t WHERE wider = $$x$$', indexes => '{CREATE INDEX ON t (wider)}') = what_if_cost('SELECT id FROM t WHERE wider = $$x$$')}), 't',
	'... and nothing is gained by them');

# Functions of an expression: whose, and as whom
$sql->(q{
	CREATE ROLE stranger; CREATE ROLE holder;
	CREATE TABLE seen (who text, whom text);
	GRANT INSERT ON seen TO PUBLIC; GRANT CREATE, USAGE ON SCHEMA public TO holder, stranger;
	CREATE TABLE held AS SELECT i AS id, i % 50 AS k, repeat('x', 50) AS filler FROM generate_series(1, 20000) i;
	ALTER TABLE held OWNER TO holder; GRANT SELECT ON held TO stranger;
	ANALYZE held});
for my $role ('holder', 'stranger')
{
	$sql->(qq{SET ROLE $role; CREATE FUNCTION of_$role(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
		'BEGIN IF \$1 = 7 THEN RAISE LOG ''of_$role ran as % in a session of %'', current_user, session_user; END IF; RETURN \$1; END'});
	my $log = -s $node->logfile;
	my $cost = $sql->(qq{SELECT what_if_cost('SELECT * FROM held WHERE of_$role(k) = 3', role => '$role', indexes => '{CREATE INDEX ON held (of_$role(k))}')});
	my $logged = slurp_file($node->logfile, $log);
	if ($role eq 'holder') { like($logged, qr/of_holder ran as holder in a session of holder/, "a function of the table's owner runs as its owner") }
	else { unlike($logged, qr/of_stranger ran as/, "a stranger's function is not run over the table") }
	cmp_ok($cost, '>', 0, '... and the statement is priced');
}
{
	my $log = -s $node->logfile;
	$sql->(q{SELECT what_if_cost('SELECT * FROM held WHERE of_holder(k) = 3', indexes => '{"CREATE INDEX ON held (of_holder(k), id)"}')});
	my $logged = slurp_file($node->logfile, $log);
	like($logged, qr/of_holder ran as holder in a session of holder/, '... whoever ran the statement');
	unlike($logged, qr/of_holder ran as (?!holder in a session of holder)/, '... and never as another');

	# an operator class calls functions too
	$sql->(q{CREATE FUNCTION noisy(oid) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
			'BEGIN RAISE LOG ''noisy ran as %'', current_user; RETURN true; END';
		CREATE OPERATOR CLASS noisy_ops FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >,
			FUNCTION 1 btint4cmp(int, int), FUNCTION 4 noisy(oid);
		SELECT * FROM index_facts('CREATE INDEX ON held (k noisy_ops)')});
	$logged = slurp_file($node->logfile, $log);
	like($logged, qr/noisy ran as holder/, "an operator class's function runs as the table's owner");
	unlike($logged, qr/noisy ran as (?!holder|%)/, '... and as nobody else');
}
$sql->(q{CREATE FUNCTION fails(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN 1 / ($1 - $1); END'});
cmp_ok($sql->(q{SELECT what_if_cost('SELECT * FROM t WHERE fails(id) = 3', indexes => '{CREATE INDEX ON t (fails(id))}')}), '>', 0,
	'an expression that fails leaves the statement to be priced');
is($sql->(q{SELECT bytes > 8192 FROM index_facts('CREATE INDEX ON t (fails(id))')}), 't', '... and its index is estimated without a sample');
$sql->('CREATE TABLE nothing (a int)');
is($sql->(q{SELECT bytes || ' ' || tree_height FROM index_facts('CREATE INDEX ON nothing (a) WHERE a > 5')}), '16384 0', 'of an empty table');

# Bounds
$sql->(q{CREATE FUNCTION slow(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pg_sleep(0.001); RETURN $1; END'});
is($sql->(q{SET statement_timeout = '10s'; SET perfopt_test.patience = 1; SELECT bytes > 8192 FROM index_facts('CREATE INDEX ON t (slow(id))')}), 't', 'slow functions are given up');
$sql->(q{UPDATE pg_class SET reltuples = 'NaN' WHERE relname = 'nothing'});
is($sql->(q{SELECT tuples < 1e13 FROM index_facts('CREATE INDEX ON nothing (a)')}), 't', 'statistics that are no number');

# A damaged table
my $file = $node->data_dir . '/' . $sql->(q{CREATE TABLE damaged AS SELECT i AS a FROM generate_series(1, 20000) i; ANALYZE damaged; SELECT pg_relation_filepath('damaged')});
$node->stop;
open(my $handle, '+<', $file) or die $!;
print $handle 'damaged' x 100;
close $handle;
$node->start;
is($sql->(q{SELECT bytes > 8192 FROM index_facts('CREATE INDEX ON damaged (a)')}), 't', 'a table that cannot be read is estimated without a sample');

$node->stop;
done_testing();
