\set u random(1, 100000)
UPDATE users SET last_seen = now() WHERE id = :u;
