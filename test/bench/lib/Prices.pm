# Hypothetical indexes against real ones, on several data sets: the sizes, and
# the costs of plans.  Used by test/bench/prices.pl and, with fewer rows, by a
# test; both give a function that runs SQL, on a server with a build for tests
# and the functions of test/tools/advisor.sql.
package Prices;
use strict;
use warnings;
use Exporter 'import';
our @EXPORT_OK = qw(data_sets make_data compare_prices);

# Each: a name, the columns as a SELECT over i from 1 to ROWS, then indexes, each
# with queries over the table, which is named t.
sub data_sets
{
	return (
		['uniform', q{i AS id, (hashint4(i) & 2147483647) % ROWS AS shuffled, (random() * ROWS / 10)::int AS ten,
			random() AS f, (random() * 1e6)::numeric(10, 2) AS amount, 'x' || i % 50 AS filler},
			['(id)', 'SELECT * FROM t WHERE id = 77', 'SELECT * FROM t WHERE id BETWEEN 1000 AND 3000',
				'SELECT * FROM t ORDER BY id LIMIT 20', 'SELECT * FROM t WHERE id IN (1, 5000, 70000)',
				'SELECT max(id) FROM t', 'SELECT a.f FROM t a JOIN t b ON b.id = a.ten WHERE a.shuffled < 100'],
			['(shuffled)', 'SELECT * FROM t WHERE shuffled = 4711', 'SELECT * FROM t WHERE shuffled < ROWS / 500',
				'SELECT shuffled FROM t WHERE shuffled > ROWS / 2'],
			['(ten)', 'SELECT * FROM t WHERE ten = 42', 'SELECT count(*) FROM t WHERE ten BETWEEN 10 AND 200',
				'SELECT count(*) FROM t a JOIN t b ON b.ten = a.id WHERE a.id < 50',
				'SELECT ten, count(*) FROM t GROUP BY ten ORDER BY ten LIMIT 5'],
			['(f)', 'SELECT * FROM t WHERE f < 0.001', 'SELECT * FROM t ORDER BY f DESC LIMIT 10'],
			['(amount)', 'SELECT * FROM t WHERE amount = 1234.5', 'SELECT * FROM t WHERE amount > 999000'],
			['(ten, id)', 'SELECT * FROM t WHERE ten = 42 ORDER BY id DESC LIMIT 3', 'SELECT * FROM t WHERE ten = 42 AND id > 1000'],
			['(ten) INCLUDE (f)', 'SELECT f FROM t WHERE ten BETWEEN 5 AND 500', 'SELECT sum(f) FROM t WHERE ten = 9'],
			['(id) INCLUDE (filler, amount)', 'SELECT filler FROM t WHERE id BETWEEN 10 AND 9000', 'SELECT amount FROM t WHERE id = 5'],
			['(ten) WITH (fillfactor = 50)', 'SELECT * FROM t WHERE ten = 42', 'SELECT count(ten) FROM t'],
			['(shuffled) WITH (fillfactor = 100)', 'SELECT * FROM t WHERE shuffled < ROWS / 500', 'SELECT count(shuffled) FROM t'],
			['(f DESC, id)', 'SELECT * FROM t ORDER BY f DESC, id LIMIT 10', 'SELECT * FROM t WHERE f > 0.999'],
			['((ten % 100))', 'SELECT * FROM t WHERE ten % 100 = 7', 'SELECT count(*) FROM t WHERE ten % 100 < 3']],
		['skewed', q{i AS id, (ROWS * random() ^ 4)::int AS power, (1 / (random() + 1e-5))::int AS zipf,
			CASE WHEN random() < 0.9 THEN 1 ELSE 2 + (random() * ROWS)::int END AS mostly_one,
			CASE WHEN random() < 0.01 THEN 'new' WHEN random() < 0.1 THEN 'open' ELSE 'done' END AS status,
			md5(i::text) AS filler},
			['(power)', 'SELECT * FROM t WHERE power = 0', 'SELECT * FROM t WHERE power = ROWS / 3',
				'SELECT * FROM t WHERE power > ROWS * 0.99', 'SELECT power FROM t WHERE power < 10'],
			['(zipf)', 'SELECT * FROM t WHERE zipf = 1', 'SELECT * FROM t WHERE zipf = 500', 'SELECT * FROM t WHERE zipf > 5000'],
			['(mostly_one)', 'SELECT * FROM t WHERE mostly_one = 1', 'SELECT * FROM t WHERE mostly_one = 700', 'SELECT count(*) FROM t WHERE mostly_one > 1'],
			['(status)', q{SELECT * FROM t WHERE status = 'new'}, q{SELECT count(*) FROM t WHERE status = 'open'}],
			['(status, id)', q{SELECT * FROM t WHERE status = 'new' ORDER BY id LIMIT 10}, q{SELECT id FROM t WHERE status = 'open' AND id < 1000}],
			[q{(id) WHERE status = 'new'}, q{SELECT * FROM t WHERE status = 'new' AND id < 5000}, q{SELECT * FROM t WHERE status = 'new' ORDER BY id LIMIT 10},
				q{SELECT count(*) FROM t WHERE status = 'new'}, q{SELECT * FROM t WHERE status = 'open' AND id < 5000}],
			[q{(power) WHERE status <> 'done'}, q{SELECT * FROM t WHERE status <> 'done' AND power = 0}, q{SELECT count(*) FROM t WHERE status <> 'done'}],
			[q{(power, id) WHERE mostly_one > 1}, q{SELECT id FROM t WHERE mostly_one > 5 AND power < 3}]],
		['nulls', q{i AS id, CASE WHEN i % 10 = 0 THEN i END AS tenth, CASE WHEN random() < 0.5 THEN md5(i::text) END AS half,
			CASE WHEN random() < 0.98 THEN timestamptz '2024-01-01' + i * interval '1 min' END AS deleted_at,
			(random() * 20)::smallint AS few, random() < 0.3 AS flag},
			['(tenth)', 'SELECT * FROM t WHERE tenth = 500', 'SELECT * FROM t WHERE tenth IS NOT NULL ORDER BY tenth LIMIT 5', 'SELECT count(*) FROM t WHERE tenth IS NULL'],
			['(half)', q{SELECT * FROM t WHERE half = md5('5')}, q{SELECT half FROM t WHERE half > 'f'}],
			['(few)', 'SELECT * FROM t WHERE few = 3', 'SELECT count(*) FROM t WHERE few < 2'],
			['(flag)', 'SELECT count(*) FROM t WHERE flag'],
			['(few, flag)', 'SELECT count(*) FROM t WHERE few = 3 AND flag', 'SELECT * FROM t WHERE few = 3 AND NOT flag'],
			['(id) WHERE deleted_at IS NULL', 'SELECT * FROM t WHERE deleted_at IS NULL', 'SELECT id FROM t WHERE deleted_at IS NULL AND id > 100 ORDER BY id LIMIT 10'],
			['(deleted_at DESC NULLS LAST)', 'SELECT * FROM t ORDER BY deleted_at DESC NULLS LAST LIMIT 10', q{SELECT * FROM t WHERE deleted_at > '2024-03-01' AND deleted_at < '2024-03-02'}],
			['(half, tenth) WHERE half IS NOT NULL', q{SELECT * FROM t WHERE half = md5('7')}, q{SELECT tenth FROM t WHERE half > 'ff'}]],
		['text', q{i AS id, repeat(md5(i::text), 1 + i % 8) AS wide, 'https://example.com/' || i % 1000 || '/' || md5(i::text) AS url,
			substr(md5(i::text), 1, (random() * 20)::int) AS uneven, ('name ' || i % 700)::varchar(40) AS name,
			('u' || i || '@Example.com') AS email, gen_random_uuid() AS uid, decode(md5(i::text), 'hex') AS bytes},
			['(wide)', q{SELECT id FROM t WHERE wide = repeat(md5('17'), 2)}, q{SELECT id FROM t WHERE wide > 'ff'}],
			['(url)', q{SELECT id FROM t WHERE url = 'https://example.com/5/x'}, q{SELECT url FROM t ORDER BY url LIMIT 5}],
			['(url text_pattern_ops)', q{SELECT id FROM t WHERE url LIKE 'https://example.com/77/%'}],
			['(uneven)', q{SELECT id FROM t WHERE uneven = 'abc'}, q{SELECT count(*) FROM t WHERE uneven < '1'}],
			['(name)', q{SELECT id FROM t WHERE name = 'name 33'}, q{SELECT id FROM t WHERE name IN ('name 1', 'name 2')}],
			['(name, url)', q{SELECT url FROM t WHERE name = 'name 33' AND url > 'https://example.com/5'}],
			['(uid)', q{SELECT id FROM t WHERE uid = '00000000-0000-0000-0000-000000000000'}, q{SELECT count(*) FROM t WHERE uid < '01000000-0000-0000-0000-000000000000'}],
			['(bytes)', q{SELECT id FROM t WHERE bytes < '\x01'}],
			['(id) INCLUDE (wide)', 'SELECT wide FROM t WHERE id BETWEEN 5 AND 1000'],
			['(lower(email))', q{SELECT id FROM t WHERE lower(email) = 'u77@example.com'}, q{SELECT id FROM t WHERE lower(email) > 'u99'},
				q{SELECT id FROM t WHERE lower(email) IN ('u1@example.com', 'u2@example.com')}, 'SELECT id FROM t ORDER BY lower(email) LIMIT 5',
				q{SELECT a.id FROM t a JOIN t b ON lower(b.email) = a.email WHERE a.id < 100}],
			['(upper(name))', q{SELECT id FROM t WHERE upper(name) = 'NAME 5'}, 'SELECT upper(name), count(*) FROM t GROUP BY 1'],
			['(url COLLATE "C")', q{SELECT id FROM t WHERE url COLLATE "C" < 'https://example.com/1/'}],
			['((id % 7), uid)', 'SELECT uid FROM t WHERE id % 7 = 3 ORDER BY uid LIMIT 4']],
		['events', q{i AS id, timestamp '2024-01-01' + i * interval '10 s' AS at, timestamp '2024-01-01' + (i + random() * 5000) * interval '10 s' AS about,
			(random() * 500)::int AS device, date '2024-01-01' + i / 1000 AS day, 1 + i / 4 AS order_id,
			jsonb_build_object('kind', 'k' || (random() * 30)::int, 'user', i % 5000, 'pad', md5(i::text)) AS data, random() AS value},
			['(at)', q{SELECT * FROM t WHERE at > '2024-01-02' AND at < '2024-01-02 06:00'}, 'SELECT * FROM t ORDER BY at DESC LIMIT 10'],
			['(about)', q{SELECT * FROM t WHERE about > '2024-01-02' AND about < '2024-01-02 06:00'}],
			['(day)', q{SELECT sum(value) FROM t WHERE day = '2024-01-10'}, 'SELECT day, count(*) FROM t GROUP BY day'],
			['(order_id)', 'SELECT * FROM t WHERE order_id = 77', 'SELECT count(*) FROM t WHERE order_id < 500'],
			['(device, at)', q{SELECT * FROM t WHERE device = 7 ORDER BY at DESC LIMIT 10}, q{SELECT at FROM t WHERE device = 7 AND at > '2024-01-05'}],
			['(device, day)', q{SELECT * FROM t WHERE device = 7 AND day = '2024-01-20'}, 'SELECT count(*) FROM t WHERE device IN (1, 2, 3)'],
			['(day, device) INCLUDE (value)', q{SELECT sum(value) FROM t WHERE day = '2024-01-10' AND device < 100}],
			[q{(date_trunc('hour', at))}, q{SELECT count(*) FROM t WHERE date_trunc('hour', at) = '2024-01-03 04:00'}, q{SELECT * FROM t WHERE date_trunc('hour', at) >= '2024-01-30'}],
			[q{((data ->> 'kind'))}, q{SELECT * FROM t WHERE data ->> 'kind' = 'k7'}, q{SELECT count(*) FROM t WHERE data ->> 'kind' > 'k3'}],
			[q{((data ->> 'user'), at)}, q{SELECT * FROM t WHERE data ->> 'user' = '77' ORDER BY at LIMIT 3}, q{SELECT at FROM t WHERE data ->> 'user' = '77'}],
			[q{(((data ->> 'user')::int)) WHERE data ->> 'kind' = 'k1'}, q{SELECT * FROM t WHERE data ->> 'kind' = 'k1' AND (data ->> 'user')::int < 50}],
			['(date(about), device)', q{SELECT count(*) FROM t WHERE date(about) = '2024-01-08' AND device = 3}]],
		['large', q{i AS id, (random() * ROWS / 5)::int AS five, 1 + i / 4 AS order_id, md5((i / 3)::text) AS code, i % 1000 AS k,
			(random() * 100)::int AS state, timestamp '2024-01-01' + i * interval '1 min' AS at, repeat(md5(i::text), 10) AS filler},
			['(id)', 'SELECT id FROM t WHERE id BETWEEN 5000 AND 7000'], ['(five)', 'SELECT * FROM t WHERE five = 5', 'SELECT * FROM t WHERE five < 100'],
			['(order_id)', 'SELECT * FROM t WHERE order_id = 77', 'SELECT * FROM t WHERE order_id < 500'], ['(code)', q{SELECT * FROM t WHERE code = md5('4')}],
			['(k)', 'SELECT * FROM t WHERE k = 7'], ['(k, five)', 'SELECT * FROM t WHERE k = 7 AND five = 3'], ['(state, order_id)', 'SELECT * FROM t WHERE state = 4 ORDER BY order_id LIMIT 10'],
			['(five) WHERE state = 7', 'SELECT * FROM t WHERE state = 7 AND five < 1000', 'SELECT count(*) FROM t WHERE state = 7'],
			['(at) WHERE k = 3', 'SELECT * FROM t WHERE k = 3', 'SELECT at FROM t WHERE k = 3 ORDER BY at LIMIT 3'],
			['(substr(code, 1, 2))', q{SELECT * FROM t WHERE substr(code, 1, 2) = 'a7'}], ['((five / 10), at)', 'SELECT at FROM t WHERE five / 10 = 50 ORDER BY at LIMIT 3'],
			[q{(date_trunc('day', at))}, q{SELECT count(*) FROM t WHERE date_trunc('day', at) = '2024-02-03'}]],
		['types', q{i AS id, ARRAY[i % 100, i % 7] AS list, ('10.0.' || i % 256 || '.' || i % 100)::inet AS ip, ('user' || i % 3000)::name AS name,
			(i % 5000) * interval '1 min' AS span, (i % 2000)::numeric AS num, (random() * 1000)::real AS r, ('c' || i % 90)::char(12) AS code,
			int4range(i % 500, i % 500 + 10) AS range, i::bigint * 1000003 AS big, (i % 37)::"char" AS letter, i % 3 = 0 AS yes},
			['(list)', q{SELECT id FROM t WHERE list = '{5,3}'}], ['(ip)', q{SELECT id FROM t WHERE ip = '10.0.5.5'}, q{SELECT id FROM t WHERE ip < '10.0.1.0'}],
			['(name)', q{SELECT id FROM t WHERE name = 'user7'}], ['(span)', q{SELECT id FROM t WHERE span < '5 min'}], ['(num)', 'SELECT id FROM t WHERE num = 7'],
			['(num, id)', 'SELECT id FROM t WHERE num = 7 AND id > 4'], ['(r)', 'SELECT id FROM t WHERE r < 1'], ['(code)', q{SELECT count(*) FROM t WHERE code = 'c7'}],
			['(range)', q{SELECT id FROM t WHERE range = '[5,15)'}], ['(big)', 'SELECT id FROM t WHERE big < 1000003000'], ['(letter, big)', q{SELECT big FROM t WHERE letter = '7'}],
			['(yes, id)', 'SELECT id FROM t WHERE yes AND id < 3000', 'SELECT id FROM t WHERE yes ORDER BY id LIMIT 5'],
			['(coalesce(num, 0), id)', 'SELECT id FROM t WHERE coalesce(num, 0) = 5'], [q{((CASE WHEN yes THEN id END))}, 'SELECT id FROM t WHERE CASE WHEN yes THEN id END = 300']],
		['pairs', q{i AS id, i % 10 AS a, (random() * 20)::int AS b, i % 300 AS zip, (i % 300) / 10 AS city, ((i % 300) / 100)::text AS land,
			(random() * 1000)::int AS k1, (random() * 1000)::int AS k2, random() AS v},
			['(a, b)', 'SELECT * FROM t WHERE a = 3 AND b = 7', 'SELECT count(*) FROM t WHERE a = 3'],
			['(zip, city)', 'SELECT * FROM t WHERE zip = 77 AND city = 7', 'SELECT count(*) FROM t WHERE zip = 77'],
			['(city, zip)', 'SELECT * FROM t WHERE city = 7 AND zip = 77', 'SELECT * FROM t WHERE city = 7 ORDER BY zip LIMIT 5'],
			['(land, city, zip)', q{SELECT * FROM t WHERE land = '1' AND city = 13 AND zip = 133}],
			['(k1, k2)', 'SELECT * FROM t WHERE k1 = 5 AND k2 = 9', 'SELECT * FROM t WHERE k1 = 5', 'SELECT k2 FROM t WHERE k1 < 20'],
			['(k1, k2, a)', 'SELECT a FROM t WHERE k1 = 5 AND k2 > 990'],
			['((k1 + k2))', 'SELECT * FROM t WHERE k1 + k2 = 30', 'SELECT * FROM t WHERE k1 + k2 < 40', 'SELECT * FROM t ORDER BY k1 + k2 LIMIT 3']],
		['documents', q{i AS id, jsonb_build_object('kind', 'k' || (random() * 30)::int, 'user', i % 5000, 'pad', md5(i::text),
				'nested', jsonb_build_object('a', (random() * 100)::int, 'list', jsonb_build_array(i % 11, i % 17))) AS data,
			ARRAY['t' || (200 * random() ^ 3)::int, 't' || (random() * 1000)::int, 'all'] AS tags,
			(SELECT array_agg(x) FROM (SELECT (random() * ROWS / 3)::int + i * 0 AS x FROM generate_series(1, i % 6)) s) AS ids,
			CASE WHEN i % 3 = 0 THEN '{}'::int[] WHEN i % 3 = 1 THEN ARRAY[i / 1000, i % 5] END AS sparse, i % 50 AS status},
			['USING gin (data)', q{SELECT id FROM t WHERE data @> '{"kind": "k7"}'}, q{SELECT id FROM t WHERE data @> '{"user": 77}'},
				q{SELECT id FROM t WHERE data @> '{"nested": {"a": 5}, "kind": "k3"}'}, q{SELECT id FROM t WHERE data ? 'k7'}, q{SELECT id FROM t WHERE data @? '$.nested.list[*] ? (@ == 3)'}],
			['USING gin (data jsonb_path_ops)', q{SELECT id FROM t WHERE data @> '{"kind": "k7"}'}, q{SELECT id FROM t WHERE data @> '{"user": 77}'},
				q{SELECT id FROM t WHERE data @> '{"nested": {"list": [3]}}'}],
			[q{USING gin ((data -> 'nested'))}, q{SELECT id FROM t WHERE data -> 'nested' @> '{"a": 5}'}],
			['USING gin (tags)', q{SELECT id FROM t WHERE tags @> ARRAY['t7']}, q{SELECT id FROM t WHERE tags && ARRAY['t900', 't901']}, q{SELECT count(*) FROM t WHERE tags @> ARRAY['t77', 't5']}],
			['USING gin (ids)', q{SELECT id FROM t WHERE ids @> ARRAY[77]}, q{SELECT a.id FROM t a JOIN t b ON b.ids @> ARRAY[a.id] WHERE a.id < 20}],
			['USING gin (sparse)', q{SELECT id FROM t WHERE sparse @> ARRAY[ROWS / 2000]}],
			['USING gin (tags) WHERE status < 5', q{SELECT id FROM t WHERE tags @> ARRAY['t7'] AND status < 5}],
			['USING gin (tags, ids)', q{SELECT id FROM t WHERE tags @> ARRAY['t7'] AND ids @> ARRAY[500]}]],
		['words', q{i AS id, (SELECT string_agg(chr(97 + (length(m) + n * 7) % 26) || substr(m, 1 + n % 5, 2 + n % 4) || CASE WHEN n % 3 = 0 THEN 'ing' ELSE '' END, ' ')
					FROM (SELECT md5((20000 * random() ^ 3)::int::text || i % 1) AS m, n FROM generate_series(1, 4 + i % 12) n) w) AS body,
			'Customer ' || initcap(substr(md5(i::text), 1, 6)) || ' ' || (i % 100) AS name, 'u' || i || '@mail' || i % 50 || '.example.com' AS email, 'https://example.com/' || i % 1000 AS url},
			['USING gin (body gin_trgm_ops)', q{SELECT id FROM t WHERE body LIKE '%aing%'}, q{SELECT id FROM t WHERE body ILIKE '%e81b%'}, q{SELECT id FROM t WHERE body ~ 'b1e.*ing'}],
			['USING gin (name gin_trgm_ops)', q{SELECT id FROM t WHERE name ILIKE '%fade%'}, q{SELECT id FROM t WHERE name LIKE '%bad1%'}, q{SELECT id FROM t WHERE name LIKE 'Customer F%'}],
			['USING gin (email gin_trgm_ops)', q{SELECT id FROM t WHERE email LIKE '%u777%'}],
			['USING gin (lower(name) gin_trgm_ops)', q{SELECT id FROM t WHERE lower(name) LIKE '%fade%'}],
			[q{USING gin (to_tsvector('english', body))}, q{SELECT id FROM t WHERE to_tsvector('english', body) @@ to_tsquery('english', 'ac5')},
				q{SELECT id FROM t WHERE to_tsvector('english', body) @@ to_tsquery('english', 'b4 & c1')}, q{SELECT id FROM t WHERE to_tsvector('english', body) @@ plainto_tsquery('english', 'wherever')}],
			[q{USING gin (to_tsvector('simple', name || ' ' || email))}, q{SELECT id FROM t WHERE to_tsvector('simple', name || ' ' || email) @@ to_tsquery('simple', 'customer & 77')}]],
		['log', q{i AS id, timestamp '2024-01-01' + i * interval '10 s' AS at, timestamp '2024-01-01' + (i + random() * 5000) * interval '10 s' AS about,
			date '2024-01-01' + i / 1000 AS day, CASE WHEN i % 10 > 0 THEN i * 2.5::numeric END AS amount, md5(i::text) AS code, repeat('x', 300) AS filler},
			['USING brin (id)', 'SELECT count(filler) FROM t WHERE id BETWEEN ROWS / 4 AND ROWS / 2', 'SELECT * FROM t WHERE id < 500'],
			['USING brin (at)', q{SELECT sum(amount) FROM t WHERE at > '2024-01-02' AND at < '2024-01-04'}],
			['USING brin (about)', q{SELECT sum(amount) FROM t WHERE about > '2024-01-02' AND about < '2024-01-04'}],
			['USING brin (day, at)', q{SELECT sum(amount) FROM t WHERE day = '2024-01-10'}],
			['USING brin (amount)', 'SELECT count(filler) FROM t WHERE amount < ROWS / 10'],
			['USING brin (code)', q{SELECT count(filler) FROM t WHERE code < '01'}],
			['USING brin (date(at))', q{SELECT sum(amount) FROM t WHERE date(at) = '2024-01-03'}]]);
}

