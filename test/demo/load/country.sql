-- no index, and none would pay: the table has a few pages
\set c random(1, 250)
SELECT name, vat FROM countries WHERE code = 'C' || :c;
