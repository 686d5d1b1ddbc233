-- The head of the installation script, and the schema.
\echo Use "CREATE EXTENSION perfopt CASCADE" to load this file. \quit

-- Without this, names and operators would also be looked up in the schema of
-- pg_stat_statements, where the owner of the database, or whoever may create
-- objects there, can have prepared some that suit better than pg_catalog's.
SET LOCAL search_path = pg_catalog, pg_temp;

-- In a schema that was there before, somebody else's objects could take the
-- place of those that this script, and its users later, mean.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.pg_namespace AS n
                      JOIN pg_catalog.pg_roles AS r ON r.oid = n.nspowner
                WHERE n.nspname = 'perfopt'
                  AND (NOT r.rolsuper
                       OR EXISTS (SELECT FROM pg_catalog.aclexplode(n.nspacl) AS a
                                   WHERE a.privilege_type = 'CREATE' AND a.grantee <> n.nspowner)
                       OR EXISTS (SELECT FROM pg_catalog.pg_depend AS d
                                   WHERE d.refclassid = 'pg_catalog.pg_namespace'::pg_catalog.regclass
                                     AND d.refobjid = n.oid
                                     AND d.classid <> 'pg_catalog.pg_extension'::pg_catalog.regclass)))
    THEN
        RAISE EXCEPTION 'schema "perfopt" exists and is not fit for the extension'
            USING ERRCODE = 'duplicate_schema',
                  DETAIL = 'It has to be empty and belong to a superuser, and nobody else may create objects in it.',
                  HINT = 'Drop the schema; CREATE EXTENSION makes it.';
    END IF;
END
$$;

GRANT USAGE ON SCHEMA perfopt TO PUBLIC;
COMMENT ON SCHEMA perfopt IS 'latency by query, index advice and background work of the extension perfopt';
