"""A client of a service in the standard library alone, written from docs/service-protocol.md for other languages.

    python examples/python/service_client.py SERVICE
    python examples/python/service_client.py SERVICE KERNEL VALUE…

The first lists the kernels, the second calls one: a VALUE is JSON, or @FILE for the bytes of a file. For programs in
Python there is `arenite.service.connect`.
"""

import json
import math
import os
import socket
import sys
from itertools import count
from pathlib import Path

from store_client import MAX_PACKET, connect, kind_of, map_file, receive, sealed_file

MAX_FILES = 200


def encode(value, files):
    """A value in JSON. Adds its files to `files`, which the caller closes."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, (list, tuple)):
        return [encode(item, files) for item in value]
    if isinstance(value, dict):
        return {"dict": {name: encode(item, files) for name, item in value.items()}}
    # What has a buffer: bytes, an array of numpy.
    buffer = memoryview(value)
    files.append(sealed_file(buffer))
    return kind_of(buffer)


def decode(value, files):
    """The value that JSON stands for. Arrays and bytes are read-only buffers, which map the next ones of `files`."""
    if isinstance(value, list):
        return [decode(item, files) for item in value]
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float(value["float"])
    if "dict" in value:
        return {name: decode(item, files) for name, item in value["dict"].items()}
    content = map_file(next(files), value)
    return str(content, "utf-8") if value.get("text") else content


class Failed(Exception):
    """A call has failed: `code`, and what else the answer says."""

    def __init__(self, answer):
        super().__init__(f"{answer['error']}: {answer['message']}")
        self.code, self.answer = answer["error"], answer


class Service:
    def __init__(self, name):
        self.socket = connect(name)
        self.ids = count(1)
        self.answers = {}
        self.socket.send(json.dumps({"op": "info"}).encode())
        self.info, _ = receive(self.socket, MAX_FILES)
        if not self.info.get("service") or self.info["protocol"] != 1:
            raise ConnectionError(f"{name} is no service that speaks version 1 of the protocol: {self.info}")

    def submit(self, kernel, *args, deadline=None):
        """Starts a call, and returns its number. Up to `info["max_calls"]` calls may be open."""
        id, files = next(self.ids), []
        try:
            request = {"op": "call", "id": id, "kernel": kernel, "args": encode(args, files)}
            if deadline is not None:
                request["deadline"] = deadline
            packet = json.dumps(request).encode()
            if len(packet) > MAX_PACKET or len(files) > MAX_FILES:
                raise ValueError("the arguments do not fit a packet: use an array instead of a list")
            socket.send_fds(self.socket, [packet], files)
        finally:
            for file in files:
                os.close(file)
        return id

    def cancel(self, id):
        self.socket.send(json.dumps({"op": "cancel", "id": id}).encode())

    def result(self, id):
        """Waits for the answer of this call. Those of other calls may arrive earlier."""
        while id not in self.answers:
            answer, files = receive(self.socket, MAX_FILES)
            try:
                if "error" not in answer:
                    answer["value"] = decode(answer["value"], iter(files))
            finally:
                for file in files:
                    os.close(file)
            if "id" not in answer:
                raise Failed(answer)
            self.answers[answer["id"]] = answer
        answer = self.answers.pop(id)
        if "error" in answer:
            raise Failed(answer)
        return answer["value"]

    def call(self, kernel, *args, deadline=None):
        return self.result(self.submit(kernel, *args, deadline=deadline))


def main(name, kernel=None, *values):
    service = Service(name)
    if kernel is None:
        for known in service.info["kernels"]:
            print(known["name"] + known["signature"])
        return
    args = [Path(value[1:]).read_bytes() if value.startswith("@") else json.loads(value) for value in values]
    try:
        print(json.dumps(service.call(kernel, *args), default=memoryview.tolist))
    except Failed as failure:
        sys.exit(str(failure))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]) if sys.argv[1:] else __doc__)
