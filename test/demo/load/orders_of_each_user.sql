-- N+1: a page of users, then one query for each of them
\set u random(1, 99990)
SELECT id, name FROM users WHERE id >= :u ORDER BY id LIMIT 10;
\set v :u + 0
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 1
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 2
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 3
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 4
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 5
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 6
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 7
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 8
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
\set v :u + 9
SELECT count(*), sum(total_cents) FROM orders WHERE user_id = :v;
