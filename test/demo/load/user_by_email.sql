\set u random(1, 100000)
SELECT 'user' || :u || '@example.com' AS email \gset
SELECT id, name FROM users WHERE email = :email;
