"""The main job with an `s3://` path, against a real S3 protocol server."""

import socket

import boto3
import pytest
from conftest import coulee, delivered_delays, expected_delays, flights_script
from moto.server import ThreadedMotoServer


@pytest.fixture
def s3():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=port)
    server.start()
    endpoint = f"http://127.0.0.1:{port}"
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    client.create_bucket(Bucket="lake")
    yield endpoint, client
    server.stop()


def test_the_same_job_delivers_to_s3(s3, tmp_path):
    endpoint, client = s3
    script = flights_script("s3://lake/delays").replace(
        "'format'    = 'parquet'",
        f"'format' = 'parquet', 's3.endpoint' = '{endpoint}', 's3.access-key' = 'test', 's3.secret-key' = 'test', 's3.region' = 'us-east-1', 's3.path-style-access' = 'true'",
    )
    (tmp_path / "delays.sql").write_text(script)
    coulee("run", "--data-dir", tmp_path / "data", tmp_path / "delays.sql")
    objects = client.list_objects_v2(Bucket="lake", Prefix="delays/")["Contents"]
    assert len(objects) >= 31
    for entry in objects:
        target = tmp_path / "fetched" / entry["Key"].removeprefix("delays/")
        target.parent.mkdir(parents=True, exist_ok=True)
        client.download_file("lake", entry["Key"], str(target))
    assert delivered_delays(tmp_path / "fetched") == expected_delays()
