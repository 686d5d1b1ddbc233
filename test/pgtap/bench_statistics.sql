-- What is made of measured times: mean, deviation and quantiles against the
-- server's own, the signed-rank test against values worked out by hand.
BEGIN;
SELECT plan(13);

CREATE FUNCTION statistics(times float8[], fractions float8[]) RETURNS float8[]
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_bench_statistics';
CREATE FUNCTION signed_rank(logs float8[]) RETURNS float8[]
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_bench_signed_rank';
CREATE FUNCTION rounded(numbers float8[]) RETURNS numeric[] LANGUAGE sql AS
    $$ SELECT array_agg(round(n::numeric, 6) ORDER BY i) FROM unnest(numbers) WITH ORDINALITY u (n, i) $$;

-- uniform, skewed with a long tail, and with many that are equal
CREATE TEMP TABLE times AS
    SELECT 'uniform' AS kind, 1 + (i * 7919 % 5003)::float8 AS t FROM generate_series(1, 5003) i
    UNION ALL SELECT 'tail', exp(3 * sin(i) + CASE WHEN i % 100 = 0 THEN 5 ELSE 0 END) FROM generate_series(1, 4000) i
    UNION ALL SELECT 'equal', (i % 3)::float8 FROM generate_series(1, 1000) i
    UNION ALL SELECT 'two', i FROM generate_series(1, 2) i;
SELECT is(rounded(statistics(array_agg(t), ARRAY[0, 0.25, 0.5, 0.95, 0.99, 1])),
        rounded(ARRAY[avg(t), stddev_samp(t), percentile_cont(0.5) WITHIN GROUP (ORDER BY t)] ||
            percentile_cont(ARRAY[0, 0.25, 0.5, 0.95, 0.99, 1]) WITHIN GROUP (ORDER BY t)),
        'as the server computes it: ' || kind)
FROM times GROUP BY kind ORDER BY kind;
SELECT is(statistics('{7}', '{0.5,0.99}'), '{7,0,7,7,7}', 'a single time');

-- Hollander and Wolfe, Nonparametric Statistical Methods, the depression scores:
-- V = 40 of 45, p = 20 of 512, 95 % interval (0.010, 0.786)
SELECT is(rounded(signed_rank('{0.952,-0.147,1.022,0.43,0.62,0.59,0.49,-0.08,0.01}')),
    '{0.039063,0.460000,0.010000,0.786000}', 'a known example');
SELECT is(rounded(signed_rank('{-0.952,0.147,-1.022,-0.43,-0.62,-0.59,-0.49,0.08,-0.01}')),
    '{0.039063,-0.460000,-0.786000,-0.010000}', 'and the other way round');
SELECT is((signed_rank('{1,1,-1,2,2,3,-2,0,4,4}'))[1], 0.08203125::float8,
    'equal values share their ranks, zero is left out: 42 of 512');
SELECT is((signed_rank('{1,2,3,4,5,6}'))[1], 2 / 64.0::float8, 'six of one sign: 2 of 64');
SELECT is(signed_rank('{1,2,3,4,5}'), '{0.0625,3}', 'five are too few for an interval');
SELECT is((signed_rank('{0,0,0,0,0,0,0}'))[1], 1::float8, 'no difference at all');
-- beyond where it is exact: the two ways agree
SELECT cmp_ok(abs((signed_rank(i))[1] - (signed_rank(i || 0.5::float8))[1]), '<', 0.01::float8,
    'the approximation goes on where the exact distribution ends')
FROM (SELECT array_agg(CASE WHEN n % 7 < 4 THEN n ELSE -n END::float8) AS i FROM generate_series(1, 200) n) v;

-- It holds what it says: of many samples that are symmetric around zero, one in
-- twenty is called significant.
CREATE TEMP TABLE noise AS
    SELECT s, signed_rank(array_agg(((hashint8(s * 100 + i) & 65535) / 65536.0 - 0.5)::float8)) AS t
    FROM generate_series(1, 4000) s, generate_series(1, 10) i GROUP BY s;
SELECT ok(count(*) FILTER (WHERE t[1] < 0.05) BETWEEN 130 AND 250 AND
        count(*) FILTER (WHERE t[3] > 0 OR t[4] < 0) BETWEEN 130 AND 250,
    'of 4,000 samples of noise ' || count(*) FILTER (WHERE t[1] < 0.05) || ' are significant, and '
    || count(*) FILTER (WHERE t[3] > 0 OR t[4] < 0) || ' intervals miss zero')
FROM noise;

SELECT * FROM finish();
ROLLBACK;
