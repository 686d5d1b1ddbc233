-- Batched inserts.

CREATE TYPE perfopt.insert_options AS (
    on_conflict text,
    conflict_columns name[],
    update_columns name[],
    on_error text,
    batch_size integer,
    key_columns name[]
);
COMMENT ON TYPE perfopt.insert_options IS
'Options of perfopt.batch_insert() and perfopt.batch_insert_keys() with arrays of columns, made by perfopt.insert_options().';

CREATE FUNCTION perfopt.insert_options(
        on_conflict text DEFAULT 'error', conflict_columns name[] DEFAULT NULL, update_columns name[] DEFAULT NULL,
        on_error text DEFAULT 'abort', batch_size integer DEFAULT NULL, key_columns name[] DEFAULT NULL)
    RETURNS perfopt.insert_options
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ROW(on_conflict, conflict_columns, update_columns, on_error, batch_size, key_columns)::perfopt.insert_options;
COMMENT ON FUNCTION perfopt.insert_options(text, name[], name[], text, integer, name[]) IS
'Options to be given after the arrays of columns; perfopt.batch_insert(regclass, "any", ...) says what they mean.';

CREATE TABLE perfopt.rejected_rows (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    batch bigint NOT NULL,
    target text NOT NULL,
    role regrole NOT NULL DEFAULT pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole,
    rejected_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    ordinal bigint NOT NULL,
    sqlstate text NOT NULL,
    message text NOT NULL,
    detail text,
    constraint_name text,
    column_name text,
    payload jsonb NOT NULL
);
CREATE INDEX rejected_rows_batch ON perfopt.rejected_rows (role, batch);
COMMENT ON TABLE perfopt.rejected_rows IS
'Rows that batched inserts with on_error ''skip'', or flushes of insert buffers, in modes whose callers do not wait, could not store. Each role sees its own; perfopt.delete_rejected_rows() deletes them, nothing else does.';
COMMENT ON COLUMN perfopt.rejected_rows.batch IS 'what the call returned as batch';
COMMENT ON COLUMN perfopt.rejected_rows.target IS 'the table, with its schema, quoted; of a table that was gone, its OID';
COMMENT ON COLUMN perfopt.rejected_rows.role IS 'who inserted';
COMMENT ON COLUMN perfopt.rejected_rows.ordinal IS 'the row''s number in the call, from 1';
COMMENT ON COLUMN perfopt.rejected_rows.payload IS 'the row, as an object of its columns';
ALTER TABLE perfopt.rejected_rows ENABLE ROW LEVEL SECURITY;
CREATE POLICY rejected_rows_own ON perfopt.rejected_rows
    USING (role OPERATOR(pg_catalog.=) pg_catalog.quote_ident(CURRENT_USER)::pg_catalog.regrole);
COMMENT ON POLICY rejected_rows_own ON perfopt.rejected_rows IS 'A role sees and makes rows of its own only.';
-- Not the role, also not for those who bypass the policy.  But for SELECT
-- nothing on the whole table, which would allow LOCK TABLE.
GRANT SELECT, INSERT (batch, target, ordinal, sqlstate, message, detail, constraint_name, column_name, payload)
    ON perfopt.rejected_rows TO PUBLIC;
SELECT pg_catalog.pg_extension_config_dump('perfopt.rejected_rows', '');
SELECT pg_catalog.pg_extension_config_dump('perfopt.rejected_rows_id_seq', '');

CREATE FUNCTION perfopt.delete_rejected_rows(batch bigint DEFAULT NULL) RETURNS bigint
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_delete_rejected_rows';
COMMENT ON FUNCTION perfopt.delete_rejected_rows(bigint) IS
'Deletes the calling role''s rows of perfopt.rejected_rows, of one batch or (null) all. Returns how many those were.';

CREATE FUNCTION perfopt.batch_row(ordinal bigint) RETURNS boolean
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE COST 1 AS 'MODULE_PATHNAME', 'perfopt_batch_row';
COMMENT ON FUNCTION perfopt.batch_row(bigint) IS
'Part of the statements of perfopt.batch_insert(): notes which row is in work, 0 that there are no more, -1 that the row updates another one. Raises object_not_in_prerequisite_state elsewhere.';

