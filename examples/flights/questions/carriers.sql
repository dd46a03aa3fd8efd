-- Which carriers are late? Those with more than 500 flights, the slowest first.
--
--   coulee run examples/flights/questions/carriers.sql

CREATE TABLE flights (
  carrier   STRING,
  flight    INT,
  dep_delay INT
) WITH (
  'connector' = 'filesystem',
  'path'      = 'examples/data/flights-2013-01.ndjson.gz',
  'format'    = 'json'
);

SELECT carrier, COUNT(*) AS flights, AVG(dep_delay) AS mean_delay, MAX(dep_delay) AS worst
FROM flights
GROUP BY carrier
HAVING COUNT(*) > 500
ORDER BY mean_delay DESC;
