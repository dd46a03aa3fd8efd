"""Lookup joins against tables that change while the job runs."""

import json
import os

from conftest import coulee, wait_until

HEAD = """
CREATE TABLE orders (id BIGINT, currency STRING, proc_time AS PROCTIME());
CREATE TABLE priced (id BIGINT, rate BIGINT);
"""
QUERY = "INSERT INTO priced SELECT o.id, r.rate FROM orders AS o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.proc_time AS r ON o.currency = r.currency;"


def produce(server, stream, rows):
    server.run("produce", stream, input="".join(json.dumps(row) + "\n" for row in rows))


def priced(server):
    return [json.loads(line) for line in server.run("tail", "priced", "--from", "earliest").stdout.splitlines()]


def ask(server, id, currency="EUR"):
    """What a new order is priced at."""
    produce(server, "orders", [{"id": id, "currency": currency}])
    wait_until(lambda: any(row["id"] == id for row in priced(server)))
    return [row["rate"] for row in priced(server) if row["id"] == id]


def ask_until(server, rates, first):
    """Prices orders until one has these rates; rows that were priced stay as they were."""
    ids = iter(range(first, first + 10_000))
    wait_until(lambda: ask(server, next(ids)) == rates)
    return next(ids)


def test_a_keyed_stream_is_followed_also_after_a_crash(server, tmp_path):
    rates = "CREATE TABLE rates (currency STRING, rate BIGINT, PRIMARY KEY (currency) NOT ENFORCED) WITH ('connector' = 'upsert-stream');"
    (tmp_path / "new.sql").write_text(f"{rates} CREATE TABLE news (currency STRING, rate BIGINT); INSERT INTO rates SELECT currency, MAX(rate) FROM news GROUP BY currency HAVING MAX(rate) < 100;")
    server.run("job", "submit", tmp_path / "new.sql")
    produce(server, "news", [{"currency": "EUR", "rate": 1}, {"currency": "USD", "rate": 7}])
    wait_until(lambda: len(server.run("tail", "rates", "--from", "earliest").stdout.splitlines()) >= 2)
    (tmp_path / "job.sql").write_text(f"{HEAD}{rates}{QUERY}")
    server.run("job", "submit", tmp_path / "job.sql")
    assert ask(server, 0) == [1] and ask(server, 1, "YEN") == [None]
    produce(server, "news", [{"currency": "EUR", "rate": 2}])
    next_id = ask_until(server, [2], 2)
    assert ask(server, next_id, "USD") == [7], "the other key is as it was"
    server.process.kill()
    server.process.wait()
    server.process = server()
    assert ask(server, next_id + 1) == [2], "the table is read whole before the first row"
    # 100 is not let through: the row of the key is deleted.
    produce(server, "news", [{"currency": "EUR", "rate": 100}])
    ask_until(server, [None], next_id + 2)
    assert [row["rate"] for row in priced(server) if row["id"] == 0] == [1], "what was priced is not looked at again"


def test_files_are_read_again_at_their_interval(server, tmp_path):
    file = tmp_path / "rates.ndjson"
    file.write_text('{"currency": "EUR", "rate": 1}\n')
    (tmp_path / "job.sql").write_text(f"""{HEAD}
CREATE TABLE rates (currency STRING, rate BIGINT)
WITH ('connector' = 'filesystem', 'path' = '{file}', 'format' = 'json', 'lookup.full-cache.periodic-reload.interval' = '100 ms');
{QUERY}""")
    server.run("job", "submit", tmp_path / "job.sql")
    assert ask(server, 0) == [1]
    (tmp_path / "new").write_text('{"currency": "EUR", "rate": 2}\n{"currency": "EUR", "rate": 3}\n')
    os.replace(tmp_path / "new", file)
    next_id = ask_until(server, [2, 3], 1)
    file.unlink()
    assert ask(server, next_id) == [2, 3], "a table that cannot be read again stays as it was"


def test_without_an_interval_files_are_read_once(server, tmp_path):
    file = tmp_path / "rates.ndjson"
    file.write_text('{"currency": "EUR", "rate": 1}\nnonsense\n')
    (tmp_path / "job.sql").write_text(f"{HEAD}CREATE TABLE rates (currency STRING, rate BIGINT) WITH ('connector' = 'filesystem', 'path' = '{file}', 'format' = 'json');\n{QUERY}")
    server.run("job", "submit", tmp_path / "job.sql")
    assert ask(server, 0) == [1]
    file.write_text('{"currency": "EUR", "rate": 2}\n')
    assert ask(server, 1) == [1]


def test_a_table_that_cannot_be_read_ends_the_job_with_its_name(tmp_path):
    (tmp_path / "orders.ndjson").write_text('{"id": 1, "currency": "EUR"}\n')
    script = """CREATE TABLE rates (currency STRING, rate BIGINT) WITH ('connector' = 'filesystem', 'path' = 'gone', 'format' = 'json');
SELECT o.id, r.rate FROM 'orders.ndjson' AS o JOIN rates FOR SYSTEM_TIME AS OF PROCTIME() AS r ON o.currency = r.currency"""
    done = coulee("run", "-e", script, cwd=tmp_path, check=False)
    assert done.returncode != 0 and "rates" in done.stderr and "gone" in done.stderr, done.stderr


def test_rows_meet_the_version_of_their_time_also_after_a_crash(server, tmp_path):
    rates = """CREATE TABLE rates (currency STRING, rate BIGINT, since TIMESTAMP(3), WATERMARK FOR since AS since, PRIMARY KEY (currency) NOT ENFORCED)
WITH ('connector' = 'upsert-stream', 'scan.watermark.idle-timeout' = '1 h');"""
    (tmp_path / "new.sql").write_text(f"{rates} CREATE TABLE news (currency STRING, rate BIGINT, since TIMESTAMP(3)); INSERT INTO rates SELECT * FROM news;")
    server.run("job", "submit", tmp_path / "new.sql")
    (tmp_path / "job.sql").write_text(f"""SET 'execution.checkpointing.interval' = '100 ms';
CREATE TABLE orders (id BIGINT, currency STRING, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('scan.watermark.idle-timeout' = '1 h');
CREATE TABLE priced (id BIGINT, rate BIGINT); {rates}
INSERT INTO priced SELECT o.id, r.rate FROM orders AS o LEFT JOIN rates FOR SYSTEM_TIME AS OF o.ts AS r ON o.currency = r.currency;""")
    server.run("job", "submit", tmp_path / "job.sql")

    def at(minute):
        return f"2024-05-01 10:{minute:02}:00"

    def order(id, currency, minute):
        produce(server, "orders", [{"id": id, "currency": currency, "ts": at(minute)}])

    def rate(currency, rate, minute):
        produce(server, "news", [{"currency": currency, "rate": rate, "since": at(minute)}])

    rate("EUR", 1, 0)
    order(1, "EUR", 5)
    order(2, "EUR", 15)
    order(3, "USD", 16)
    rate("EUR", 2, 10)
    # Until here the watermark is at 10 minutes.
    wait_until(lambda: [(row["id"], row["rate"]) for row in priced(server)] == [(1, 1)])
    server.process.kill()
    server.process.wait()
    server.process = server()
    rate("USD", 7, 17)
    rate("EUR", 3, 40)
    order(4, "USD", 30)
    order(5, "EUR", 50)
    wait_until(lambda: len(priced(server)) >= 4)
    assert sorted((row["id"], row["rate"]) for row in priced(server)) == [(1, 1), (2, 2), (3, None), (4, 7)]
