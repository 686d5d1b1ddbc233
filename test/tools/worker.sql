-- Functions of a build with STOP_POINTS=1, for tests of src/worker only.
CREATE FUNCTION duty_run_now(name text, timeout_ms integer) RETURNS void
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_duty_run_now';
CREATE FUNCTION duty_wake(name text) RETURNS void
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_duty_wake';
