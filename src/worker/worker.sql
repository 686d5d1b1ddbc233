-- worker

CREATE FUNCTION perfopt.start_worker() RETURNS void
    LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'perfopt_start_worker';
REVOKE ALL ON FUNCTION perfopt.start_worker() FROM PUBLIC;
COMMENT ON FUNCTION perfopt.start_worker() IS
'Asks for perfopt''s worker in this database, as soon as the transaction commits. CREATE EXTENSION does it by itself; on a standby it saves waiting until the launcher looks again. Raises an error when perfopt is not in shared_preload_libraries.';

SELECT perfopt.start_worker();
