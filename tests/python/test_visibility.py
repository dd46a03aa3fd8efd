"""What users see of a running job: Prometheus' figures, `job show`, and why there is no output."""

import json
import re
import urllib.request

import pytest
from conftest import ROOT, wait_until
from prometheus_client.parser import text_string_to_metric_families

# Two shards; of the second the test keeps away.
SCRIPT = """
CREATE TABLE readings (at TIMESTAMP(3), sensor STRING, `value` INT, WATERMARK FOR at AS at - INTERVAL '5' SECOND)
WITH ('shards' = '2', 'scan.watermark.idle-timeout' = '{timeout}');
CREATE TABLE minutes (window_start TIMESTAMP(3), sensor STRING, n BIGINT);
INSERT INTO minutes
SELECT window_start, sensor, COUNT(*)
FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(at), INTERVAL '1' MINUTE))
GROUP BY window_start, window_end, sensor;
"""


def get(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.status, answer.headers["Content-Type"], answer.read().decode()


def readings(minutes, sensor="a"):
    rows = [{"at": f"2024-05-01 12:{minute:02d}:00", "sensor": sensor, "value": minute} for minute in minutes]
    return "".join(json.dumps(row) + "\n" for row in rows)


def submitted(server, tmp_path, timeout):
    script = tmp_path / "silent.sql"
    script.write_text(SCRIPT.format(timeout=timeout))
    server.run("job", "submit", script)
    return lambda: json.loads(server.run("job", "show", "silent", "--json").stdout)


def test_a_silent_shard_is_named_as_the_reason_for_silence(server, tmp_path):
    show = submitted(server, tmp_path, "1 h")
    # One key: all rows go to one shard, and the other holds event time back.
    server.run("produce", "readings", "--key", "sensor", input=readings(range(10)))
    wait_until(lambda: show()["progress"]["rows_read"] == 10)
    codes = lambda: {finding["code"]: finding for finding in show()["findings"]}
    wait_until(lambda: "watermark-held" in codes())
    held = codes()["watermark-held"]
    assert held["operator"] == "source:readings"
    silent = re.search(r"shard-0000[01]", held["message"]).group()
    ends = [line for line in get(server.http + "/metrics")[2].splitlines() if line.startswith("coulee_stream_end_sequence{stream=\"readings\"")]
    quiet = [line for line in ends if line.endswith(" 0")]
    assert len(ends) == 2 and f'shard="{int(silent[-5:])}"' in quiet[0], "it is the shard without records that is named"
    shown = server.run("job", "show", "silent").stdout
    assert "WHY IS THERE NO OUTPUT?" in shown and silent in shown and "scan.watermark.idle-timeout" in shown


def test_without_a_reason_there_is_no_explanation(server, tmp_path):
    show = submitted(server, tmp_path, "1 s")
    server.run("produce", "readings", "--key", "sensor", input=readings(range(10)))
    wait_until(lambda: show()["progress"]["rows_written"] == 8)
    job = show()
    assert job["state"] == "running" and job["findings"] == []
    assert "WHY IS THERE NO OUTPUT?" not in server.run("job", "show", "silent").stdout


def test_prometheus_reads_the_endpoint_and_the_page_lists_it(server, tmp_path):
    show = submitted(server, tmp_path, "1 s")
    server.run("produce", "readings", "--key", "sensor", input=readings(range(10)))
    wait_until(lambda: show()["progress"]["rows_written"] == 8 and show()["progress"]["checkpoints"] > 0)
    status, content_type, text = get(server.http + "/metrics")
    assert (status, content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")
    families = {family.name: family for family in text_string_to_metric_families(text)}

    page = (ROOT / "docs/metrics.md").read_text()
    listed = {name: kind for name, kind in re.findall(r"^\| `(coulee_\w+)` \| (\w+) \|", page, re.MULTILINE)}
    # The parser takes the suffix of counters away.
    assert {name.removesuffix("_total") for name in listed} == set(families)
    for name, kind in listed.items():
        assert families[name.removesuffix("_total")].type == kind, name
    assert {label for family in families.values() for sample in family.samples for label in sample.labels} <= {
        "version", "job", "state", "operator", "subtask", "split", "stream", "shard", "table", "stage"
    }  # fmt: skip

    def value(name, **labels):
        found = [sample.value for family in families.values() for sample in family.samples if sample.name == name and labels.items() <= sample.labels.items()]
        assert found, (name, labels)
        return sum(found)

    assert value("coulee_job_state", job="silent", state="running") == 1
    assert value("coulee_job_state", job="silent") == 1
    assert value("coulee_operator_rows_in_total", operator="source:readings") == 10
    assert value("coulee_sink_delivered_rows_total", operator="sink:minutes") == 8
    # Of what delivers only.
    delivering = {sample.labels["operator"] for sample in families["coulee_sink_delivered_rows"].samples}
    assert delivering == {"sink:minutes", "rejected:readings", "rejected:minutes"}
    assert value("coulee_stream_end_sequence", stream="readings") == 10
    assert value("coulee_checkpoint_duration_seconds", job="silent") < 60
    # 12:09 less the five seconds of disorder, in seconds.
    assert value("coulee_operator_watermark_timestamp_seconds", operator="source:readings") == 1714565335
    assert get(server.http + "/healthz")[0] == 200


@pytest.mark.parametrize("command", [["--http-listen", "nonsense"]])
def test_an_address_that_cannot_be_is_refused(tmp_path, command):
    from conftest import coulee

    done = coulee("server", "--data-dir", tmp_path / "d", "--listen", "127.0.0.1:0", *command, check=False)
    assert done.returncode == 2 and "--http-listen" in done.stderr
