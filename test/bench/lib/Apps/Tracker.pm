# Tracker.pm: tickets of many tenants, as Redmine, GitLab or a help desk keep
# them: projects in trees, comments, labels and watchers by (type, id), events.
package Apps::Tracker;

use strict;
use warnings;
use Apps::Values;

my %rows = (tickets => 150_000, projects => 3000, users => 20_000, tenants => 200);

sub name { return 'tracker' }

sub schema
{
	return phrases_sql(8) . <<'SQL';
CREATE TABLE tenants (id bigserial PRIMARY KEY, name text NOT NULL, plan text NOT NULL, settings jsonb NOT NULL DEFAULT '{}');
INSERT INTO tenants (name, plan) SELECT 'tenant ' || i, 'free' FROM generate_series(1, 200) AS i;

CREATE TABLE users (id bigserial PRIMARY KEY, tenant_id bigint NOT NULL REFERENCES tenants, email text NOT NULL, name text NOT NULL,
	active boolean NOT NULL, settings jsonb NOT NULL DEFAULT '{}', UNIQUE (tenant_id, email));
INSERT INTO users (tenant_id, email, name, active)
SELECT 1 + floor(200 * (i / 20001.0) ^ 2), 'user' || i || '@example.org', 'User ' || i, i % 10 > 0 FROM generate_series(1, 20000) AS i;

CREATE TABLE projects (id bigserial PRIMARY KEY, tenant_id bigint NOT NULL REFERENCES tenants, parent_id bigint REFERENCES projects, name text NOT NULL,
	identifier text NOT NULL, archived boolean NOT NULL);
INSERT INTO projects (tenant_id, parent_id, name, identifier, archived)
SELECT 1 + floor(200 * (i / 3001.0) ^ 2), CASE WHEN i % 3 > 0 AND i > 10 THEN i - 1 END, 'Project ' || i, 'project-' || i, i % 8 = 0 FROM generate_series(1, 3000) AS i;

CREATE TABLE tickets (id bigserial PRIMARY KEY, tenant_id bigint NOT NULL REFERENCES tenants, project_id bigint NOT NULL REFERENCES projects,
	number int NOT NULL, author_id bigint NOT NULL REFERENCES users, assignee_id bigint REFERENCES users, parent_id bigint REFERENCES tickets,
	title text NOT NULL, body text NOT NULL, status text NOT NULL, priority int NOT NULL, due_on date, tags text[] NOT NULL DEFAULT '{}',
	custom jsonb NOT NULL DEFAULT '{}', created_at timestamp NOT NULL, updated_at timestamp NOT NULL, deleted_at timestamp, lock_version int NOT NULL DEFAULT 0);
INSERT INTO tickets (tenant_id, project_id, number, author_id, assignee_id, parent_id, title, body, status, priority, due_on, tags, custom, created_at, updated_at, deleted_at)
SELECT p.tenant_id, p.id, row_number() OVER (PARTITION BY p.id ORDER BY i), 1 + floor(20000 * random() ^ 2), CASE WHEN i % 5 > 0 THEN 1 + floor(20000 * random() ^ 3) END,
	CASE WHEN i > 2000 AND i % 8 = 0 THEN i - 1 - floor(2000 * random()) END, a.text, b.text || '. ' || c.text || '. ' || a.text,
	CASE WHEN i > 130000 AND i % 3 > 0 OR i % 20 = 0 THEN 'open' WHEN i % 33 = 0 THEN 'pending' ELSE 'closed' END, 1 + floor(4 * random() ^ 2),
	CASE WHEN i % 4 = 0 THEN date '2026-02-01' - (150000 - i) / 250 END,
	CASE WHEN i % 3 = 0 THEN ARRAY['tag' || floor(900 * random() ^ 2), 'tag' || floor(900 * random() ^ 2)] ELSE '{}' END,
	CASE WHEN i % 2 = 0 THEN jsonb_build_object('severity', i % 5, 'component', 'part-' || floor(600 * random() ^ 2), 'external_id', 'EXT-' || i) ELSE '{}' END,
	timestamp '2026-01-01' - (150000 - i) * interval '6 minutes', timestamp '2026-01-01' - random() * (150000 - i) * interval '6 minutes',
	CASE WHEN i % 30 = 0 THEN timestamp '2026-01-01' END
FROM (SELECT i, 1 + floor(3000 * random() ^ 2)::int AS project, 1 + floor(4000 * random())::int AS n FROM generate_series(1, 150000) AS i) AS i
JOIN projects p ON p.id = i.project JOIN phrases a ON a.n = i.n JOIN phrases b ON b.n = 1 + i.n * 3 % 4000 JOIN phrases c ON c.n = 1 + i.n * 7 % 4000 ORDER BY i;

CREATE TABLE comments (id bigserial PRIMARY KEY, ticket_id bigint NOT NULL REFERENCES tickets ON DELETE CASCADE, author_id bigint NOT NULL REFERENCES users,
	body text NOT NULL, internal boolean NOT NULL, created_at timestamp NOT NULL);
INSERT INTO comments (ticket_id, author_id, body, internal, created_at)
SELECT i.ticket, 1 + floor(20000 * random() ^ 2), a.text, i % 6 = 0, timestamp '2026-01-01' - (250000 - i) * interval '3 minutes'
FROM (SELECT i, 1 + floor(i * 149999.0 / 250000 * (1 - random() ^ 4))::int AS ticket FROM generate_series(1, 250000) AS i) AS i
JOIN phrases a ON a.n = 1 + i % 4000 ORDER BY i;

CREATE TABLE labels (id bigserial PRIMARY KEY, tenant_id bigint NOT NULL, name text NOT NULL);
INSERT INTO labels (tenant_id, name) SELECT 1 + floor(200 * random() ^ 2), 'label ' || i FROM generate_series(1, 2000) AS i;
CREATE TABLE label_links (id bigserial PRIMARY KEY, label_id bigint NOT NULL REFERENCES labels ON DELETE CASCADE, target_type text NOT NULL, target_id bigint NOT NULL);
INSERT INTO label_links (label_id, target_type, target_id)
SELECT 1 + floor(2000 * random() ^ 2), CASE WHEN i % 10 < 8 THEN 'Ticket' ELSE 'Project' END,
	CASE WHEN i % 10 < 8 THEN 1 + floor(150000 * random()) ELSE 1 + floor(3000 * random()) END FROM generate_series(1, 200000) AS i;

CREATE TABLE watchers (id bigserial PRIMARY KEY, watchable_type text NOT NULL, watchable_id bigint NOT NULL, user_id bigint NOT NULL);
INSERT INTO watchers (watchable_type, watchable_id, user_id)
SELECT CASE WHEN i % 10 < 9 THEN 'Ticket' ELSE 'Project' END, 1 + floor(150000 * random()), 1 + floor(20000 * random() ^ 2) FROM generate_series(1, 120000) AS i;

CREATE TABLE attachments (id bigserial PRIMARY KEY, container_type text NOT NULL, container_id bigint NOT NULL, filename text NOT NULL, digest text NOT NULL,
	size bigint NOT NULL, created_at timestamp NOT NULL);
INSERT INTO attachments (container_type, container_id, filename, digest, size, created_at)
SELECT CASE WHEN i % 3 = 0 THEN 'Comment' ELSE 'Ticket' END, 1 + floor(150000 * random()), 'screen-' || i || '.png', md5((i - i % 2)::text), 1e6 * random(),
	timestamp '2026-01-01' - (60000 - i) * interval '12 minutes' FROM generate_series(1, 60000) AS i;

CREATE TABLE events (id bigserial PRIMARY KEY, tenant_id bigint NOT NULL, actor_id bigint NOT NULL, action text NOT NULL, target_type text NOT NULL,
	target_id bigint NOT NULL, payload jsonb NOT NULL, created_at timestamp NOT NULL DEFAULT now());
INSERT INTO events (tenant_id, actor_id, action, target_type, target_id, payload, created_at)
SELECT 1 + floor(200 * random() ^ 2), 1 + floor(20000 * random() ^ 2), (ARRAY['created', 'updated', 'closed', 'commented'])[1 + floor(4 * random())],
	CASE WHEN i % 5 > 0 THEN 'Ticket' ELSE 'Project' END, 1 + floor(150000 * random()), jsonb_build_object('from', i % 7, 'to', i % 5, 'ref', md5(i::text)),
	timestamp '2026-01-01' - (250000 - i) * interval '3 minutes' FROM generate_series(1, 250000) AS i;

CREATE TABLE time_entries (id bigserial PRIMARY KEY, tenant_id bigint NOT NULL, ticket_id bigint NOT NULL, user_id bigint NOT NULL, hours numeric NOT NULL, spent_on date NOT NULL, note text);
INSERT INTO time_entries (tenant_id, ticket_id, user_id, hours, spent_on, note)
SELECT 1 + floor(200 * random() ^ 2), 1 + floor(150000 * random()), 1 + floor(20000 * random() ^ 2), round((random() * 8)::numeric, 2), date '2026-01-01' - (120000 - i) / 150, 'note ' || i
FROM generate_series(1, 120000) AS i;

CREATE TABLE workflows (id bigserial PRIMARY KEY, old_status text NOT NULL, new_status text NOT NULL, role text NOT NULL);
INSERT INTO workflows (old_status, new_status, role) SELECT 's' || i % 6, 's' || i % 5, 'r' || i % 4 FROM generate_series(1, 120) AS i;

CREATE TABLE page_views (id bigserial PRIMARY KEY, user_id bigint NOT NULL, path text NOT NULL, duration_ms int NOT NULL, at timestamp NOT NULL DEFAULT now());
SQL
}

