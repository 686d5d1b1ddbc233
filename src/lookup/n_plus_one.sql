-- lookup: statements that are run again and again where one would do

CREATE FUNCTION perfopt.loops(
        OUT dbid oid, OUT userid oid, OUT kind text, OUT function oid,
        OUT source_queryid bigint, OUT source_rows bigint, OUT queryid bigint,
        OUT loops bigint, OUT certain bigint, OUT misses bigint, OUT runs bigint, OUT rows bigint, OUT lost_ms double precision,
        OUT application_name text, OUT first_seen timestamptz, OUT last_seen timestamptz,
        OUT query text, OUT source_query text,
        OUT relid oid, OUT flags integer, OUT key_columns smallint[],
        OUT result_columns smallint[], OUT result_definitions text[], OUT aggregates text[],
        OUT order_column smallint, OUT descending boolean, OUT row_limit bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 100 AS 'MODULE_PATHNAME', 'perfopt_sql_loops';
COMMENT ON FUNCTION perfopt.loops() IS
'Rows of perfopt.n_plus_one by OIDs, with certain (loops within a transaction block or a function, which are no mixture of clients), misses (runs that might have been a loop and were none; of those not in a transaction block, also runs after the source that were too few) and what is known of the repeated statement in this database, texts (of statements that stand in a function) included; of other databases these are NULL. Own rows, or all for members of pg_read_all_stats. Raises an error when perfopt is not preloaded.';

CREATE FUNCTION perfopt.loops_info(OUT loops_used integer, OUT loops_max integer, OUT evicted bigint)
    RETURNS SETOF record
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED ROWS 1 AS 'MODULE_PATHNAME', 'perfopt_sql_loops_info';
COMMENT ON FUNCTION perfopt.loops_info() IS
'State of the table of loops: entries used, entries there is room for (perfopt.n_plus_one_max), and loops that made room for others. Raises an error when perfopt is not preloaded.';

CREATE FUNCTION perfopt.reset_n_plus_one() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'perfopt_sql_reset_n_plus_one';
REVOKE ALL ON FUNCTION perfopt.reset_n_plus_one() FROM PUBLIC;
COMMENT ON FUNCTION perfopt.reset_n_plus_one() IS
'Forgets the loops of all databases. Leaves perfopt.advice alone. Only for superusers, unless granted. Raises an error when perfopt is not preloaded.';

-- The flags are those of n_plus_one_internal.h.  What is returned may be pasted by
-- a superuser, and names may be hostile: names are quoted, and there are none in
-- comments, which a newline in a name would end.
CREATE FUNCTION perfopt.loop_instead(
        kind text, function oid, query text, relid oid, flags integer, key_columns smallint[],
        result_columns smallint[], result_definitions text[], aggregates text[],
        order_column smallint, descending boolean, row_limit bigint)
    RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $function$
DECLARE
    opaque boolean := relid IS NULL OR relid = 0 OR flags & 1 <> 0;
    aggregated boolean := flags & 2 <> 0;
    limited boolean := flags & 4 <> 0;
    filtered boolean := flags & 16 <> 0;
    updates boolean := flags & 32 <> 0;
    computes boolean := flags & 64 <> 0;
    deletes boolean := flags & 128 <> 0;
    does_nothing boolean := flags & 256 <> 0;
    upserts boolean := flags & 512 <> 0;
    target text;
    keys name[];
    key_types text[];
    key text;               -- the only key column, quoted
    keys_given text;        -- its parameter
    parent text;
    parents integer;
    is_unique boolean;
    is_primary boolean;
    named text := '';       -- arguments by name
    columns text;
    condition text;
    parameters integer;
    call text;
BEGIN
    IF kind = 'cacheable_query' THEN
        IF query IS NULL THEN
            RETURN NULL;
        END IF;
        SELECT max(m[1]::integer) INTO parameters FROM regexp_matches(query, '\$(\d{1,4})', 'g') AS m;
        call := quote_literal(query) || coalesce((SELECT ', ROW(' || string_agg('$' || i, ', ' ORDER BY i) || ')'
            FROM generate_series(1, parameters) AS i), '');
        IF result_definitions IS NULL THEN
            RETURN 'SELECT perfopt.cached_json(' || call || ')';
        END IF;
        RETURN 'SELECT * FROM perfopt.cached(' || call || ') AS t(' || array_to_string(result_definitions, ', ') || ')';
    END IF;

    IF relid <> 0 THEN
        SELECT format('%I.%I', n.nspname, c.relname) INTO target
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = relid;
        SELECT array_agg(a.attname ORDER BY k.n), array_agg(format_type(a.atttypid, NULL) ORDER BY k.n) INTO keys, key_types
          FROM unnest(key_columns) WITH ORDINALITY AS k (attnum, n)
          JOIN pg_attribute a ON a.attrelid = relid AND a.attnum = k.attnum AND NOT a.attisdropped;
    END IF;
    IF opaque OR target IS NULL OR keys IS NULL OR cardinality(keys) <> cardinality(key_columns) THEN
        RETURN '-- one statement for all rows: a join with the source, or a condition "= ANY ($1)" with an array of keys';
    END IF;

    IF kind = 'batchable_inserts' AND upserts THEN
        RETURN '-- perfopt.batch_insert() with all rows, and perfopt.insert_options(on_conflict => ''update'', conflict_columns => ..., update_columns => ...)';
    ELSIF kind = 'batchable_inserts' THEN
        RETURN 'SELECT * FROM perfopt.batch_insert(' || quote_literal(target) || ', ' || quote_literal(keys::text)
            || (SELECT string_agg(format(', $%s::%s[]', k.n, k.type), '' ORDER BY k.n)
                  FROM unnest(key_types) WITH ORDINALITY AS k (type, n))
            || CASE WHEN does_nothing THEN ', perfopt.insert_options(on_conflict => ''nothing''))' ELSE ')' END;
    END IF;

    -- what is written by hand for any statement
    condition := CASE WHEN cardinality(keys) = 1 THEN format('%I = ANY ($1::%s[])', keys[1], key_types[1])
        ELSE (SELECT format('(%s) IN (SELECT * FROM unnest(%s))', string_agg(quote_ident(k.name), ', ' ORDER BY k.n),
                      string_agg(format('$%s::%s[]', k.n, key_types[k.n]), ', ' ORDER BY k.n))
                FROM unnest(keys) WITH ORDINALITY AS k (name, n)) END;
    IF updates THEN
        RETURN '-- UPDATE ... FROM unnest(...) AS new (...) WHERE ..., with an array of keys and one of each new value';
    ELSIF deletes THEN
        RETURN format('DELETE FROM %s WHERE %s', target, condition)
            || CASE WHEN filtered THEN ' AND ... -- its other conditions' ELSE '' END;
    END IF;
    columns := (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY c.n)
                  FROM unnest(result_columns) WITH ORDINALITY AS c (attnum, n)
                  JOIN pg_attribute a ON a.attrelid = relid AND a.attnum = c.attnum AND NOT a.attisdropped);
    IF function <> 0 OR filtered OR cardinality(keys) <> 1 THEN
        RETURN CASE WHEN aggregated AND NOT computes THEN
                   format('SELECT %1$s, %2$s FROM %3$s WHERE %4$s%5$s GROUP BY %1$s',
                          (SELECT string_agg(quote_ident(k), ', ') FROM unnest(keys) AS k), array_to_string(aggregates, ', '), target, condition,
                          CASE WHEN filtered THEN ' AND ...' ELSE '' END)
               ELSE format('SELECT * FROM %s WHERE %s%s', target, condition, CASE WHEN filtered THEN ' AND ...' ELSE '' END) END
            || CASE WHEN filtered THEN ' -- and its other conditions' ELSE '' END;
    END IF;

    key := quote_ident(keys[1]);
    keys_given := format('$1::%s[]', key_types[1]);
    SELECT count(*) > 0, coalesce(bool_or(i.indisprimary), false) INTO is_unique, is_primary
      FROM pg_index i
     WHERE i.indrelid = relid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
       AND i.indnkeyatts = 1 AND i.indkey[0] = key_columns[1];
    IF is_unique AND NOT aggregated THEN
        RETURN format('SELECT * FROM perfopt.fetch_many(NULL::%s, %s%s)', target, keys_given,
                      CASE WHEN is_primary THEN '' ELSE ', key => ' || quote_literal(ARRAY[keys[1]]::text) END);
    END IF;

    SELECT format('%I.%I', n.nspname, c.relname),
           (SELECT count(*) FROM pg_constraint o WHERE o.conrelid = f.conrelid AND o.confrelid = f.confrelid AND o.contype = 'f')
      INTO parent, parents
      FROM pg_constraint f JOIN pg_class c ON c.oid = f.confrelid JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE f.conrelid = relid AND f.contype = 'f' AND f.conkey = key_columns
     ORDER BY f.oid LIMIT 1;
    IF parents > 1 THEN
        named := ', child_key => ' || quote_literal(ARRAY[keys[1]]::text);
    END IF;
    IF aggregated THEN
        IF computes OR result_definitions IS NULL THEN
            RETURN '-- one statement for all rows, with GROUP BY and a condition "= ANY ($1)" with an array of keys';
        ELSIF parent IS NULL THEN
            RETURN format('SELECT %1$s, %2$s FROM %3$s WHERE %4$s GROUP BY %1$s', key, array_to_string(aggregates, ', '), target, condition);
        END IF;
        RETURN format('SELECT * FROM perfopt.lookup_aggregates(%L, %s, %L, %L%s) AS t(%s %s, %s)', parent, keys_given, target,
                      aggregates::text, named, key, key_types[1], array_to_string(result_definitions, ', '));
    END IF;
    IF parent IS NULL OR columns IS NULL OR computes OR result_definitions IS NULL OR (limited AND (row_limit = 0 OR order_column = 0)) THEN
        RETURN format('SELECT * FROM %s WHERE %s', target, condition)
            || CASE WHEN limited THEN ' -- the limit is for each key: perfopt.lookup_children() has limit_per_parent' ELSE '' END;
    END IF;
    named := CASE WHEN order_column > 0 THEN
                 ', order_by => ' || quote_literal((SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = relid AND attnum = order_column)
                     || CASE WHEN descending THEN ' DESC' ELSE '' END)
                 ELSE '' END
        || CASE WHEN row_limit > 0 THEN ', limit_per_parent => ' || row_limit ELSE '' END || named;
    RETURN format('SELECT * FROM perfopt.lookup_children(%L, %s, %L, %L%s) AS t(%s %s, %s)', parent, keys_given, target,
                  (SELECT array_agg(a.attname ORDER BY c.n) FROM unnest(result_columns) WITH ORDINALITY AS c (attnum, n)
                     JOIN pg_attribute a ON a.attrelid = relid AND a.attnum = c.attnum)::text,
                  named, quote_ident('parent_' || keys[1]), key_types[1], array_to_string(result_definitions, ', '));
