-- Functions of a build with STOP_POINTS=1, for tests of src/worker only.
CREATE FUNCTION duty_run_now(name text, timeout_ms integer) RETURNS void
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_duty_run_now';
CREATE FUNCTION duty_wake(name text) RETURNS void
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_duty_wake';
CREATE FUNCTION job_submit_c(capability text, entry text, payload text, role oid,
                             settings text, timeout_ms integer, cancel_with_submitter boolean, fair_to_roles boolean) RETURNS text
    LANGUAGE c AS '$libdir/perfopt', 'perfopt_test_job_submit';
CREATE FUNCTION job_submit(payload text, role regrole DEFAULT current_user::regrole,
                           timeout_ms integer DEFAULT 0, cancel_with_submitter boolean DEFAULT false,
                           capability text DEFAULT 'test', entry text DEFAULT NULL,
                           settings text DEFAULT NULL, fair_to_roles boolean DEFAULT false) RETURNS text
    LANGUAGE sql AS 'SELECT job_submit_c(capability, entry, payload, role, settings, timeout_ms, cancel_with_submitter, fair_to_roles)';
CREATE FUNCTION job_wait(job text, timeout_ms integer DEFAULT 10000) RETURNS text
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_job_wait';
CREATE FUNCTION job_cancel(job text) RETURNS void
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_job_cancel';
CREATE FUNCTION job_release(job text) RETURNS void
    LANGUAGE c STRICT AS '$libdir/perfopt', 'perfopt_test_job_release';
