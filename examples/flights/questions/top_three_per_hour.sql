-- The three carriers with the most late departures of each hour.
--
--   coulee run examples/flights/questions/top_three_per_hour.sql

CREATE TABLE flights (
  departed_at TIMESTAMP(3),
  carrier     STRING,
  flight      INT,
  dep_delay   INT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '15' MINUTE
) WITH (
  'connector' = 'filesystem',
  'path'      = 'examples/data/flights-2013-01.ndjson.gz',
  'format'    = 'json'
);

SELECT window_start, carrier, late
FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY window_start ORDER BY late DESC, carrier) AS place
  FROM (
    SELECT window_start, carrier, COUNT(*) AS late
    FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR))
    WHERE dep_delay > 15
    GROUP BY window_start, window_end, carrier
  ) AS counts
) AS places
WHERE place <= 3;
