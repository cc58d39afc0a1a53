"""A web service that makes thumbnails of uploaded pictures, decoded in sandboxed processes by one `arenite`.

    python examples/python/server.py 8000
    curl --data-binary @samples/coffee.png http://127.0.0.1:8000/ -o thumbnail.jpg

An upload that crashes the decoder, hangs it or asks for too much memory is answered with an error. Needs nothing but
the standard library and the command.
"""

import itertools
import json
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

FLAGS = ["--size", "224", "--format", "jpeg", "--timeout", "20s", "--retries", "1"]
LARGEST = 32 << 20


class Arenite:
    def __init__(self):
        command = ["arenite", "resize", "--jobs", "-", *FLAGS]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.waiting: dict[int, Future] = {}
        self.ids, self.lock = itertools.count(), threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            answer = json.loads(line)
            self.waiting.pop(answer["id"]).set_result(answer)

    def resize(self, **job):
        job["id"] = next(self.ids)
        answer = self.waiting[job["id"]] = Future()
        with self.lock:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            self.process.stdin.flush()
        return answer.result(timeout=60)


class Upload(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if length > LARGEST:
            return self.send_error(413)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            source, result = Path(own, "upload"), Path(own, "thumbnail.jpg")
            source.write_bytes(self.rfile.read(length))
            answer = arenite.resize(**{"in": str(source), "out": str(result)})
            written = answer["status"] == "written"
            body = result.read_bytes() if written else f"{answer['cause']}: {answer['error']}\n".encode()
        self.send_response(200 if written else 422)
        self.send_header("Content-Type", "image/jpeg" if written else "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    arenite = Arenite()
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8000
    # At the end the stdin of `arenite` closes, and it ends too.
    with tempfile.TemporaryDirectory() as folder, ThreadingHTTPServer(("127.0.0.1", port), Upload) as server:
        print(server.server_port, flush=True)
        server.serve_forever()
