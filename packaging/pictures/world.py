"""What the pictures of a store show: objects, a service with some failures, and programs that use them.

    world.py serve      a service of two workers
    world.py notebook   puts objects into the store, and calls the service

Both print a line when they are ready, and end with their standard input.
"""

import ctypes
import sys
import time

import arenite
import numpy as np


def shrink(image, factor=2):
    return np.ascontiguousarray(image[::factor, ::factor])


def histogram(values, bins=64):
    return np.histogram(values, bins)[0]


def denoise(image, seconds):
    time.sleep(seconds)
    return image


def parse(document):
    return ctypes.string_at(0)


def named(name):
    """What Linux calls this program."""
    with open("/proc/self/comm", "w") as file:
        file.write(name)


def ready():
    print("ready", flush=True)
    sys.stdin.read()


def serve():
    named("photo-server")
    with arenite.Executor(max_workers=4, capacity="256MiB") as ex:
        kernels = {"shrink": shrink, "histogram": histogram, "denoise": denoise, "parse": parse}
        with ex.serve("photos", kernels):
            ready()


def notebook():
    named("notebook")
    store = arenite.connect("main")
    generator = np.random.default_rng(1)
    store["embeddings"] = generator.standard_normal((200_000, 384), np.float32)
    store["prices/2025"] = generator.random(8_000_000)
    store["photos/train"] = generator.integers(0, 255, (1500, 224, 224, 3), np.uint8)
    store["labels"] = generator.integers(0, 1000, 1500)
    store["model.json"] = b"{}" * 300
    held = store["embeddings"], store["photos/train"]
    retained = store["prices/2025"]
    store["prices/2025"] = generator.random(9_000_000)
    photos = arenite.service.connect("photos")
    for number in range(240):
        photos.call("shrink", held[1][number], 4)
    for column in range(60):
        photos.call("histogram", held[0][:, column])
    for document in range(1):
        try:
            photos.call("parse", document)
        except arenite.WorkerDied as died:
            print(died.signal, file=sys.stderr)
    running = [photos.submit("denoise", held[1][number], 3600) for number in range(5)]
    print(len(running), len(retained), file=sys.stderr)
    ready()


{"serve": serve, "notebook": notebook}[sys.argv[1]]()
