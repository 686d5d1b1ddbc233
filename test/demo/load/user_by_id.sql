\set u random(1, 100000)
SELECT name, email, profile FROM users WHERE id = :u;
