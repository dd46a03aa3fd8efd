-- Flights that took half as long again in the air as the mean flight on their route.
--
--   coulee run examples/flights/questions/slower_than_usual.sql

CREATE TABLE flights (
  scheduled_at TIMESTAMP(3),
  carrier      STRING,
  flight       INT,
  origin       STRING,
  dest         STRING,
  air_time     INT
) WITH (
  'connector' = 'filesystem',
  'path'      = 'examples/data/flights-2013-01.ndjson.gz',
  'format'    = 'json'
);

SELECT f.carrier, f.flight, f.origin, f.dest, f.scheduled_at, f.air_time, usual.mean_time
FROM flights AS f
JOIN (SELECT origin, dest, AVG(air_time) AS mean_time FROM flights GROUP BY origin, dest) AS usual
  ON f.origin = usual.origin AND f.dest = usual.dest AND f.air_time > 1.5 * usual.mean_time
ORDER BY f.air_time DESC;
