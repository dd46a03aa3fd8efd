-- Destinations to which some carrier flew and never left on time, and no other carrier did either.
--
--   coulee run examples/flights/questions/never_on_time.sql

CREATE TABLE flights (
  flight    INT,
  dest      STRING,
  dep_delay INT
) WITH (
  'connector' = 'filesystem',
  'path'      = 'examples/data/flights-2013-01.ndjson.gz',
  'format'    = 'json'
);

SELECT DISTINCT dest
FROM flights AS f
WHERE NOT EXISTS (SELECT 1 FROM flights AS g WHERE g.dest = f.dest AND g.dep_delay <= 0);
