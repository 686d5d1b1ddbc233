-- The extension as a whole: what its objects say about themselves, and what
-- they give to whom.
CREATE TEMP VIEW member AS
    SELECT d.classid, d.objid, pg_describe_object(d.classid, d.objid, 0) AS object
    FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'perfopt'
        -- not the types that come with a table or another type
        AND NOT EXISTS (SELECT FROM pg_type t LEFT JOIN pg_class c ON t.typrelid = c.oid
            WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid AND (c.relkind <> 'c' OR t.typcategory = 'A'));

SELECT extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'perfopt') AS default_version,
    extnamespace::regnamespace AS schema, extrelocatable AS relocatable
FROM pg_extension WHERE extname = 'perfopt';

-- Every object has a comment; a sequence that belongs to a column needs none.
SELECT object FROM member m
WHERE obj_description(m.objid, m.classid::regclass::name) IS NULL
    AND NOT EXISTS (SELECT FROM pg_depend o WHERE o.classid = m.classid AND o.objid = m.objid
        AND o.refobjsubid > 0 AND o.deptype IN ('a', 'i'))
ORDER BY object COLLATE "C";
SELECT obj_description('perfopt'::regnamespace, 'pg_namespace') IS NOT NULL AS schema_has_comment;

-- Every object is in the schema of the extension.
SELECT object FROM member m
WHERE (SELECT a.schema FROM pg_identify_object(m.classid, m.objid, 0) a) IS DISTINCT FROM 'perfopt'
ORDER BY object COLLATE "C";

-- No function runs with its owner's rights.
SELECT m.object FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid
WHERE p.prosecdef
ORDER BY object COLLATE "C";

-- All that PUBLIC may do.  A line more here is a decision: it must show nobody
-- another role's queries or data, and act on nothing.
\pset format unaligned
SELECT object, string_agg(privilege_type, ', ' ORDER BY privilege_type) AS public_may
FROM (
    SELECT m.object, a.privilege_type
    FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid,
        aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    WHERE a.grantee = 0
    UNION ALL
    SELECT m.object, a.privilege_type
    FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
        aclexplode(c.relacl) a
    WHERE a.grantee = 0
    UNION ALL
    SELECT 'schema ' || n.nspname, a.privilege_type
    FROM pg_namespace n, aclexplode(n.nspacl) a
    WHERE n.nspname = 'perfopt' AND a.grantee = 0) AS granted
GROUP BY object
ORDER BY object COLLATE "C";
