-- Sessions of an aircraft: departures from New York that follow each other within six hours. Those with four and more.
--
--   coulee run examples/flights/questions/busy_aircraft.sql

CREATE TABLE flights (
  departed_at TIMESTAMP(3),
  flight      INT,
  tailnum     STRING,
  distance    INT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '15' MINUTE
) WITH (
  'connector' = 'filesystem',
  'path'      = 'examples/data/flights-2013-01.ndjson.gz',
  'format'    = 'json'
);

SELECT tailnum, SESSION_START(departed_at, INTERVAL '6' HOUR) AS first_departure, COUNT(*) AS departures, SUM(distance) AS miles
FROM flights
WHERE tailnum IS NOT NULL
GROUP BY SESSION(departed_at, INTERVAL '6' HOUR), tailnum
HAVING COUNT(*) >= 4;
