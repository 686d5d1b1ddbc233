-- Index advice as a user meets it.
CREATE TABLE people (id int PRIMARY KEY, email text, filler text);
INSERT INTO people SELECT i, 'user' || i || '@example.com', repeat('x', 80) FROM generate_series(1, 20000) i;
ANALYZE people;
SELECT perfopt.reset_latency();

-- A statement is sampled from the second time on.
SELECT id FROM people WHERE email = 'user1@example.com';
SELECT id FROM people WHERE email = 'user2@example.com';
SELECT id FROM people WHERE email = 'user3@example.com';
PREPARE by_email(text) AS SELECT id FROM people WHERE email = $1;
EXECUTE by_email('user4@example.com');
EXECUTE by_email('user5@example.com');
SELECT parameters FROM perfopt.plan_samples WHERE parameters <> '{}';

-- The advice, ready to paste
SELECT perfopt.analyze_now() > 0 AS advised;
SELECT kind, relation, ddl, status, error, estimated_bytes BETWEEN 500000 AND 2000000 AS size,
    jsonb_array_length(evidence -> 'queries') > 0 AS has_evidence
FROM perfopt.advice WHERE relation = 'public.people';

-- Somebody follows it by hand.
CREATE INDEX by_hand ON people (email);
SELECT perfopt.analyze_now() >= 0 AS done;
SELECT status FROM perfopt.advice WHERE relation = 'public.people';

-- Nobody owns what isn't there.
SELECT perfopt.apply_advice(-1);

DROP TABLE people;
