-- Functions of a build with STOP_POINTS=1, for tests of src/advisor only.
CREATE FUNCTION index_facts(ddl text, OUT bytes bigint, OUT tuples float8, OUT tree_height integer, OUT possible boolean)
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_index_facts';
CREATE FUNCTION index_ddl(ddl text) RETURNS text
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_index_ddl';
CREATE FUNCTION index_words(ddl text) RETURNS text
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_index_words';
CREATE FUNCTION index_serves(ddl text, wanted text) RETURNS boolean
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_index_serves';
CREATE FUNCTION index_exists(ddl text) RETURNS boolean
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_index_exists';
CREATE FUNCTION what_if_cost(query text, role regrole DEFAULT current_user::regrole,
                             indexes text[] DEFAULT '{}', hidden regclass[] DEFAULT '{}') RETURNS float8
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_what_if_cost';
CREATE FUNCTION index_candidates(queries text[], role regrole DEFAULT current_user::regrole) RETURNS text[]
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_index_candidates';
CREATE FUNCTION measure(means float8[], calls integer, num_before integer, drift float8[] DEFAULT '{}', OUT ratio float8, OUT p float8, OUT change integer) RETURNS record
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_measure';
CREATE FUNCTION measure_drift(medians float8[], num_controls integer, num_before integer) RETURNS float8[]
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_measure_drift';
CREATE FUNCTION verdicts(num integer, before integer, calls integer, ratio float8 DEFAULT 1, wander float8 DEFAULT 0, correlation float8 DEFAULT 0,
                         stalls float8 DEFAULT 0, OUT faster float8, OUT slower float8, OUT at_once float8) RETURNS record
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_verdicts';
