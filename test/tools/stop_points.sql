-- Functions of a build with STOP_POINTS=1, for tests only: they are not part
-- of the extension.  Run with psql -f in the test's database.
CREATE FUNCTION stop_point_set(name text, action text) RETURNS void
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_stop_point_set';
CREATE FUNCTION stop_point_clear(name text) RETURNS boolean
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_stop_point_clear';
CREATE FUNCTION stop_point_waiters(name text) RETURNS integer
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_stop_point_waiters';
CREATE FUNCTION stop_point_hits(name text) RETURNS integer
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_stop_point_hits';
