-- measuring: benchmark, compare, profile

CREATE FUNCTION perfopt.benchmark(
	sql text,
	params record DEFAULT NULL,
	iterations integer DEFAULT 1000,
	repeat integer DEFAULT 10,
	warmup integer DEFAULT 5,
	keep_changes boolean DEFAULT false,
	max_time interval DEFAULT '30 s',
	plan text DEFAULT 'auto',
	OUT average_ms double precision,
	OUT std_dev_ms double precision,
	OUT min_ms double precision,
	OUT max_ms double precision,
	OUT median_ms double precision,
	OUT p95_ms double precision,
	OUT p99_ms double precision,
	OUT iterations bigint,
	OUT rounds integer,
	OUT spread_percent double precision,
	OUT stopped_early boolean,
	OUT rows double precision,
	OUT shared_hit double precision,
	OUT shared_read double precision,
	OUT shared_dirtied double precision,
	OUT local_blocks double precision,
	OUT temp_read double precision,
	OUT temp_written double precision,
	OUT wal_bytes double precision,
	OUT memory_kb bigint,
	OUT planning_ms double precision,
	OUT plan_used text,
	OUT timer_ms double precision)
RETURNS record
AS 'MODULE_PATHNAME', 'perfopt_benchmark'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION perfopt.benchmark(text, record, integer, integer, integer, boolean, interval, text) IS
'How long a statement takes and what it uses. sql: one SELECT, VALUES, INSERT, UPDATE, DELETE or MERGE, run with the caller''s rights; params: the values of $1, $2 ..., as in ROW(42, ''a''), with their types. repeat rounds of iterations runs each (together at most 10,000,000), after warmup runs (at least one) that do not count; when that takes longer than max_time (null: as long as it takes), each round gets its part of the time, and a NOTICE tells. plan: auto as a prepared statement has it, generic or custom. A run is timed from the start of the executor to its end: rows are taken apart and thrown away, triggers of the statement counted; not planning, locking, output functions or sending. Changes of each run are rolled back unless keep_changes is true; sequences, and what is done outside of the database, stay, and so does a transaction ID for each run that writes. Deferred triggers are run only after SET CONSTRAINTS ALL IMMEDIATE. Returns times in milliseconds over all runs: mean, sample deviation, exact quantiles; iterations: runs made; spread_percent: how far the medians of the rounds lie apart, in percent of the median; means of a run: rows (returned or changed), blocks of shared buffers hit, read and dirtied, of temporary tables (local_blocks), of temporary files, bytes of WAL; memory_kb: the most that the executor had in the first run, looked at as nodes return rows, without parallel workers and what functions run; planning_ms: of the first plan; plan_used: generic, custom or mixed; timer_ms: what is in each time for reading the clock. Raises feature_not_supported for other statements, syntax_error for more than one, invalid_parameter_value for numbers out of range, null_value_not_allowed for no statement, and what the statement raises.';

CREATE FUNCTION perfopt.compare(
	sql_a text,
	sql_b text,
	params record DEFAULT NULL,
	iterations integer DEFAULT 1000,
	repeat integer DEFAULT 10,
	warmup integer DEFAULT 5,
	params_b record DEFAULT NULL,
	max_time interval DEFAULT '30 s',
	plan text DEFAULT 'auto',
	check_rows boolean DEFAULT true,
	OUT faster text,
	OUT improvement_percent double precision,
	OUT significant boolean,
	OUT p_value double precision,
	OUT ratio double precision,
	OUT ratio_low double precision,
	OUT ratio_high double precision,
	OUT a_median_ms double precision,
	OUT b_median_ms double precision,
	OUT a_average_ms double precision,
	OUT b_average_ms double precision,
	OUT iterations bigint,
	OUT rounds integer,
	OUT stopped_early boolean,
	OUT same_rows boolean,
	OUT rows_a bigint,
	OUT rows_b bigint,
	OUT difference text)
RETURNS record
AS 'MODULE_PATHNAME', 'perfopt_compare'
LANGUAGE C VOLATILE PARALLEL UNSAFE;

COMMENT ON FUNCTION perfopt.compare(text, text, record, integer, integer, integer, record, interval, text, boolean) IS
'Which of two statements is faster, whether the difference is more than noise, and whether both return the same rows. Statements, params, warmup, max_time and plan as for perfopt.benchmark(); params_b: values for sql_b, where they are others. Runs alternate (A B B A), iterations of each (when more than one, an even number, rounded down) in each of repeat rounds (6 to 1,000; iterations times repeat at most 5,000,000); changes are always rolled back. Each round prepares both anew and gives one ratio, the median over its fours of runs. Wilcoxon''s signed-rank test (1945, exact up to 200 rounds) is made on the logarithms of these: p_value is how probable ratios like these are when both take as long, significant: below 0.05. faster: a, b, or neither when that is not significant; ratio: time of b divided by time of a (Hodges-Lehmann estimate), with its 95 % confidence interval; improvement_percent: how much less time b takes than a, negative when more. iterations: runs of each. same_rows: each row as text comes as often from both, in any order, and the columns have the same types; found by one more run of each under the same snapshot, unless check_rows is false; difference: in words, with an example. Raises what perfopt.benchmark() raises.';

CREATE FUNCTION perfopt.profile(
	sql text,
	params record DEFAULT NULL,
	keep_changes boolean DEFAULT false,
	timing boolean DEFAULT true,
	plan text DEFAULT 'auto')
RETURNS TABLE (
	id integer,
	parent integer,
	depth integer,
	node text,
	self_ms double precision,
	total_ms double precision,
	share numeric,
	all_processes_ms double precision,
	loops bigint,
	rows_estimated double precision,
	rows_actual double precision,
	estimate_factor double precision,
	rows_removed bigint,
	shared_hit bigint,
	shared_read bigint,
	shared_dirtied bigint,
	shared_written bigint,
	local_blocks bigint,
	temp_read bigint,
	temp_written bigint,
	memory_kb bigint,
	spilled_kb bigint,
	flags text[])
AS 'MODULE_PATHNAME', 'perfopt_profile'
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 20;

COMMENT ON FUNCTION perfopt.profile(text, record, boolean, boolean, text) IS
'Where the time of one run goes: a row for each node of the plan, by its own time, and rows without id for planning, triggers, JIT compilation and the start and end of the executor. Statement, params, keep_changes and plan as for perfopt.benchmark(). self_ms: without what the node has called; total_ms: with it; share: of all, in percent, adding up to 100. An InitPlan or CTE counts to itself, not to the node that asked for it. Below a Gather, times are scaled so that the statement waited for the slowest process; all_processes_ms is the sum of what all processes spent. rows_estimated and rows_actual: of one loop; estimate_factor: actual divided by estimated, both at least 1; rows_removed: by filters, of all loops; blocks of the node itself; memory_kb, spilled_kb: of sorts, hash tables and what keeps rows. flags: what is remarkable, in words. Counting costs time, mostly where many rows are handed on one by one; with timing false times are null, and rows are in the order of EXPLAIN. Raises what perfopt.benchmark() raises.';