sub make_data
{
	my ($sql, $set, $rows) = @_;
	my ($name, $columns) = @$set;
	$sql->('CREATE EXTENSION IF NOT EXISTS pg_trgm') if $name eq 'words';
	$columns =~ s/\bROWS\b/$rows/g;
	$sql->("DROP TABLE IF EXISTS t; SELECT setseed(0.5); CREATE TABLE t AS SELECT $columns FROM generate_series(1, $rows) i;");
	$sql->('VACUUM ANALYZE t');
}

# Of each index: size { index, real, estimated } and of each query a cost
# { index, query, real, estimated, without }.
sub compare_prices
{
	my ($sql, $set, $rows) = @_;
	my ($name, $columns, @indexes) = @$set;
	my (@sizes, @costs);
	for my $case (@indexes)
	{
		my ($index, @queries) = @$case;
		s/\bROWS\b/$rows/g for @queries;
		my $quoted = sub { my $text = shift; $text =~ s/'/''/g; "'$text'" };
		my $ddl = $quoted->("CREATE INDEX ON t $index");
		# statistics of an expression come with the next ANALYZE
		my $analyze = $index =~ /^(?:USING \w+ )?\(.*\(.*\)/ && $index !~ /^\([^(]*\) (INCLUDE|WITH)/ ? 'ANALYZE t;' : '';
		my $real = join ', ', map { 'what_if_cost(' . $quoted->($_) . ')' } @queries;
		my $estimated = join ', ', map { 'what_if_cost(' . $quoted->($_) . ", indexes => ARRAY[$ddl])" } @queries;
		$sql->("CREATE INDEX tested ON t $index; $analyze");
		my ($real_size, @real) = split /\|/, $sql->("SELECT pg_relation_size('tested'), $real");
		$sql->('DROP INDEX tested');
		my ($size, @estimated) = split /\|/, $sql->("SELECT (SELECT bytes FROM index_facts($ddl)), $estimated");
		my @without = split /\|/, $sql->("SELECT $real");
		push @sizes, { index => "$name$index", real => $real_size, estimated => $size };
		push @costs, map { { index => "$name$index", query => $queries[$_], real => $real[$_], estimated => $estimated[$_], without => $without[$_] } } 0 .. $#queries;
	}
	return (\@sizes, \@costs);
}

1;
