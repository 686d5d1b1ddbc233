-- Look-ups of many keys at once.

CREATE FUNCTION perfopt.fetch_many(target anyelement, keys "any", key name[] DEFAULT NULL) RETURNS SETOF anyelement
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 COST 1000 AS 'MODULE_PATHNAME', 'perfopt_fetch_many';
COMMENT ON FUNCTION perfopt.fetch_many(anyelement, "any", name[]) IS
'Rows of a table or view for a list of keys: one answer for each key, in the keys'' order, for a key given twice both times, and a row of nulls for one that is missing or null. target: a null of the relation''s row type, NULL::users. keys: an array of the key''s type or of one implicitly cast to it, of strings that are read as it, or, for a key of several columns, of rows; or text, an array''s literal ''{1,2}'' or jsonb, ''[1, 2]'', ''[[1, "a"], [2, "b"]]'' or an array of objects. key: the columns of another unique key than the primary key; of a view or foreign table, columns that have one row for each key. As SELECT * does, it takes the privilege to read all columns. Raises null_value_not_allowed when keys is null, undefined_object without a primary key, invalid_parameter_value when key is not unique, cardinality_violation when more than one row has a key, datatype_mismatch for keys of a wrong type or a target that is no row type.';

CREATE FUNCTION perfopt.lookup_aggregates(
        parent regclass, keys "any", child regclass, aggregates text[], filter text DEFAULT NULL, params record DEFAULT NULL,
        child_key name[] DEFAULT NULL, via text[] DEFAULT NULL) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 COST 1000 AS 'MODULE_PATHNAME', 'perfopt_lookup_aggregates';
COMMENT ON FUNCTION perfopt.lookup_aggregates(regclass, "any", regclass, text[], text, record, name[], text[]) IS
'For each key of parent, in the keys'' order, the key and aggregates of the child''s rows that refer to it; of a key without such rows what an aggregate gives over none, 0 for count. The parent itself is not read. Takes a list of columns: AS t(id bigint, count bigint); the error about a wrong one says the right one. keys: as perfopt.fetch_many() takes them. aggregates: aggregate functions over columns and constants, as in {count(*),sum(total_cents)}, with DISTINCT, ORDER BY columns and AS name, and nothing else; a function without a schema is that of pg_catalog if there is one. filter: an SQL condition on the child''s rows with $1, $2 for the fields of params, which is a ROW(...); it is the caller''s own SQL, so values of users belong into params. child_key: the columns of the child that refer to the parent, where the catalog has no foreign key or several. via: the tables between parent and child, as in {orders}, with columns where there are several foreign keys, as in {"orders(user_id)"}; aggregates of their columns, named as orders.total_cents, count each of their rows once, and the filter holds for the lowest table it names and those below. Raises undefined_object without a foreign key, ambiguous_column with several, syntax_error for an argument that is no aggregate or more than one condition, undefined_column, datatype_mismatch, and null_value_not_allowed.';

CREATE FUNCTION perfopt.lookup_aggregates_json(
        parent regclass, keys "any", child regclass, aggregates text[], filter text DEFAULT NULL, params record DEFAULT NULL,
        child_key name[] DEFAULT NULL, via text[] DEFAULT NULL) RETURNS SETOF jsonb
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 COST 1000 AS 'MODULE_PATHNAME', 'perfopt_lookup_aggregates_json';
COMMENT ON FUNCTION perfopt.lookup_aggregates_json(regclass, "any", regclass, text[], text, record, name[], text[]) IS
'perfopt.lookup_aggregates() that returns an object for each key, of the key''s columns, named as the parent''s, and the aggregates, named as their functions or by AS. Raises duplicate_column besides when two have one name.';

CREATE FUNCTION perfopt.lookup_children(
        parent regclass, keys "any", child regclass, columns name[] DEFAULT NULL, order_by text DEFAULT NULL,
        limit_per_parent integer DEFAULT NULL, filter text DEFAULT NULL, params record DEFAULT NULL,
        child_key name[] DEFAULT NULL) RETURNS SETOF record
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 1000 COST 1000 AS 'MODULE_PATHNAME', 'perfopt_lookup_children';
COMMENT ON FUNCTION perfopt.lookup_children(regclass, "any", regclass, name[], text, integer, text, record, name[]) IS
'The child''s rows that refer to each key of parent, in the keys'' order, each as the key followed by columns (null: all of the child); a key without rows gets none. order_by: columns, each perhaps with ASC or DESC and NULLS FIRST or LAST, as in ''created_at DESC, id'' (null: the child''s primary key). limit_per_parent: no more rows than that of each key (null: all). Takes a list of columns: AS t(key bigint, id bigint, ...). keys, filter, params and child_key: as perfopt.lookup_aggregates() takes them; it raises the same.';

CREATE FUNCTION perfopt.lookup_children_json(
        parent regclass, keys "any", child regclass, columns name[] DEFAULT NULL, order_by text DEFAULT NULL,
        limit_per_parent integer DEFAULT NULL, filter text DEFAULT NULL, params record DEFAULT NULL,
        child_key name[] DEFAULT NULL) RETURNS SETOF jsonb
    LANGUAGE c STABLE PARALLEL RESTRICTED ROWS 100 COST 1000 AS 'MODULE_PATHNAME', 'perfopt_lookup_children_json';
COMMENT ON FUNCTION perfopt.lookup_children_json(regclass, "any", regclass, name[], text, integer, text, record, name[]) IS
'perfopt.lookup_children() that returns a row for each key, in the keys'' order: an array of objects of the columns, [] for a key without rows.';
