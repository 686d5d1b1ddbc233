-- worker

CREATE FUNCTION perfopt.start_worker() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'perfopt_start_worker';
REVOKE ALL ON FUNCTION perfopt.start_worker() FROM PUBLIC;
COMMENT ON FUNCTION perfopt.start_worker() IS
'Asks for perfopt''s worker in this database, as soon as the transaction commits. CREATE EXTENSION does it by itself; on a standby it saves waiting until the launcher looks again. Raises an error when perfopt is not in shared_preload_libraries.';

SELECT perfopt.start_worker();

CREATE FUNCTION perfopt.list_workers(
    OUT kind text, OUT pid integer, OUT datid oid, OUT state text, OUT role oid,
    OUT activity text, OUT started_at timestamptz, OUT last_tick timestamptz,
    OUT ticks bigint, OUT errors bigint, OUT last_error text,
    OUT last_error_at timestamptz, OUT cpu_ms double precision)
    RETURNS SETOF record
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'perfopt_list_workers';
COMMENT ON FUNCTION perfopt.list_workers() IS
'The rows of perfopt.workers, with OIDs for names. Raises an error when perfopt is not in shared_preload_libraries.';

CREATE VIEW perfopt.workers AS
SELECT w.kind, w.pid, d.datname, w.state, r.rolname, w.activity, w.started_at,
       w.last_tick, w.ticks, w.errors, w.last_error, w.last_error_at, w.cpu_ms
FROM perfopt.list_workers() AS w
     LEFT JOIN pg_catalog.pg_database AS d ON d.oid = w.datid
     LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = w.role;
COMMENT ON VIEW perfopt.workers IS
'The background workers: the launcher, one worker for each database that has the extension, and one for each running job.';
COMMENT ON COLUMN perfopt.workers.kind IS 'launcher, database or job';
COMMENT ON COLUMN perfopt.workers.pid IS 'process ID; null while there is no process';
COMMENT ON COLUMN perfopt.workers.state IS
'waiting (to be started), starting, probing (looks for the extension), sleeping, running or stopping';
COMMENT ON COLUMN perfopt.workers.rolname IS
'role a job runs as; null unless you are a member of pg_read_all_stats or have the privileges of that role';
COMMENT ON COLUMN perfopt.workers.activity IS 'the duty that runs now, or the capability the job belongs to';
COMMENT ON COLUMN perfopt.workers.last_tick IS 'when it last looked what is to be done';
COMMENT ON COLUMN perfopt.workers.ticks IS 'how often it has done so since it was started';
COMMENT ON COLUMN perfopt.workers.errors IS 'failures since the server was started';
COMMENT ON COLUMN perfopt.workers.last_error IS
'message of the last failure; null unless you are a member of pg_read_all_stats';
COMMENT ON COLUMN perfopt.workers.cpu_ms IS 'CPU time the process has used, in milliseconds';

CREATE FUNCTION perfopt.list_jobs(
    OUT id bigint, OUT capability text, OUT state text, OUT pid integer,
    OUT datid oid, OUT role oid, OUT job text, OUT submitted_at timestamptz,
    OUT started_at timestamptz, OUT sqlstate text, OUT message text,
    OUT cpu_ms double precision)
    RETURNS SETOF record
    LANGUAGE c STABLE STRICT PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'perfopt_list_jobs';
COMMENT ON FUNCTION perfopt.list_jobs() IS
'The rows of perfopt.jobs, with OIDs for names. Raises an error when perfopt is not in shared_preload_libraries.';

CREATE VIEW perfopt.jobs AS
SELECT j.id, j.capability, j.state, j.pid, d.datname, r.rolname, j.job,
       j.submitted_at, j.started_at, j.sqlstate, j.message, j.cpu_ms
FROM perfopt.list_jobs() AS j
     LEFT JOIN pg_catalog.pg_database AS d ON d.oid = j.datid
     LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = j.role;
COMMENT ON VIEW perfopt.jobs IS
'Jobs of the pool that wait, run, or have ended and whose submitter has not yet taken the outcome. Role, statement and messages are shown to members of pg_read_all_stats and to those who have the privileges of the job''s role.';
COMMENT ON COLUMN perfopt.jobs.state IS 'queued, starting, running, done, failed, cancelled or lost (its process ended without an outcome)';
COMMENT ON COLUMN perfopt.jobs.job IS 'the statement, or what the capability has its own code do';
COMMENT ON COLUMN perfopt.jobs.cpu_ms IS 'CPU time its process has used, in milliseconds, once it has ended';

GRANT SELECT ON perfopt.workers, perfopt.jobs TO PUBLIC;
