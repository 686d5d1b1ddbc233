-- Many rows at once, as a user sees it.
CREATE TABLE batch_users (id int PRIMARY KEY, name text NOT NULL, email text UNIQUE, joined date DEFAULT '2024-01-01');

-- Rows as jsonb, as columns, and as rows of the table's type
SELECT * FROM perfopt.batch_insert('batch_users', '[{"id": 1, "name": "Ada"}, {"id": 2, "name": "Bob", "email": "bob@x"}]');
SELECT * FROM perfopt.batch_insert('batch_users', '{id,name}', ARRAY[3, 4], ARRAY['Cy', 'Di']);
SELECT * FROM perfopt.batch_insert('batch_users', ARRAY[(5, 'Eve', 'eve@x', NULL)]::batch_users[]);
SELECT * FROM batch_users ORDER BY id;

-- Rows that are there already
SELECT * FROM perfopt.batch_insert('batch_users', '[{"id": 1, "name": "Ada L."}, {"id": 6, "name": "Flo"}]', on_conflict => 'update');
SELECT * FROM perfopt.batch_insert('batch_users', '{id,name}', ARRAY[1, 7], ARRAY['Ann', 'Gus'],
    perfopt.insert_options(on_conflict => 'nothing'));
SELECT * FROM perfopt.batch_insert_keys('batch_users', '[{"id": 7, "name": "Guy"}, {"id": 8, "name": "Hal"}]', on_conflict => 'update');

-- Bad rows fail the call, or not
SELECT * FROM perfopt.batch_insert('batch_users', '[{"id": 9, "name": "Ida"}, {"id": 1, "name": "Ada"}]');
SELECT inserted, rejected FROM perfopt.batch_insert('batch_users',
    '[{"id": 9, "name": "Ida"}, {"id": 1, "name": "Ada"}, {"id": "x", "name": "Jo"}, {"id": 10}, {"id": 11, "name": "Kay"}]', on_error => 'skip');
SELECT ordinal, sqlstate, message, constraint_name, column_name, payload FROM perfopt.rejected_rows ORDER BY ordinal;
SELECT perfopt.delete_rejected_rows();

-- How it is done
SELECT * FROM perfopt.batch_insert_path('batch_users');
CREATE TABLE batch_orders (id int PRIMARY KEY, "user" int REFERENCES batch_users);
SELECT * FROM perfopt.batch_insert_path('batch_orders');
DROP TABLE batch_orders, batch_users;
