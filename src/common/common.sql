\echo Use "CREATE EXTENSION perfopt CASCADE" to load this file. \quit

GRANT USAGE ON SCHEMA perfopt TO PUBLIC;