sub statements
{
	my $ticket = sub { below($rows{tickets}) };
	my $project = sub { skewed($rows{projects}, 2) };
	my $tenant = sub { skewed($rows{tenants}, 2) };
	my $user = sub { skewed($rows{users}, 2) };
	my $page = 'SELECT t.id, t.number, t.title, t.status, t.assignee_id, t.updated_at FROM tickets t';
	return (
		# needs
		{
			name => 'ticket by its number',
			kind => 'need',
			weight => 12,
			sql => 'SELECT t.* FROM tickets t WHERE t.project_id = $1 AND t.number = $2 AND t.deleted_at IS NULL LIMIT 1',
			args => sub { ($project->(), below(60)) },
			expert => [ ['tickets (project_id, number)'] ],
		},
		{
			name => 'open ones of a project, page by page',
			kind => 'need',
			weight => 10,
			sql => "$page WHERE t.project_id = \$1 AND t.status = \$2 AND t.deleted_at IS NULL ORDER BY t.created_at DESC LIMIT 25 OFFSET \$3",
			args => sub { ($project->(), 'open', 25 * int 2 * rand) },
			expert => [ ['tickets (project_id, status, created_at)'], ['tickets (project_id, created_at)'], ['tickets (project_id)'] ],
		},
		{
			name => 'what is mine',
			kind => 'need',
			weight => 10,
			sql => "$page WHERE t.assignee_id = \$1 AND t.status <> 'closed' AND t.deleted_at IS NULL ORDER BY t.priority DESC, t.due_on NULLS LAST LIMIT 50",
			args => $user,
			expert => [ [q{tickets (assignee_id) WHERE status <> 'closed'}], ['tickets (assignee_id)'], ['tickets (assignee_id, status)'] ],
		},
		{
			name => 'waiting and nobody\'s',
			kind => 'need',
			weight => 4,
			simple => 1,
			sql => "$page WHERE t.tenant_id = \$1 AND t.assignee_id IS NULL AND t.status = 'pending' ORDER BY t.created_at LIMIT 50",
			args => $tenant,
			expert => [ [q{tickets (tenant_id, created_at) WHERE status = 'pending' AND assignee_id IS NULL}], [q{tickets (tenant_id, created_at) WHERE status = 'pending'}], ['tickets (tenant_id, status)'] ],
		},
		{
			name => 'sub-tickets',
			kind => 'need',
			weight => 8,
			sql => "$page WHERE t.parent_id = \$1 ORDER BY t.id",
			args => $ticket,
			expert => [ ['tickets (parent_id)'], ['tickets (parent_id) WHERE parent_id IS NOT NULL'] ],
		},
		{
			name => 'comments of a ticket',
			kind => 'need',
			weight => 12,
			sql => 'SELECT c.id, c.body, c.created_at, u.name FROM comments c JOIN users u ON u.id = c.author_id WHERE c.ticket_id = $1 ORDER BY c.created_at, c.id',
			args => $ticket,
			expert => [ ['comments (ticket_id)'], ['comments (ticket_id, created_at)'] ],
		},
		{
			name => 'last comment of each of a page',
			kind => 'need',
			weight => 5,
			sql => 'SELECT DISTINCT ON (c.ticket_id) c.ticket_id, c.author_id, c.created_at FROM comments c WHERE c.ticket_id = ANY($1) ORDER BY c.ticket_id, c.created_at DESC',
			args => sub { list(25, $ticket) },
			expert => [ ['comments (ticket_id, created_at)'], ['comments (ticket_id)'] ],
		},
		{
			name => 'last event of each of some',
			kind => 'need',
			weight => 4,
			sql => 'SELECT t.id, e.action, e.created_at FROM unnest($1::bigint[]) AS t(id) CROSS JOIN LATERAL (SELECT e.action, e.created_at FROM events e'
			  . q{ WHERE e.target_type = 'Ticket' AND e.target_id = t.id ORDER BY e.id DESC LIMIT 1) AS e},
			args => sub { list(3, $ticket) },
			expert => [ ['events (target_id, target_type, id)'], ['events (target_id)'] ],
		},
		{
			name => 'feed of a tenant, by key',
			kind => 'need',
			weight => 6,
			sql => 'SELECT e.id, e.action, e.target_type, e.target_id, e.created_at FROM events e WHERE e.tenant_id = $1'
			  . ' AND (e.created_at, e.id) < ($2, $3) ORDER BY e.created_at DESC, e.id DESC LIMIT 30',
			args => sub { ($tenant->(), instant(30 * rand), 250_000) },
			expert => [ ['events (tenant_id, created_at, id)'], ['events (tenant_id, created_at)'] ],
		},
		{
			name => 'events of a day',
			kind => 'need',
			weight => 2,
			simple => 1,
			sql => 'SELECT e.action, count(*) FROM events e WHERE e.created_at >= $1 AND e.created_at < $1::timestamp + interval \'1 day\' GROUP BY e.action',
			args => sub { day(500 * rand) },
			expert => [ ['events (created_at)'], ['events USING brin (created_at)'] ],
		},
		{
			name => 'tickets of a label',
			kind => 'need',
			weight => 5,
			sql => "$page JOIN label_links l ON l.target_id = t.id AND l.target_type = 'Ticket' WHERE l.label_id = \$1 AND t.tenant_id = \$2 AND t.status = 'open'"
			  . ' ORDER BY t.created_at DESC LIMIT 25',
			args => sub { (200 + below(1800), $tenant->()) },
			expert => [ ['label_links (label_id, target_type, target_id)'], ['label_links (label_id)'] ],
		},
		{
			name => 'labels of a page',
			kind => 'need',
			weight => 8,
			sql => 'SELECT l.target_id, labels.name FROM label_links l JOIN labels ON labels.id = l.label_id WHERE l.target_type = $1 AND l.target_id IN (' . literals(25, 2) . ')',
			args => sub { ('Ticket', map { $ticket->() } 1 .. 25) },
			expert => [ ['label_links (target_id, target_type)'], ['label_links (target_type, target_id)'], ['label_links (target_id)'] ],
		},
		{
			name => 'without an answer yet',
			kind => 'need',
			weight => 3,
			sql => q{SELECT count(*) FROM tickets t WHERE t.project_id = $1 AND t.status = 'open' AND NOT EXISTS (SELECT 1 FROM comments c WHERE c.ticket_id = t.id)},
			args => sub { below($rows{projects}) },
			expert => [ [ 'tickets (project_id, status)', 'comments (ticket_id)' ], [ 'tickets (project_id)', 'comments (ticket_id)' ] ],
		},
		{
			name => 'part of a title',
			kind => 'need',
			weight => 3,
			sql => "$page WHERE t.tenant_id = \$1 AND t.title ILIKE \$2 AND t.deleted_at IS NULL ORDER BY t.id DESC LIMIT 25",
			args => sub { ($tenant->(), '%' . substr(word(2000 + below(5000)), 0, 5) . '%') },
			expert => [ ['tickets USING gin (title gin_trgm_ops)'], ['tickets (tenant_id)'] ],
		},
		{
			name => 'by tag',
			kind => 'need',
			weight => 4,
			sql => "$page WHERE t.tags \@> ARRAY[\$1] AND t.deleted_at IS NULL ORDER BY t.updated_at DESC LIMIT 25",
			args => sub { 'tag' . (100 + below(799)) },
			expert => [ ['tickets USING gin (tags)'] ],
		},
		{
			name => 'by a field of one\'s own',
			kind => 'need',
			weight => 3,
			sql => "$page WHERE t.custom \@> \$1 AND t.status <> 'closed'",
			args => sub { '{"component": "part-' . (100 + below(499)) . '"}' },
			expert => [ ['tickets USING gin (custom jsonb_path_ops)'] ],
		},
		{
			name => 'by the key of another system',
			kind => 'need',
			weight => 5,
			sql => q{SELECT t.id FROM tickets t WHERE t.custom ->> 'external_id' = $1},
			args => sub { 'EXT-' . $ticket->() },
			expert => [ [q{tickets ((custom ->> 'external_id'))}] ],
		},
		{
			name => 'words of a ticket',
			kind => 'need',
			weight => 1,
			sql => q{SELECT t.id, t.title FROM tickets t WHERE to_tsvector('english', t.title) @@ websearch_to_tsquery('english', $1) LIMIT 30},
			args => sub { word(3000 + below(4500)) . ' ' . word(3000 + below(4500)) },
			expert => [ [q{tickets USING gin (to_tsvector('english', title))}] ],
		},
		{
			name => 'mine or by me',
			kind => 'need',
			weight => 5,
			sql => "$page WHERE (t.author_id = \$1 OR t.assignee_id = \$1) AND t.deleted_at IS NULL ORDER BY t.updated_at DESC LIMIT 20",
			args => sub { below($rows{users}) },
			expert => [ [ 'tickets (author_id)', 'tickets (assignee_id)' ] ],
		},
		{
			name => 'who works on a project',
			kind => 'need',
			weight => 3,
			sql => 'SELECT DISTINCT t.assignee_id FROM tickets t WHERE t.project_id = $1 AND t.assignee_id IS NOT NULL',
			args => $project,
			expert => [ ['tickets (project_id, assignee_id)'], ['tickets (project_id)'] ],
		},
		{
			name => 'who watches it',
			kind => 'need',
			weight => 8,
			sql => 'SELECT w.user_id FROM watchers w WHERE w.watchable_type = $1 AND w.watchable_id = $2',
			args => sub { ('Ticket', $ticket->()) },
			expert => [ ['watchers (watchable_id, watchable_type)'], ['watchers (watchable_type, watchable_id)'], ['watchers (watchable_id)'] ],
		},
		{
			name => 'files of a page',
			kind => 'need',
			weight => 8,
			sql => q{SELECT a.* FROM attachments a WHERE a.container_type = 'Ticket' AND a.container_id = ANY($1)},
			args => sub { list(10, $ticket) },
			expert => [ ['attachments (container_id, container_type)'], ['attachments (container_id)'] ],
		},
		{
			name => 'is that file there already',
			kind => 'need',
			weight => 4,
			sql => 'SELECT a.id FROM attachments a WHERE a.digest = $1 AND a.size > $2 ORDER BY a.id LIMIT 1',
			args => sub { (Digest::MD5::md5_hex(2 * below(30_000)), 0) },
			expert => [ ['attachments (digest)'] ],
		},
		{
			name => 'hours of a month',
			kind => 'need',
			weight => 4,
			simple => 1,
			sql => q{SELECT date_trunc('week', e.spent_on::timestamp), sum(e.hours) FROM time_entries e WHERE e.user_id = $1 AND e.spent_on BETWEEN $2 AND $2::date + 31 GROUP BY 1 ORDER BY 1},
			args => sub { ($user->(), day(700 * rand)) },
			expert => [ ['time_entries (user_id, spent_on)'], ['time_entries (user_id)'] ],
		},
		{
			name => 'late ones',
			kind => 'need',
			weight => 3,
			sql => "$page WHERE t.tenant_id = \$1 AND t.status = 'open' AND t.due_on < \$2 ORDER BY t.due_on LIMIT 50",
			args => sub { (below($rows{tenants}), '2025-12-31') },
			expert => [ [q{tickets (tenant_id, due_on) WHERE status = 'open'}], ['tickets (tenant_id, status, due_on)'], ['tickets (tenant_id, due_on)'] ],
		},
		{
			name => 'a user leaves',
			kind => 'need',
			weight => 2,
			sql => q{UPDATE tickets SET assignee_id = NULL, lock_version = lock_version + 1 WHERE assignee_id = $1 AND status = 'open'},
			args => sub { 1000 + below(19_000) },
			expert => [ ['tickets (assignee_id)'], [q{tickets (assignee_id) WHERE status <> 'closed'}], [q{tickets (assignee_id) WHERE status = 'open'}] ],
		},

		# controls
		{
			name => 'steps allowed, a small table',
			kind => 'control',
			weight => 50,
			sql => 'SELECT w.new_status FROM workflows w WHERE w.role = $1 AND w.old_status = $2',
			args => sub { ('r' . int 4 * rand, 's' . int 6 * rand) },
			tried => ['workflows (role, old_status)'],
		},
		{
			name => 'user by e-mail',
			kind => 'control',
			weight => 30,
			sql => 'SELECT u.* FROM users u WHERE u.tenant_id = $1 AND u.email = $2 AND u.active LIMIT 1',
			args => sub { my $n = below(20_000); (1 + int(200 * ($n / 20001)**2), "user$n\@example.org") },
			tried => ['users (email)'],
		},
		{
			name => 'tenant by name, a small table',
			kind => 'control',
			weight => 20,
			sql => 'SELECT t.* FROM tenants t WHERE t.name = $1',
			args => sub { 'tenant ' . below(200) },
			tried => ['tenants (name)'],
		},
		{
			name => 'how long it takes, all closed ones',
			kind => 'control',
			weight => 0.3,
			sql => q{SELECT t.priority, count(*), avg(t.updated_at - t.created_at), avg(length(t.body)) FROM tickets t WHERE t.status = 'closed' GROUP BY t.priority},
			args => sub { () },
			tried => [ 'tickets (status)', 'tickets (priority)', q{tickets (priority) WHERE status = 'closed'} ],
		},
		{
			name => 'newest tickets of all',
			kind => 'control',
			weight => 10,
			sql => "$page WHERE t.deleted_at IS NULL ORDER BY t.id DESC LIMIT 25",
			args => sub { () },
			tried => [ 'tickets (id) WHERE deleted_at IS NULL' ],
		},
		{
			name => 'a ticket is changed',
			kind => 'write',
			weight => 15,
			sql => 'UPDATE tickets SET status = $1, updated_at = now(), lock_version = lock_version + 1 WHERE id = $2',
			args => sub { (pick('open', 'closed', 'pending'), $ticket->()) },
		},
		{
			name => 'a comment is written',
			kind => 'write',
			weight => 12,
			sql => 'INSERT INTO comments (ticket_id, author_id, body, internal, created_at) VALUES ($1, $2, $3, false, now())',
			args => sub { ($ticket->(), $user->(), 'a comment') },
		},
		{
			name => 'an event is kept',
			kind => 'write',
			weight => 30,
			sql => q{INSERT INTO events (tenant_id, actor_id, action, target_type, target_id, payload) VALUES ($1, $2, 'updated', 'Ticket', $3, '{}')},
			args => sub { ($tenant->(), $user->(), $ticket->()) },
		},
		{
			name => 'a page is seen',
			kind => 'write',
			weight => 200,
			sql => 'INSERT INTO page_views (user_id, path, duration_ms) VALUES ($1, $2, $3)',
			args => sub { ($user->(), '/projects/' . $project->(), below(900)) },
		},
		{
			name => 'pages seen by one, asked for rarely',
			kind => 'rare',
			weight => 0.3,
			sql => 'SELECT v.path, v.at FROM page_views v WHERE v.user_id = $1 ORDER BY v.id DESC LIMIT 10',
			args => $user,
			tried => ['page_views (user_id)'],
		},
	);
}

require Digest::MD5;

1;
