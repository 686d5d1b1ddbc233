-- there is an index on created_at
\set h random(1, 8000)
SELECT count(*), avg(quantity) FROM orders
WHERE created_at >= now() - :h * interval '1 h' AND created_at < now() - (:h - 1) * interval '1 h';
