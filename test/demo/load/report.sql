-- reads most of the table: slow, and no index would help
SELECT status, count(*), sum(total_cents), avg(quantity), max(shipped_at)
FROM orders WHERE status <> 'cancelled' GROUP BY status;