END
$function$;
COMMENT ON FUNCTION perfopt.loop_instead(text, oid, text, oid, integer, smallint[], smallint[], text[], text[], smallint, boolean, bigint) IS
'For the view perfopt.n_plus_one: the call to use instead of a loop of perfopt.loops(), with names as they are now; a comment where there is no such call.';

CREATE VIEW perfopt.n_plus_one AS
    SELECT l.kind,
           CASE l.function WHEN 0 THEN NULL
                WHEN 1 THEN '<DO block>'
                WHEN 2 THEN '<function>'
                ELSE coalesce(p.oid::pg_catalog.regprocedure::text, l.function::text) END AS function,
           l.source_queryid, coalesce(t.query, l.source_query) AS source_query, l.source_rows,
           l.queryid, coalesce(s.query, l.query) AS query, l.loops, l.runs, l.rows, l.lost_ms,
           l.application_name, r.rolname::text AS role, l.first_seen, l.last_seen,
           perfopt.loop_instead(l.kind, l.function, coalesce(s.query, l.query), l.relid, l.flags, l.key_columns, l.result_columns,
               l.result_definitions, l.aggregates, l.order_column, l.descending, l.row_limit) AS instead
      FROM perfopt.loops() AS l
      LEFT JOIN perfopt.query_texts AS s
                ON s.dbid = l.dbid AND s.userid = l.userid AND s.queryid = l.queryid
      LEFT JOIN perfopt.query_texts AS t
                ON t.dbid = l.dbid AND t.userid = l.userid AND t.queryid = l.source_queryid
      LEFT JOIN pg_catalog.pg_proc AS p ON p.oid = l.function
      LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = l.userid
     WHERE (l.certain > 0 OR l.loops > l.misses)
       AND l.dbid = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database());
