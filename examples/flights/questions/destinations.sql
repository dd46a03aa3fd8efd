-- How many destinations are there each day, and how many aircraft serve them?
--
--   coulee run examples/flights/questions/destinations.sql

CREATE TABLE flights (
  scheduled_at TIMESTAMP(3),
  flight       INT,
  tailnum      STRING,
  dest         STRING
) WITH (
  'connector' = 'filesystem',
  'path'      = 'examples/data/flights-2013-01.ndjson.gz',
  'format'    = 'json'
);

SELECT CAST(scheduled_at AS DATE) AS `day`, COUNT(DISTINCT dest) AS destinations, COUNT(DISTINCT tailnum) AS aircraft
FROM flights
GROUP BY CAST(scheduled_at AS DATE)
ORDER BY `day`;
