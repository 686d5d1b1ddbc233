# GIN and BRIN: what such an index would weigh and be worth, against real ones;
# and which are candidates for a statement.
use strict;
use warnings;
use TestPrices;
use Test::More;

my ($node, $sql) = start_server('methods', "maintenance_work_mem = 4MB\n");

# Every other index, and so little memory that the keys of one are put into it in several goes.
sub every_other
{
	my ($name, $columns, @indexes) = @{$_[0]};
	return [ $name, $columns, @indexes[ grep { $_ % 2 == 0 } 0 .. $#indexes ] ];
}
prices_agree($sql, 35000, map { every_other($_) } grep { $_->[0] =~ /^(?:documents|words|log)$/ } Prices::data_sets());

# Which are candidates.  All rows are in the sample of ANALYZE: no chance in that.
$sql->(q{CREATE EXTENSION btree_gin; SET default_statistics_target = 1000;
	CREATE TABLE docs AS SELECT i AS id, jsonb_build_object('user', i % 500, 'n', i) AS data, ARRAY['t' || i % 50, 't' || i % 7] AS tags, i % 90 AS shop,
			'Name ' || md5(i::text) AS name, ('u' || i || '@example.com')::varchar(50) AS email, to_tsvector('simple', md5(i::text)) AS words, 'some text ' || i AS body, int4range(i, i + 5) AS span
		FROM generate_series(1, 20000) i;
	CREATE TABLE other AS SELECT i AS id, 't' || i AS tag, i % 5 AS kind, repeat('x', 200) AS filler FROM generate_series(1, 2000) i;
	CREATE TABLE events AS SELECT i AS id, timestamp '2024-01-01' + i * interval '1 min' AS at, hashint4(i) AS mixed, repeat('x', 800) AS filler FROM generate_series(1, 42000) i;
	CREATE TABLE few AS SELECT * FROM events LIMIT 10000;
	VACUUM ANALYZE docs, other, events, few;});

sub candidates
{
	my ($query) = @_;
	$query =~ s/'/''/g;
	return grep { /USING/ } split /\n/, $sql->("SELECT unnest(index_candidates(ARRAY['$query']))");
}
for my $case (
	['a document has', q{data @> '{"user": 7}'}, 'docs USING gin (data jsonb_path_ops)', 'docs USING gin (data)'],
	['... the other way round', q{'{"user": 7}' <@ data}, 'docs USING gin (data jsonb_path_ops)', 'docs USING gin (data)'],
	['a document has a key', q{data ? 'user'}, 'docs USING gin (data)'],
	['a path', q{data @? '$.user ? (@ == 5)'}, 'docs USING gin (data jsonb_path_ops)', 'docs USING gin (data)'],
	['a part of a document', q{data -> 'a' @> '[5]'}, q{docs USING gin (((data -> 'a'::text)) jsonb_path_ops)}, q{docs USING gin (((data -> 'a'::text)))}],
	['an array has', q{tags @> ARRAY['t5']}, 'docs USING gin (tags)'], ['arrays overlap', q{tags && ARRAY['t5', 't6']}, 'docs USING gin (tags)'],
	['an array is not for its order', q{tags < ARRAY['t5']}], ['an equality is for a btree', 'shop = 5'], ['a range type has no class', 'span @> 5'],
	['words', q{words @@ to_tsquery('simple', 'a')}, 'docs USING gin (words)'],
	['words of a text', q{to_tsvector('english', body) @@ plainto_tsquery('english', 'text')}, q{docs USING gin (to_tsvector('english'::regconfig, body))}],
	['words by the setting of the day', q{to_tsvector(body) @@ to_tsquery('text')}],
	['LIKE', q{name LIKE '%bad%'}, 'docs USING gin (name public.gin_trgm_ops)'], ['ILIKE', q{email ILIKE '%u77@%'}, 'docs USING gin (email public.gin_trgm_ops)'],
	['a regular expression', q{name ~ 'fa+de'}, 'docs USING gin (name public.gin_trgm_ops)'], ['similar', q{name % 'Name'}, 'docs USING gin (name public.gin_trgm_ops)'],
	['of an expression', q{lower(name) LIKE '%bad%'}, 'docs USING gin (lower(name) public.gin_trgm_ops)'],
	['what a btree finds', q{name LIKE 'Name a%'}], ['not what must not be there', q{name NOT LIKE '%bad%'}], ['nothing to look for', 'name LIKE body', 'docs USING gin (name public.gin_trgm_ops)'],
	['together', q{tags @> ARRAY['t5'] AND name LIKE '%bad%'}, 'docs USING gin (tags)', 'docs USING gin (name public.gin_trgm_ops)', 'docs USING gin (tags, name public.gin_trgm_ops)'],
	['arms', q{name ILIKE '%bad%' OR email ILIKE '%bad%'}, 'docs USING gin (name public.gin_trgm_ops)', 'docs USING gin (email public.gin_trgm_ops)',
		'docs USING gin (name public.gin_trgm_ops, email public.gin_trgm_ops)'])
{
	my ($name, $where, @expected) = @$case;
	@expected = () if $name eq 'nothing to look for';
	is_deeply([ sort(candidates("SELECT id FROM docs WHERE $where")) ], [ sort @expected ], "candidates: $name");
}
is_deeply([ candidates('SELECT o.id FROM other o JOIN docs d ON d.tags @> ARRAY[o.tag] WHERE o.kind = 3') ], ['docs USING gin (tags)'], 'candidates: a join');
for my $case (
	['a large part of a table in its order', q{SELECT sum(id) FROM events WHERE at > '2024-01-10' AND at < '2024-01-15'}, 'events USING brin (at)'],
	['a small part is for a btree', q{SELECT sum(id) FROM events WHERE at > '2024-01-10' AND at < '2024-01-10 01:00'}],
	['one row, too', 'SELECT * FROM events WHERE id = 7'], ['most of it', 'SELECT sum(id) FROM events WHERE id > 10'],
	['not in its order', 'SELECT sum(id) FROM events WHERE mixed BETWEEN 0 AND 200000000'],
	['a smaller table', q{SELECT sum(id) FROM few WHERE at > '2024-01-02' AND at < '2024-01-04'}])
{
	my ($name, $query, @expected) = @$case;
	is_deeply([ candidates($query) ], \@expected, "candidates: $name");
}

# One index of both arms finds either
my $arms = q{'SELECT id FROM docs WHERE name ILIKE $$%bad1%$$ OR email ILIKE $$%u777%$$'};
cmp_ok($sql->("SELECT what_if_cost($arms, indexes => '{\"CREATE INDEX ON docs USING gin (name gin_trgm_ops, email gin_trgm_ops)\"}')"), '<',
	$sql->("SELECT what_if_cost($arms) / 4"), 'an index of both arms serves an OR');

# Where pg_trgm is not installed: the same index, as near as can be
my @patterns = (q{name ILIKE '%bad1%'}, q{name LIKE '%fade%'}, q{name ~ 'bad1'}, q{body LIKE 'some%77%'});
my %with;
for my $where (@patterns)
{
	my ($key) = $where =~ /^(\S+)/;
	my $ddl = "CREATE INDEX ON docs USING gin ($key gin_trgm_ops)";
	(my $query = "SELECT id FROM docs WHERE $where") =~ s/'/''/g;
	$with{$where} = [ $ddl, $query, split /\|/, $sql->("SELECT bytes, what_if_cost('$query', indexes => ARRAY['$ddl']), what_if_cost('$query') FROM index_facts('$ddl')") ];
}
$sql->('DROP EXTENSION pg_trgm CASCADE');
for my $where (@patterns)
{
	my ($ddl, $query, $bytes, $cost, $none) = @{ $with{$where} };
	my ($bytes_now, $cost_now) = split /\|/, $sql->("SELECT bytes, what_if_cost('$query', indexes => ARRAY['$ddl']) FROM index_facts('$ddl')");
	cmp_ok(abs($bytes_now / $bytes - 1), '<', 0.05, "without pg_trgm: size for $where") or diag("$bytes_now, $bytes");
	cmp_ok(abs($cost_now / $cost - 1), '<', 0.2, "... and cost") or diag("$cost_now, $cost, $none");
}
is_deeply([ candidates(q{SELECT id FROM docs WHERE name ILIKE '%bad%' AND tags @> ARRAY['t5']}) ],
	['docs USING gin (name gin_trgm_ops)', 'docs USING gin (tags)'], '... and it is a candidate');
is_deeply([ candidates(q{SELECT id FROM docs WHERE name LIKE 'Name a%'}) ], [], '... but not for what a btree finds');
is($sql->(q{SELECT what_if_cost('SELECT id FROM docs WHERE name LIKE $$%a%$$', indexes => '{CREATE INDEX ON docs USING gin (name gin_trgm_ops)}') = what_if_cost('SELECT id FROM docs WHERE name LIKE $$%a%$$')}),
	't', '... and of no use without a trigram to look for');
is($sql->(q{SELECT index_ddl('CREATE INDEX ON docs USING gin (name gin_trgm_ops)')}), 'CREATE INDEX CONCURRENTLY docs_name_idx ON public.docs USING gin (name gin_trgm_ops)', '... written with its class');

like($sql->(q{SELECT ddl::text || notes::text FROM perfopt.advise(ARRAY['SELECT id FROM docs WHERE name ILIKE $$%bad1%$$']) WHERE query IS NULL}),
	qr/^\{"CREATE EXTENSION pg_trgm","CREATE INDEX CONCURRENTLY docs_name_idx ON public\.docs USING gin \(name gin_trgm_ops\)"\}.*It needs the extension pg_trgm, which is not installed/, '... and advised, with what it needs');
is($sql->(q{SELECT string_agg(d, '; ' ORDER BY d) FROM perfopt.advise(ARRAY['SELECT id FROM docs WHERE data @> $${"user": 7}$$', 'SELECT id FROM docs WHERE words @@ $$a1$$']), unnest(ddl) d WHERE query IS NULL}),
	'CREATE INDEX CONCURRENTLY docs_data_idx ON public.docs USING gin (data jsonb_path_ops); CREATE INDEX CONCURRENTLY docs_words_idx ON public.docs USING gin (words)', 'GIN is advised');

$node->stop;
done_testing();
