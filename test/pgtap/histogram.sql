-- Histograms: every bucket's bounds, and the error of percentiles.
BEGIN;
SELECT plan(9);

-- A value in the middle, just above the lower bound and just below the upper
-- one of every bucket is in that bucket.  (Bounds are irrational but for each
-- eighth; a nanosecond decides there.)
CREATE TEMP TABLE bucket AS
    SELECT i, power(2::float8, i / 8.0) / 1000 AS low, power(2::float8, (i + 1) / 8.0) / 1000 AS high
      FROM generate_series(0, 255) i;

SELECT is_empty($$
    SELECT i, perfopt.histogram(sqrt(low * high)) FROM bucket WHERE i > 8 GROUP BY i
    HAVING perfopt.histogram(sqrt(low * high)) <> ARRAY[i, 1]::bigint[] $$,
    'the middle of each bucket is in it');
SELECT is_empty($$
    SELECT i, perfopt.histogram(low + 1e-6) FROM bucket WHERE i > 24 GROUP BY i
    HAVING perfopt.histogram(low + 1e-6) <> ARRAY[i, 1]::bigint[] $$,
    'so is what is a nanosecond above its lower bound');
SELECT is_empty($$
    SELECT i, perfopt.histogram(high - 1e-6) FROM bucket WHERE i > 24 GROUP BY i
    HAVING perfopt.histogram(high - 1e-6) <> ARRAY[i, 1]::bigint[] $$,
    'and what is a nanosecond below its upper one');
SELECT is_empty($$
    SELECT i FROM bucket WHERE i % 8 = 0 AND i < 256 GROUP BY i
    HAVING perfopt.histogram(low) <> ARRAY[i, 1]::bigint[] $$,
    'powers of two are in the bucket they begin');

-- The stated error, over the whole range
SELECT cmp_ok((
    SELECT max(abs(perfopt.histogram_percentile(ARRAY[i, 1]::bigint[], 0.5) / value - 1))
      FROM bucket, LATERAL (VALUES (low), (high), (sqrt(low * high))) v (value)), '<=', 0.04333::float8,
    'no value is further than 4.33 % from the estimate of its bucket');

-- On data: a mix of fast, slow and very slow, 20,000 of them, the same each time
CREATE TEMP TABLE latency AS
    SELECT exp(CASE WHEN i % 100 = 0 THEN 6 WHEN i % 10 = 0 THEN 2 ELSE -2 END
               + sin(i) * 1.5 + cos(i * 1.7)) AS ms
      FROM generate_series(1, 20000) i;
SELECT cmp_ok((
    SELECT max(abs(perfopt.histogram_percentile((SELECT perfopt.histogram(ms) FROM latency), f)
                   / (SELECT percentile_disc(f) WITHIN GROUP (ORDER BY ms) FROM latency) - 1))
      FROM unnest(ARRAY[0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1]::float8[]) f), '<=', 0.0434::float8,
    'percentiles of data are as close as that');

SELECT is((SELECT perfopt.histogram_merge(h) FROM (SELECT perfopt.histogram(ms) h FROM latency GROUP BY ms > 1) g),
          (SELECT perfopt.histogram(ms) FROM latency),
          'merging histograms gives the histogram of all');
SELECT is((SELECT sum(calls) FROM perfopt.histogram_buckets((SELECT perfopt.histogram(ms) FROM latency))), 20000::numeric,
          'histogram_buckets() shows all of it');
SELECT is((SELECT array_agg(DISTINCT b) FROM unnest((SELECT perfopt.histogram(ms) FROM unnest(ARRAY[0, 0.0001, 1e8, 'infinity'::float8]) ms)) b),
          ARRAY[0, 2, 255]::bigint[],
          'what is below and above the range is in the first and the last bucket');

SELECT * FROM finish();
ROLLBACK;