GRANT SELECT ON perfopt.n_plus_one TO PUBLIC;
COMMENT ON VIEW perfopt.n_plus_one IS
'Statements of this database that sessions run again and again where one would do. kind: n_plus_one, run for each row that a source query returned; cacheable_query, with the same parameters over and over; batchable_inserts, INSERTs of one row each. function: whose loop it is, NULL a client''s. loops: how often it was seen; runs, rows and source_rows: of all these; lost_ms: milliseconds from run to run, round trips included, less one run a loop. application_name: each has rows of its own. instead: the call to use, with an array of keys as $1; where it is a comment, or has "...", the rest is to be written. It names what that role''s statements name: look before you run it as a superuser. Texts are NULL where pg_stat_statements has none and they do not stand in a function. Own rows, or all for members of pg_read_all_stats.';

CREATE FUNCTION perfopt.advise_n_plus_one_now() RETURNS void
    LANGUAGE c VOLATILE STRICT PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'perfopt_sql_advise_n_plus_one_now';
REVOKE ALL ON FUNCTION perfopt.advise_n_plus_one_now() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION perfopt.advise_n_plus_one_now() TO pg_read_all_stats;
COMMENT ON FUNCTION perfopt.advise_n_plus_one_now() IS
'Has the worker of this database turn what perfopt.n_plus_one shows into rows of perfopt.advice now, as it does every perfopt.n_plus_one_interval, and waits for it. For members of pg_read_all_stats. Raises an error without a worker, or with the round''s own error.';
