\set u random(1, 100000)
INSERT INTO orders (user_id, status, quantity, total_cents, created_at, address)
VALUES (:u, 'new', 1, 4999, now(), 'Street 1, City 2');
