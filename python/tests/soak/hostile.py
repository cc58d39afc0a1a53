"""What a hostile worker makes this program unpickle: it notes the thread in which that happens."""

import threading

seen = []


def note(token):
    seen.append((token, threading.current_thread().name))
    return token