CREATE FUNCTION perfopt.batch_insert(
        target regclass, rows "any",
        on_conflict text DEFAULT 'error', conflict_columns name[] DEFAULT NULL, update_columns name[] DEFAULT NULL,
        on_error text DEFAULT 'abort', batch_size integer DEFAULT NULL, columns name[] DEFAULT NULL,
        OUT inserted bigint, OUT updated bigint, OUT skipped bigint, OUT rejected bigint, OUT batch bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_batch_insert';
COMMENT ON FUNCTION perfopt.batch_insert(regclass, "any", text, name[], name[], text, integer, name[]) IS
'Inserts many rows as INSERT would, in their order. rows: an array of the table''s row type, or of a composite type whose fields are columns; or a jsonb or json array of objects, also as text. A column for which no value is given gets its default, so do those of the table''s own row type that are GENERATED ALWAYS; columns: only these are taken from rows. on_conflict: ''error'', ''nothing'' or ''update'', by conflict_columns (null: for ''update'' the primary key, for ''nothing'' any), setting update_columns (null: the other columns that are inserted). on_error: ''abort'' raises the error of a bad row, with its number in the context; ''skip'' puts bad rows, whatever is wrong with them, into perfopt.rejected_rows and stores the others; that takes a transaction that may write, also for a temporary table. batch_size: how many rows a statement inserts at most (null: all, or 10,000 with ''skip''); objects with different keys take different statements, and without rows there is none, so that no statement trigger fires. Returns how many rows were inserted, updated, skipped (by ''nothing'' or a trigger) and rejected, and what batch the rejected ones are of. Raises what INSERT raises, undefined_column, generated_always, datatype_mismatch for rows that are none, null_value_not_allowed when rows is null, invalid_parameter_value, also for lists of columns that are empty, and invalid_transaction_state in a parallel query.';

CREATE FUNCTION perfopt.batch_insert(
        target regclass, columns name[], VARIADIC arrays "any",
        OUT inserted bigint, OUT updated bigint, OUT skipped bigint, OUT rejected bigint, OUT batch bigint)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_batch_insert_columns';
COMMENT ON FUNCTION perfopt.batch_insert(regclass, name[], "any") IS
'The same with an array of values for each of the columns; all have the same length. Values are of a type that can be assigned to the column, or text, which is read as COPY would. After the arrays options can be given: perfopt.insert_options(on_conflict => ''nothing''). Raises array_subscript_error when the lengths differ.';

CREATE FUNCTION perfopt.batch_insert_keys(
        target regclass, rows "any",
        on_conflict text DEFAULT 'error', conflict_columns name[] DEFAULT NULL, update_columns name[] DEFAULT NULL,
        on_error text DEFAULT 'abort', batch_size integer DEFAULT NULL, columns name[] DEFAULT NULL,
        key_columns name[] DEFAULT NULL,
        OUT ordinal bigint, OUT action text, OUT key jsonb, OUT error_sqlstate text, OUT error_message text)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_batch_insert_keys';
COMMENT ON FUNCTION perfopt.batch_insert_keys(regclass, "any", text, name[], name[], text, integer, name[], name[]) IS
'perfopt.batch_insert() that returns a row for each row given, in their order: its number from 1, what became of it (inserted, updated, skipped or rejected), the stored row''s key_columns as an object (null: those of the primary key, else of the replica identity''s index, else key is null), and why it was rejected. As INSERT ... RETURNING does, it takes the privilege to select the key columns.';

CREATE FUNCTION perfopt.batch_insert_keys(
        target regclass, columns name[], VARIADIC arrays "any",
        OUT ordinal bigint, OUT action text, OUT key jsonb, OUT error_sqlstate text, OUT error_message text)
    RETURNS SETOF record
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_batch_insert_columns_keys';
COMMENT ON FUNCTION perfopt.batch_insert_keys(regclass, name[], "any") IS
'The same with an array of values for each of the columns, and options after them, as perfopt.batch_insert(regclass, name[], "any") takes them.';

CREATE FUNCTION perfopt.batch_insert_path(target regclass, OUT path text, OUT reason text)
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_batch_insert_path';
COMMENT ON FUNCTION perfopt.batch_insert_path(regclass) IS
'How perfopt.batch_insert() writes to the table, and why: ''statement'', an INSERT of the server, or ''direct'', in bulk as COPY does, where nothing of what INSERT means can be lost.';
