\set o random(1, 2000000)
SELECT status, total_cents FROM orders WHERE id = :o;
