-- Everything the extension perfopt consists of, one object a line with its
-- definition, privileges and comment: two installations are the same if this
-- prints the same.  Takes nothing; run with psql -At.
SET search_path = pg_catalog;
WITH member AS (
    SELECT d.classid, d.objid
    FROM pg_depend d JOIN pg_extension e ON d.refobjid = e.oid
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' AND e.extname = 'perfopt'
)
SELECT pg_describe_object(m.classid, m.objid, 0) AS object,
    CASE m.classid
        WHEN 'pg_proc'::regclass THEN
            (SELECT CASE WHEN p.prokind = 'a' THEN p.prosrc ELSE pg_get_functiondef(p.oid) END FROM pg_proc p WHERE p.oid = m.objid)
        WHEN 'pg_class'::regclass THEN
            (SELECT concat_ws(E'\n', c.relkind, c.relpersistence, c.reloptions,
                CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END,
                (SELECT string_agg(concat_ws(' ', a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity,
                        pg_get_expr(ad.adbin, ad.adrelid), col_description(c.oid, a.attnum)), E'\n' ORDER BY a.attnum)
                 FROM pg_attribute a LEFT JOIN pg_attrdef ad ON ad.adrelid = a.attrelid AND ad.adnum = a.attnum
                 WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped),
                (SELECT string_agg(pg_get_constraintdef(k.oid), E'\n' ORDER BY k.conname)
                 FROM pg_constraint k WHERE k.conrelid = c.oid),
                (SELECT string_agg(pg_get_indexdef(i.indexrelid), E'\n' ORDER BY i.indexrelid::regclass::text)
                 FROM pg_index i WHERE i.indrelid = c.oid),
                (SELECT 'dumped where ' || x.extcondition[array_position(x.extconfig, c.oid)]
                 FROM pg_extension x WHERE c.oid = ANY (x.extconfig)))
             FROM pg_class c WHERE c.oid = m.objid)
        WHEN 'pg_type'::regclass THEN
            (SELECT concat_ws(' ', t.typtype, t.typlen, t.typcategory,
                (SELECT string_agg(l.enumlabel, ',' ORDER BY l.enumsortorder) FROM pg_enum l WHERE l.enumtypid = t.oid))
             FROM pg_type t WHERE t.oid = m.objid)
    END AS definition,
    coalesce((SELECT p.proacl FROM pg_proc p WHERE m.classid = 'pg_proc'::regclass AND p.oid = m.objid),
        (SELECT c.relacl FROM pg_class c WHERE m.classid = 'pg_class'::regclass AND c.oid = m.objid)) AS privileges,
    obj_description(m.objid, m.classid::regclass::name) AS comment
FROM member m
ORDER BY 1;
