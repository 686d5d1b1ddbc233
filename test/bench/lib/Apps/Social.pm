# Social.pm: a social network, as Mastodon or Discourse keep one: accounts of
# many servers, short texts, follows, favourites, notifications.  What an
# application of that kind would have besides primary keys is missing, but for
# the unique follows.
package Apps::Social;

use strict;
use warnings;
use Apps::Values;

my %rows = (accounts => 60_000, users => 30_000, statuses => 200_000);

sub name { return 'social' }

sub schema
{
	return phrases_sql(9) . <<'SQL';
CREATE TABLE accounts (id bigserial PRIMARY KEY, username text NOT NULL, domain text, display_name text NOT NULL,
	note text NOT NULL, uri text NOT NULL, public_key text NOT NULL, fields jsonb NOT NULL DEFAULT '{}',
	created_at timestamp NOT NULL, suspended_at timestamp);
INSERT INTO accounts (username, domain, display_name, note, uri, public_key, created_at, suspended_at)
SELECT 'User' || substr(md5(i::text), 1, 6) || i, CASE WHEN i % 10 = 0 THEN NULL ELSE 'server' || floor(2000 * random() ^ 3) || '.example' END,
	a.text, b.text, 'https://example.org/users/' || md5(i::text), repeat(md5(i::text), 6),
	timestamp '2026-01-01' - (60000 - i) * interval '30 minutes', CASE WHEN i % 90 = 0 THEN timestamp '2025-12-01' END
FROM generate_series(1, 60000) AS i JOIN phrases a ON a.n = 1 + i % 4000 JOIN phrases b ON b.n = 1 + i * 7 % 4000 ORDER BY i;

CREATE TABLE users (id bigserial PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE, email text NOT NULL,
	encrypted_password text NOT NULL, reset_password_token text, sign_in_count int NOT NULL DEFAULT 0, settings jsonb NOT NULL DEFAULT '{}',
	last_sign_in_at timestamp, confirmed_at timestamp);
INSERT INTO users (account_id, email, encrypted_password, reset_password_token, last_sign_in_at, confirmed_at)
SELECT i * 2, 'Person' || i || '@Mail' || i % 50 || '.example', repeat(md5(i::text), 3), CASE WHEN i % 100 = 0 THEN md5('reset' || i) END,
	timestamp '2026-01-01' - random() ^ 4 * interval '900 days', CASE WHEN i % 20 > 0 THEN timestamp '2025-01-01' END
FROM generate_series(1, 30000) AS i;

CREATE TABLE statuses (id bigserial PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE, text text NOT NULL,
	visibility smallint NOT NULL, language text, in_reply_to_id bigint REFERENCES statuses ON DELETE SET NULL,
	reblog_of_id bigint REFERENCES statuses ON DELETE CASCADE, conversation_id bigint, created_at timestamp NOT NULL, deleted_at timestamp);
INSERT INTO statuses (account_id, text, visibility, language, in_reply_to_id, reblog_of_id, conversation_id, created_at, deleted_at)
SELECT 1 + floor(60000 * r ^ 3), a.text || ' ' || b.text, CASE WHEN i % 10 < 7 THEN 0 WHEN i % 10 < 9 THEN 1 ELSE 3 END,
	CASE WHEN i % 10 < 6 THEN 'en' WHEN i % 10 < 8 THEN 'de' ELSE 'ja' END,
	CASE WHEN i > 1000 AND i % 3 = 0 THEN i - 1 - floor(900 * q ^ 2) END,
	CASE WHEN i > 1000 AND i % 7 = 1 THEN 1 + floor((i - 1) * q) END, i / 4,
	timestamp '2026-01-01' - (200000 - i) * interval '5 minutes', CASE WHEN i % 25 = 0 THEN timestamp '2026-01-01' END
FROM (SELECT i, random() AS r, random() AS q, 1 + floor(4000 * random())::int AS p FROM generate_series(1, 200000) AS i) AS i
JOIN phrases a ON a.n = i.p JOIN phrases b ON b.n = 1 + i.p * 3 % 4000 ORDER BY i;

CREATE TABLE follows (id bigserial PRIMARY KEY, account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE,
	target_account_id bigint NOT NULL REFERENCES accounts ON DELETE CASCADE, created_at timestamp NOT NULL DEFAULT now(),
	UNIQUE (account_id, target_account_id));
INSERT INTO follows (account_id, target_account_id)
SELECT DISTINCT ON (a, t) a, t FROM (SELECT 1 + floor(60000 * random() ^ 2) AS a, 1 + floor(60000 * random() ^ 3) AS t
	FROM generate_series(1, 250000)) AS pairs;

CREATE TABLE favourites (id bigserial PRIMARY KEY, account_id bigint NOT NULL, status_id bigint NOT NULL REFERENCES statuses ON DELETE CASCADE,
	created_at timestamp NOT NULL);
INSERT INTO favourites (account_id, status_id, created_at)
SELECT 1 + floor(60000 * random() ^ 2), 1 + floor(200000 * random()), timestamp '2026-01-01' - (300000 - i) * interval '3 minutes'
FROM generate_series(1, 300000) AS i;

CREATE TABLE mentions (id bigserial PRIMARY KEY, status_id bigint NOT NULL REFERENCES statuses ON DELETE CASCADE, account_id bigint NOT NULL,
	silent boolean NOT NULL DEFAULT false);
INSERT INTO mentions (status_id, account_id, silent)
SELECT 1 + floor(200000 * random()), 1 + floor(60000 * random() ^ 3), i % 50 = 0 FROM generate_series(1, 120000) AS i;

CREATE TABLE notifications (id bigserial PRIMARY KEY, account_id bigint NOT NULL, from_account_id bigint NOT NULL, type text NOT NULL,
	activity_type text NOT NULL, activity_id bigint NOT NULL, read_at timestamp, created_at timestamp NOT NULL);
INSERT INTO notifications (account_id, from_account_id, type, activity_type, activity_id, read_at, created_at)
SELECT 2 * (1 + floor(30000 * random() ^ 3)), 1 + floor(60000 * random() ^ 2), (ARRAY['favourite', 'mention', 'reblog', 'follow'])[1 + i % 4],
	(ARRAY['Favourite', 'Mention', 'Status', 'Follow'])[1 + i % 4], 1 + floor(120000 * random()),
	CASE WHEN i % 20 > 0 THEN timestamp '2026-01-01' END, timestamp '2026-01-01' - (300000 - i) * interval '2 minutes'
FROM generate_series(1, 300000) AS i;

CREATE TABLE media_attachments (id bigserial PRIMARY KEY, status_id bigint REFERENCES statuses ON DELETE SET NULL, account_id bigint NOT NULL,
	remote_url text NOT NULL, blurhash text NOT NULL, file_size int NOT NULL, created_at timestamp NOT NULL);
INSERT INTO media_attachments (status_id, account_id, remote_url, blurhash, file_size, created_at)
SELECT CASE WHEN i % 60 > 0 THEN 1 + floor(200000 * random()) END, 1 + floor(60000 * random() ^ 3), 'https://files.example/' || md5(i::text) || '.jpg',
	md5(i::text), 1000000 * random(), timestamp '2026-01-01' - (80000 - i) * interval '10 minutes'
FROM generate_series(1, 80000) AS i;

CREATE TABLE tags (id bigserial PRIMARY KEY, name text NOT NULL UNIQUE);
INSERT INTO tags (name) SELECT 'tag' || i FROM generate_series(1, 5000) AS i;
CREATE TABLE statuses_tags (status_id bigint NOT NULL, tag_id bigint NOT NULL, PRIMARY KEY (status_id, tag_id));
INSERT INTO statuses_tags SELECT DISTINCT 1 + floor(200000 * random())::int, 1 + floor(5000 * random() ^ 3)::int FROM generate_series(1, 200000);

CREATE TABLE site_settings (id bigserial PRIMARY KEY, var text NOT NULL, value text);
INSERT INTO site_settings (var, value) SELECT 'setting' || i, md5(i::text) FROM generate_series(1, 60) AS i;

CREATE TABLE login_activities (id bigserial PRIMARY KEY, user_id bigint NOT NULL, success boolean NOT NULL, ip text NOT NULL, user_agent text, created_at timestamp NOT NULL DEFAULT now());
INSERT INTO login_activities (user_id, success, ip) SELECT 1 + floor(30000 * random()), i % 9 > 0, '10.0.' || i % 256 || '.' || i / 256 % 256 FROM generate_series(1, 20000) AS i;
SQL
}

