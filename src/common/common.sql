-- The head of the installation script, and the schema.
\echo Use "CREATE EXTENSION perfopt CASCADE" to load this file. \quit

GRANT USAGE ON SCHEMA perfopt TO PUBLIC;
COMMENT ON SCHEMA perfopt IS 'latency by query, index advice and background work of the extension perfopt';
