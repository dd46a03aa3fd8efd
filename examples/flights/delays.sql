-- Departure delays from New York, per carrier and hour: from a file into a stream, from the stream
-- in event time into Parquet, exactly once.
--
--   coulee run --data-dir .coulee examples/flights/delays.sql
--
-- Kill it at any moment and run it again: the result is the same.

CREATE TABLE flights_file (
  scheduled_at TIMESTAMP(3),
  departed_at  TIMESTAMP(3),
  carrier      STRING,
  flight       INT,
  tailnum      STRING,
  origin       STRING,
  dest         STRING,
  dep_delay    INT,
  arr_delay    INT,
  air_time     INT,
  distance     INT
) WITH (
  'connector' = 'filesystem',
  'path'      = 'examples/data/flights-2013-01.ndjson.gz',
  'format'    = 'json'
);

-- A table without a connector is a built-in stream of its name.
CREATE TABLE flights (
  scheduled_at TIMESTAMP(3),
  departed_at  TIMESTAMP(3),
  carrier      STRING,
  flight       INT,
  tailnum      STRING,
  origin       STRING,
  dest         STRING,
  dep_delay    INT,
  arr_delay    INT,
  air_time     INT,
  distance     INT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '15' MINUTE
) WITH (
  'shards'            = '4',
  'key.fields'        = 'carrier',
  'scan.bounded.mode' = 'latest-offset',
  -- Slow enough to watch.
  'scan.rate-limit'   = '6000'
);

CREATE TABLE delays (
  `day`        DATE,
  window_start TIMESTAMP(3),
  carrier      STRING,
  flights      BIGINT,
  avg_delay    DOUBLE,
  max_delay    INT,
  late_share   DOUBLE
) PARTITIONED BY (`day`) WITH (
  'connector' = 'filesystem',
  'path'      = 'out/delays',
  'format'    = 'parquet'
);

-- First all flights go into the stream: with dml-sync a statement waits for the one before.
SET 'table.dml-sync' = 'true';
SET 'pipeline.name' = 'load-flights';
INSERT INTO flights SELECT * FROM flights_file;

RESET 'pipeline.name';
INSERT INTO delays
SELECT
  CAST(window_start AS DATE),
  window_start,
  carrier,
  COUNT(*),
  AVG(CAST(dep_delay AS DOUBLE)),
  MAX(dep_delay),
  CAST(COUNT(*) FILTER (WHERE dep_delay > 15) AS DOUBLE) / COUNT(*)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, carrier;
