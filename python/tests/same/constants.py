"""Objects that `identity` imports, and functions that use them here."""

import contextvars
import threading

UNSET = object()
VARIABLE = contextvars.ContextVar("VARIABLE", default=0)
LOCK = threading.Lock()
LOCAL = threading.local()


class Missing:
    def __repr__(self):
        return "MISSING"


MISSING = Missing()


class Field:
    def __init__(self, default=MISSING):
        self.default = default


def value_of_variable():
    return VARIABLE.get()


def is_locked():
    return LOCK.locked()


def value_of_local():
    return getattr(LOCAL, "value", None)
