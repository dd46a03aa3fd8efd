-- Departures and their mean delay over the last hour, every 15 minutes, for each airport.
--
--   coulee run examples/flights/questions/rolling_hour.sql

CREATE TABLE flights (
  departed_at TIMESTAMP(3),
  flight      INT,
  origin      STRING,
  dep_delay   INT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '15' MINUTE
) WITH (
  'connector' = 'filesystem',
  'path'      = 'examples/data/flights-2013-01.ndjson.gz',
  'format'    = 'json'
);

SELECT window_end, origin, COUNT(*) AS departures, AVG(dep_delay) AS mean_delay
FROM TABLE(HOP(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '15' MINUTE, INTERVAL '1' HOUR))
GROUP BY window_start, window_end, origin;