sub statements
{
	my $account = sub { skewed($rows{accounts}) };
	my $status = sub { below($rows{statuses}) };
	my $user = sub { 2 * skewed(30_000) };
	return (
		# needs
		{
			name => 'account by name and server',
			kind => 'need',
			weight => 8,
			sql => 'SELECT accounts.* FROM accounts WHERE lower(accounts.username) = lower($1) AND lower(accounts.domain) = lower($2) LIMIT 1',
			args => sub { ('User' . below(1000), 'server1.example') },
			expert => [ ['accounts (lower(username), lower(domain))'], ['accounts (lower(username))'] ],
		},
		{
			name => 'account by URI',
			kind => 'need',
			weight => 8,
			simple => 1,
			sql => 'SELECT accounts.id, accounts.username, accounts.domain FROM accounts WHERE accounts.uri = $1',
			args => sub { 'https://example.org/users/' . md5_hex(below($rows{accounts})) },
			expert => [ ['accounts (uri)'] ],
		},
		{
			name => 'user by e-mail',
			kind => 'need',
			weight => 8,
			sql => 'SELECT u.* FROM users u WHERE lower(u.email) = $1 ORDER BY u.id LIMIT 1',
			args => sub { my $n = below($rows{users}); 'person' . $n . '@mail' . $n % 50 . '.example' },
			expert => [ ['users (lower(email))'] ],
		},
		{
			name => 'user by reset token',
			kind => 'need',
			weight => 6,
			sql => 'SELECT u.id FROM users u WHERE u.reset_password_token = $1 LIMIT 1',
			args => sub { md5_hex('reset' . below($rows{users})) },
			expert => [ ['users (reset_password_token)'], ['users (reset_password_token) WHERE reset_password_token IS NOT NULL'] ],
		},
		{
			name => 'profile, newest first',
			kind => 'need',
			weight => 12,
			sql => 'SELECT s.id, s.text, s.created_at FROM statuses s WHERE s.account_id = $1 AND s.deleted_at IS NULL AND s.visibility IN (0, 1)'
			  . ' AND s.id < $2 ORDER BY s.id DESC LIMIT 20',
			args => sub { (below($rows{accounts}), $rows{statuses} - int 50_000 * rand) },
			expert => [ ['statuses (account_id, id)'], ['statuses (account_id, id) WHERE deleted_at IS NULL'] ],
		},
		{
			name => 'replies',
			kind => 'need',
			weight => 8,
			sql => 'SELECT s.* FROM statuses s WHERE s.in_reply_to_id = $1 AND s.deleted_at IS NULL ORDER BY s.id',
			args => $status,
			expert => [ ['statuses (in_reply_to_id)'], ['statuses (in_reply_to_id) WHERE in_reply_to_id IS NOT NULL'] ],
		},
		{
			name => 'tree of replies',
			kind => 'need',
			weight => 4,
			sql => 'WITH RECURSIVE thread AS (SELECT id, in_reply_to_id, 1 AS depth FROM statuses WHERE id = $1 UNION ALL'
			  . ' SELECT s.id, s.in_reply_to_id, t.depth + 1 FROM statuses s JOIN thread t ON s.in_reply_to_id = t.id WHERE t.depth < 5)'
			  . ' SELECT id FROM thread ORDER BY depth, id LIMIT 100',
			args => $status,
			expert => [ ['statuses (in_reply_to_id)'], ['statuses (in_reply_to_id) WHERE in_reply_to_id IS NOT NULL'] ],
		},
		{
			name => 'page of notifications',
			kind => 'need',
			weight => 10,
			sql => 'SELECT n.* FROM notifications n WHERE n.account_id = $1 ORDER BY n.id DESC LIMIT 20 OFFSET $2',
			args => sub { ($user->(), 20 * int 3 * rand) },
			expert => [ ['notifications (account_id, id)'], ['notifications (account_id)'] ],
		},
		{
			name => 'unread notifications',
			kind => 'need',
			weight => 12,
			sql => 'SELECT count(*) FROM notifications WHERE account_id = $1 AND read_at IS NULL',
			args => $user,
			expert => [ ['notifications (account_id) WHERE read_at IS NULL'], ['notifications (account_id, read_at)'] ],
		},
		{
			name => 'notifications of something deleted',
			kind => 'need',
			weight => 3,
			simple => 1,
			sql => q{DELETE FROM notifications WHERE activity_type = 'Status' AND activity_id = $1},
			args => sub { below(120_000) },
			expert => [ ['notifications (activity_id, activity_type)'], ['notifications (activity_id)'] ],
		},
		{
			name => 'favourites of a status',
			kind => 'need',
			weight => 8,
			sql => 'SELECT count(*) FROM favourites WHERE favourites.status_id = $1',
			args => $status,
			expert => [ ['favourites (status_id)'], ['favourites (status_id, account_id)'] ],
		},
		{
			name => 'which of a page are favourites',
			kind => 'need',
			weight => 8,
			sql => 'SELECT f.status_id FROM favourites f WHERE f.account_id = $1 AND f.status_id = ANY($2)',
			args => sub { ($account->(), list(20, $status)) },
			expert => [ ['favourites (account_id, status_id)'], ['favourites (status_id, account_id)'], ['favourites (status_id)'], ['favourites (account_id)'] ],
		},
		{
			name => 'followers',
			kind => 'need',
			weight => 6,
			sql => 'SELECT a.id, a.username, a.display_name FROM follows f JOIN accounts a ON a.id = f.account_id'
			  . ' WHERE f.target_account_id = $1 AND a.suspended_at IS NULL ORDER BY f.id DESC LIMIT 40',
			args => sub { below($rows{accounts}) },
			expert => [ ['follows (target_account_id, id)'], ['follows (target_account_id)'] ],
		},
		{
			name => 'accounts mentioned on a page',
			kind => 'need',
			weight => 8,
			sql => 'SELECT m.status_id, a.username, a.domain FROM mentions m JOIN accounts a ON a.id = m.account_id'
			  . ' WHERE m.status_id IN (' . literals(10, 1) . ') AND NOT m.silent',
			args => sub { map { $status->() } 1 .. 10 },
			expert => [ ['mentions (status_id)'], ['mentions (status_id) WHERE NOT silent'] ],
		},
		{
			name => 'media of a page',
			kind => 'need',
			weight => 8,
			sql => 'SELECT m.* FROM media_attachments m WHERE m.status_id = ANY($1)',
			args => sub { list(20, $status) },
			expert => [ ['media_attachments (status_id)'], ['media_attachments (status_id) WHERE status_id IS NOT NULL'] ],
		},
		{
			name => 'media without a status',
			kind => 'need',
			weight => 3,
			sql => 'SELECT m.id, m.remote_url FROM media_attachments m WHERE m.status_id IS NULL AND m.created_at < $1 ORDER BY m.created_at LIMIT 50',
			args => sub { instant(500 * rand) },
			expert => [ ['media_attachments (created_at) WHERE status_id IS NULL'], ['media_attachments (status_id, created_at)'], ['media_attachments (status_id)'] ],
		},
		{
			name => 'newest of a tag',
			kind => 'need',
			weight => 5,
			sql => 'SELECT s.id, s.text FROM statuses s JOIN statuses_tags t ON t.status_id = s.id'
			  . ' WHERE t.tag_id = $1 AND s.deleted_at IS NULL AND s.visibility = 0 ORDER BY s.id DESC LIMIT 20',
			args => sub { below(5000) },
			expert => [ ['statuses_tags (tag_id, status_id)'], ['statuses_tags (tag_id)'] ],
		},
		{
			name => 'accounts by words of their names',
			kind => 'need',
			weight => 3,
			sql => q{SELECT a.id FROM accounts a WHERE to_tsvector('simple', a.display_name) @@ plainto_tsquery('simple', $1) LIMIT 20},
			args => sub { join ' ', word(2000 + below(4000)), word(2000 + below(4000)) },
			expert => [ [q{accounts USING gin (to_tsvector('simple', display_name))}] ],
		},
		{
			name => 'names as they are typed',
			kind => 'need',
			weight => 5,
			simple => 1,
			sql => 'SELECT a.id, a.username FROM accounts a WHERE lower(a.username) LIKE $1 ORDER BY a.id LIMIT 10',
			args => sub { sprintf 'user%04x%%', below(65535) },
			expert => [ ['accounts (lower(username) text_pattern_ops)'] ],
		},
		{
			name => 'a status deleted with all that hangs on it',
			kind => 'need',
			weight => 2,
			sql => 'DELETE FROM statuses WHERE id = $1',
			args => $status,
			expert => [
				[
					'favourites (status_id)', 'mentions (status_id)',
					'media_attachments (status_id)', 'statuses (reblog_of_id)',
					'statuses (in_reply_to_id)'
				]
			],
		},
		{
			name => 'has that been passed on by me',
			kind => 'need',
			weight => 5,
			sql => 'SELECT 1 AS one FROM statuses s WHERE s.reblog_of_id = $1 AND s.account_id = $2 AND s.deleted_at IS NULL LIMIT 1',
			args => sub { ($status->(), $account->()) },
			expert => [ ['statuses (reblog_of_id, account_id)'], ['statuses (reblog_of_id)'], ['statuses (account_id)'] ],
		},

		# controls
		{
			name => 'a setting, of a small table',
			kind => 'control',
			weight => 60,
			sql => 'SELECT s.* FROM site_settings s WHERE s.var = $1 LIMIT 1',
			args => sub { 'setting' . below(60) },
			tried => ['site_settings (var)'],
		},
		{
			name => 'account by key',
			kind => 'control',
			weight => 60,
			sql => 'SELECT a.* FROM accounts a WHERE a.id = $1',
			args => $account,
			tried => ['accounts (id) INCLUDE (username)'],
		},
		{
			name => 'do I follow',
			kind => 'control',
			weight => 30,
			sql => 'SELECT 1 AS one FROM follows WHERE account_id = $1 AND target_account_id = $2 LIMIT 1',
			args => sub { ($account->(), $account->()) },
			tried => [ 'follows (target_account_id, account_id)', 'follows (target_account_id)' ],
		},
		{
			name => 'newest public ones',
			kind => 'control',
			weight => 20,
			sql => 'SELECT s.id, s.text FROM statuses s WHERE s.visibility = 0 AND s.deleted_at IS NULL AND s.id < $1 ORDER BY s.id DESC LIMIT 20',
			args => $status,
			tried => [ 'statuses (visibility, id)', 'statuses (id) WHERE deleted_at IS NULL', 'statuses (id) WHERE visibility = 0 AND deleted_at IS NULL' ],
		},
		{
			name => 'texts by language, all',
			kind => 'control',
			weight => 0.4,
			sql => 'SELECT s.language, count(*), avg(length(s.text)) FROM statuses s WHERE s.deleted_at IS NULL GROUP BY s.language',
			args => sub { () },
			tried => [ 'statuses (language)', 'statuses (language) WHERE deleted_at IS NULL' ],
		},
		{
			name => 'a login is kept',
			kind => 'write',
			weight => 150,
			sql => 'INSERT INTO login_activities (user_id, success, ip, user_agent) VALUES ($1, true, $2, $3)',
			args => sub { (below($rows{users}), '10.0.0.' . below(255), 'Mozilla/5.0') },
		},
		{
			name => 'logins of a user, asked for rarely',
			kind => 'rare',
			weight => 0.3,
			sql => 'SELECT l.* FROM login_activities l WHERE l.user_id = $1 ORDER BY l.id DESC LIMIT 10',
			args => sub { below($rows{users}) },
			tried => ['login_activities (user_id)'],
		},
		{
			name => 'a favourite is set',
			kind => 'write',
			weight => 15,
			sql => 'INSERT INTO favourites (account_id, status_id, created_at) VALUES ($1, $2, now())',
			args => sub { ($account->(), $status->()) },
		},
		{
			name => 'a text is posted',
			kind => 'write',
			weight => 8,
			sql => 'INSERT INTO statuses (account_id, text, visibility, language, conversation_id, created_at) VALUES ($1, $2, 0, $3, 1, now())',
			args => sub { ($account->(), join(' ', map { word(below(8000)) } 1 .. 12), 'en') },
		},
		{
			name => 'a user signs in',
			kind => 'write',
			weight => 10,
			sql => 'UPDATE users SET last_sign_in_at = now(), sign_in_count = sign_in_count + 1 WHERE id = $1',
			args => sub { below($rows{users}) },
		},
	);
}

sub md5_hex
{
	require Digest::MD5;
	return Digest::MD5::md5_hex(shift);
}

1;
