"""An S3 server and, in front of it, a proxy that misbehaves as asked."""

import http.client
import random
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import boto3
from moto.server import ThreadedMotoServer

FAULTS = ("500 before", "500 after", "drop before", "drop after", "none")


class FaultyS3:
    """Requests that write meet a fault with probability `rate`: an answer of 500 or a dropped connection, before the store has seen the
    request or after it has carried it out. Between `hold` and `release` every request is taken and not answered; those that are held before they
    are carried out are carried out when they are released, for whoever has given them up long ago."""

    def __init__(self, seed, bucket="lake"):
        self.dice, self.rate, self.met = random.Random(seed), 0.0, dict.fromkeys(FAULTS, 0)
        self.lock = threading.Lock()
        self.held, self.waiting, self.released = None, 0, threading.Event()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.moto = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port)
        self.moto.start()
        keys = {"region_name": "us-east-1", "aws_access_key_id": "test", "aws_secret_access_key": "test"}
        self.client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", **keys)
        self.bucket = bucket
        # Every server of this process has the same objects: those of former tests go.
        reset = http.client.HTTPConnection("127.0.0.1", self.port)
        reset.request("POST", "/moto-api/reset")
        assert reset.getresponse().status == 200
        self.client.create_bucket(Bucket=bucket)
        self.proxy = ThreadingHTTPServer(("127.0.0.1", 0), self.handler())
        self.proxy.daemon_threads = True
        threading.Thread(target=self.proxy.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.proxy.server_port}"

    def hold(self, when):
        """From now on nothing is answered: `when` is "before" or "after" the store carries it out."""
        self.released.clear()
        self.held = when

    def release(self):
        self.held = None
        self.released.set()

    def wait_if(self, held):
        if held:
            self.waiting += 1
            self.released.wait()
            self.waiting -= 1

    def draw(self):
        with self.lock:
            # In turn, so that few requests meet all of them.
            faults = sum(self.met.values()) - self.met["none"]
            fault = FAULTS[faults % 4] if self.dice.random() < self.rate else "none"
            self.met[fault] += 1
        return fault

    def handler(self):
        store = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                held = store.held
                store.wait_if(held == "before")
                fault = store.draw() if self.command in ("PUT", "POST", "HEAD") else "none"
                if fault.endswith("before"):
                    return self.fail(fault)
                upstream = http.client.HTTPConnection("127.0.0.1", store.port)
                upstream.request(self.command, self.path, body, dict(self.headers))
                answer = upstream.getresponse()
                content = answer.read()
                upstream.close()
                store.wait_if(held == "after")
                if fault != "none":
                    return self.fail(fault)
                self.send_response_only(answer.status, answer.reason)
                for name, value in answer.getheaders():
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                # The answer to HEAD has the length of what it leaves out.
                length = answer.getheader("Content-Length", "0") if self.command == "HEAD" else str(len(content))
                self.send_header("Content-Length", length)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(content)

            def fail(self, fault):
                if fault.startswith("500"):
                    self.send_response_only(500, "Internal Server Error")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

            def handle(self):
                try:
                    super().handle()
                except (BrokenPipeError, ConnectionResetError):
                    pass  # whoever asked has given up

            def log_message(self, *_):
                pass

        return Handler

    def fetch(self, folder):
        """Every object into a folder; their keys."""
        keys = []
        for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket):
            for entry in page.get("Contents", []):
                target = folder / entry["Key"]
                target.parent.mkdir(parents=True, exist_ok=True)
                self.client.download_file(self.bucket, entry["Key"], str(target))
                keys.append(entry["Key"])
        return keys

    def keys(self, prefix=""):
        """The keys below a prefix."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def stop(self):
        self.release()
        self.proxy.shutdown()
        self.proxy.server_close()
        self.moto.stop()
