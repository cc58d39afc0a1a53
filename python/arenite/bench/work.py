"""The functions that workers of every system run. Imports nothing large, so that processes for no-ops stay small."""

import os
import time


def noop(_=None):
    return None


def add(one, other):
    return one + other


def successor(number):
    return number + 1


def square(number):
    return number * number


def square_all(numbers):
    return [number * number for number in numbers]


def square_array(array):
    return array * array


def square_into(array, out):
    import numpy

    numpy.multiply(array, array, out=out)


def resize(photo):
    import cv2

    # One thread per task in every system, so that there are as many threads as workers.
    if cv2.getNumThreads() != 1:
        cv2.setNumThreads(1)
    return cv2.resize(photo, (224, 224))


def compute_in(folder):
    """Makes a file there, and uses the processor until it is removed."""
    begun = f"{folder}/begun"
    open(begun, "x").close()
    while os.path.exists(begun):
        sum(range(100_000))


def touch(array):
    """Reads a byte of each page."""
    return int(array[::4096].sum(dtype="i8"))


def crash_at_fifty(number):
    if number == 50:
        import ctypes
        import faulthandler

        faulthandler.disable()
        ctypes.string_at(0)
    return number


def crash_at_fifty_later(number):
    """A task of 10 ms: when it crashes, the later tasks have not run yet."""
    time.sleep(0.01)
    return crash_at_fifty(number)


def worker(_=None):
    return os.getpid()


def count_words(batch):
    """Returns, for each row of a table, the number of words in a text."""
    return {"words": [len(text.split()) + text.count("i") for text in batch["note"].to_pylist()]}


def count_words_of_frame(frame):
    """Like `count_words`, for a data frame of pandas."""
    import pandas

    return pandas.DataFrame(
        {"words": [len(text.split()) + text.count("i") for text in frame["note"]]}, index=frame.index
    )


def count_rows(batch):
    return batch.num_rows
