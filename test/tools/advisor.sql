-- Functions of a build with STOP_POINTS=1, for tests of src/advisor only.
CREATE FUNCTION index_bytes(relation regclass, columns text[]) RETURNS bigint
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_index_bytes';
CREATE FUNCTION what_if_cost(query text, role regrole DEFAULT current_user::regrole,
                             relation regclass DEFAULT NULL, columns text[] DEFAULT NULL) RETURNS float8
    LANGUAGE c AS '$libdir/perfopt', 'perfopt_test_what_if_cost';
