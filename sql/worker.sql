-- Background workers, as a user sees them.

-- The worker of this database comes by itself.
DO $$
BEGIN
    FOR i IN 1 .. 600 LOOP
        IF EXISTS (SELECT FROM perfopt.workers
                   WHERE kind = 'database' AND datname = current_database() AND state = 'sleeping') THEN
            RETURN;
        END IF;
        PERFORM pg_sleep(0.05); -- until it is there
    END LOOP;
    RAISE 'no worker';
END $$;
SELECT kind, pid IS NOT NULL AS running, datname = current_database() AS here, rolname, activity,
       last_error, cpu_ms >= 0 AS has_cost, ticks > 0 AS has_ticks
FROM perfopt.workers WHERE datname IS NULL OR datname = current_database() ORDER BY kind DESC;
SELECT * FROM perfopt.jobs;

-- Asking for it again is harmless.
SELECT perfopt.start_worker();

-- Who may do what
CREATE ROLE regress_perfopt_plain;
SET ROLE regress_perfopt_plain;
SELECT count(*) > 1 AS seen, count(last_error) AS errors_seen FROM perfopt.workers;
SELECT count(*) FROM perfopt.jobs;
SELECT perfopt.start_worker();
RESET ROLE;
DROP ROLE regress_perfopt_plain;
