"""Pickles as a worker could send them that hostile code has taken over: programs of allowed opcodes that fit together,
with numbers at the limits of each type, values in many places, deep ones, and keys that collide.

`python plain_pickles.py SEED FIRST LAST MARK` reads those of these numbers, within limits of memory, stack and time.
The number under way is in the file MARK.
"""

import io
import os
import pickle
import random
import re
import resource
import struct
import sys

#: A prime: the hash of an integer is its remainder.
MODULUS = (1 << 61) - 1
NUMBERS = [0, 1, -1, 2, 100, 255, 1 << 16, 1 << 31, (1 << 31) - 1, 1 << 32, 1 << 62, (1 << 63) - 1, 1 << 63, 10**12, 10**30]
TEXTS = [
    "", "a", "text", "1e999999999", "-0", "1/3", "1" * 5000, "\x1b[2J", "\u202e", "\x9b", "\u2028", "ä", "😀" * 50,
    "\ud800", "x" * 1000, "<f8", "|V0", "|S3", "<U4", "(2000000000)f8", "<M8[ns]", "|b1", "f8,f8", "ValueError", "builtins",
    "__notes__", "name", "C", "F", "utf-8",
]  # fmt: skip
BUILTINS = [
    "ValueError", "KeyError", "OSError", "ExceptionGroup", "SyntaxError", "UnicodeDecodeError", "UnicodeEncodeError",
    "UnicodeTranslateError", "ImportError", "StopIteration", "SystemExit", "AttributeError", "NameError", "exec", "Warning",
]  # fmt: skip


class Program:
    """A random program that leaves one value on the stack."""

    def __init__(self, chance):
        self.chance = chance
        self.out = bytearray(b"\x80\x05")
        #: For each entry of the memo, whether it may be a key.
        self.memo = []
        self.left = chance.choice([5, 20, 60, 300])

    def write(self, *parts):
        for part in parts:
            self.out += part

    def note(self, is_key):
        if self.chance.random() < 0.5:
            self.write(b"\x94")
            self.memo.append(is_key)

    def refer(self, number):
        self.write(b"h" + bytes([number]) if number < 256 else b"j" + number.to_bytes(4, "little"))

    def text(self, text):
        data = text.encode("utf-8", "surrogatepass")
        self.write(b"X", len(data).to_bytes(4, "little"), data)

    def integer(self, number):
        data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        if len(data) < 256:
            self.write(b"\x8a", bytes([len(data)]), data)
        else:
            self.write(b"\x8b", len(data).to_bytes(4, "little"), data)

    def number(self):
        chance = self.chance
        kind = chance.randrange(6)
        if kind == 0:
            return chance.choice(NUMBERS)
        if kind == 1:
            return -chance.choice(NUMBERS) + chance.randrange(-2, 3)
        if kind == 2:
            return chance.randrange(1000) * MODULUS
        if kind == 3:
            return chance.randrange(1 << 16) << chance.choice([8, 20, 40, 60])
        if kind == 4:
            return chance.getrandbits(chance.choice([8, 64, 300, 20_000]))
        return chance.randrange(256)

    def atom(self):
        chance = self.chance
        kind = chance.randrange(8)
        if kind < 3:
            self.integer(self.number())
        elif kind == 3:
            self.write(b"G", struct.pack(">d", chance.choice([0.0, -0.0, 1e300, -1e-300, float("inf"), 2.0**-1070, 0.5])))
        elif kind == 4:
            self.write(chance.choice([b"N", b"\x88", b"\x89", b")"]))
        elif kind == 5:
            data = chance.randbytes(chance.choice([0, 1, 8, 64, 200]))
            self.write(b"C", bytes([len(data)]), data)
        else:
            self.text(chance.choice(TEXTS))

    def key(self, depth):
        """A value that has a hash."""
        chance = self.chance
        self.left -= 1
        known = [number for number, is_key in enumerate(self.memo) if is_key]
        kind = chance.randrange(12)
        if kind == 0 and known:
            self.refer(chance.choice(known))
        elif kind == 1 and self.left > 0 and depth < 8:
            count = chance.randrange(4)
            self.write(b"(")
            for _ in range(count):
                self.key(depth + 1)
            self.write(chance.choice([b"t", b"\x91"]))
            self.note(True)
        elif kind == 2 and chance.random() < 0.1:
            self.key(depth + 1)
            self.write(b"\x85" * chance.choice([1, 50, 99, 150, 5000]))
        elif kind == 3 and chance.random() < 0.3:
            self.key(depth + 1)
            for _ in range(chance.choice([3, 6, 40, 70])):
                self.write(b"\x94")
                self.memo.append(True)
                self.refer(len(self.memo) - 1)
                self.write(b"\x86")
        elif kind == 4 and self.left > 0:
            self.call(depth, chance.choice(["range", "Fraction", "Decimal", "timedelta", "date", "complex", "_scalar"]))
        else:
            self.atom()

    def value(self, depth=0):
        chance = self.chance
        self.left -= 1
        kind = chance.randrange(10) if self.left > 0 and depth < 30 else 9
        if kind == 0:
            self.write(b"]")
            self.note(False)
            for _ in range(chance.choice([0, 1, 2, 5])):
                self.value(depth + 1)
                self.write(b"a")
        elif kind == 1:
            self.write(b"]")
            self.note(False)
            self.write(b"(")
            for _ in range(chance.choice([0, 1, 5, 20])):
                self.value(depth + 1)
            self.write(b"e")
        elif kind == 2:
            self.write(b"}")
            self.note(False)
            self.write(b"(")
            for _ in range(chance.choice([0, 1, 3, 10])):
                self.key(depth + 1)
                self.value(depth + 1)
            self.write(b"u")
        elif kind == 3:
            self.write(b"\x8f")
            self.note(False)
            self.write(b"(")
            self.keys(depth)
            self.write(b"\x90")
        elif kind == 4:
            self.write(b"(")
            for _ in range(chance.choice([0, 2, 4])):
                self.value(depth + 1)
            self.write(b"t")
            self.note(False)
        elif kind == 5:
            self.call(depth, chance.choice(list(CALLS)))
        elif kind == 6 and self.memo:
            self.refer(chance.randrange(len(self.memo)))
        elif kind == 8 and chance.random() < 0.1:
            # Not as a key: its hash is its address.
            self.write(b"G", struct.pack(">d", float("nan")))
        elif kind == 7 and chance.random() < 0.1:
            self.write(b"]" * (levels := chance.choice([10, 98, 150, 3000])), b"a" * (levels - 1))
        else:
            self.key(depth + 1)

    def keys(self, depth):
        chance = self.chance
        if chance.random() < 0.05:
            factor = chance.choice([1, MODULUS, MODULUS * 8, 1 << 32, 1 << 61])
            for number in range(chance.choice([30, 100, 500])):
                self.integer(number * factor)
        else:
            for _ in range(chance.choice([0, 1, 5, 20])):
                self.key(depth + 1)

    def call(self, depth, name):
        module, arguments, filled = CALLS[name]
        self.text(module)
        self.text(name)
        self.write(b"\x93")
        if self.chance.random() < 0.1:
            arguments = self.chance.choice(["", "k", "vv", "vvvv", "s", "ii"])
        self.write(b"(")
        for kind in arguments:
            self.argument(kind, depth)
        self.write(b"tR")
        self.note(False)
        if filled == "a":
            self.value(depth + 1)
            self.write(b"a")
        elif filled == "s":
            self.key(depth + 1)
            self.value(depth + 1)
            self.write(b"s")

    def argument(self, kind, depth):
        chance = self.chance
        if kind == "i":
            self.integer(self.number())
        elif kind == "f":
            self.write(b"G", struct.pack(">d", chance.uniform(-9, 9)))
        elif kind == "s":
            self.text(chance.choice(TEXTS))
        elif kind == "b":
            data = chance.randbytes(chance.choice([0, 4, 6, 10, 16, 64]))
            self.write(b"C", bytes([len(data)]), data)
        elif kind == "d":
            self.describe(0)
        elif kind == "n":
            self.text(chance.choice(["builtins", "arenite._errors", "os"]))
            self.text(chance.choice(BUILTINS))
        elif kind == "t":
            self.write(b"(")
            for _ in range(chance.randrange(6)):
                chance.choice([self.value, self.key])(depth + 1)
            self.write(b"t")
        elif kind == "p":
            self.write(b"(")
            for _ in range(chance.randrange(4)):
                self.integer(chance.choice([0, 1, 2, 3, 5, 8, -8, 1 << 20, 1 << 33, 1 << 61, 1 << 62, 1 << 63]))
            self.write(b"t")
        elif kind == "m":
            self.write(b"}")
            if chance.random() < 0.5:
                self.text(chance.choice(["__notes__", "name", "limit"]))
                self.value(depth + 1)
                self.write(b"s")
        elif kind == "k":
            self.key(depth + 1)
        elif kind == "o":
            self.text(chance.choice("CF")) if chance.random() < 0.5 else self.write(b"N")
        else:
            self.value(depth + 1)

    def describe(self, depth):
        chance = self.chance
        if depth > 40 or chance.random() < 0.6:
            self.text(chance.choice(["<f8", "|u1", "<U2", "|S0", "|V0", "<i4", "O", "|O", "f8,f8", "(9)f8", "<M8[D]", "|V9"]))
            return
        self.write(b"](")
        for number in range(chance.randrange(1, 3)):
            self.write(b"(")
            self.text(f"f{number}")
            self.describe(depth + chance.choice([1, 1, 20]))
            if chance.random() < 0.3:
                self.argument("p", depth)
            self.write(b"t")
        self.write(b"e")


#: Functions that may be called: their module, the kinds of their arguments, and how their object is filled.
CALLS = {
    "complex": ("builtins", "ff", ""),
    "range": ("builtins", "iii", ""),
    "slice": ("builtins", "vvv", ""),
    "Counter": ("collections", "", "s"),
    "OrderedDict": ("collections", "", "s"),
    "deque": ("collections", "", "a"),
    "date": ("datetime", "b", ""),
    "datetime": ("datetime", "b", ""),
    "time": ("datetime", "b", ""),
    "timedelta": ("datetime", "iii", ""),
    "timezone": ("datetime", "k", ""),
    "Decimal": ("decimal", "s", ""),
    "Fraction": ("fractions", "ii", ""),
    "_array": ("arenite._core.plain", "bdpopi", ""),
    "_scalar": ("arenite._core.plain", "bd", ""),
    "_exception": ("arenite._core.plain", "ntm", ""),
    "Raised": ("arenite._core.raised", "sb", ""),
}


def generate(seed, number):
    program = Program(random.Random(f"{seed} {number}"))
    program.value()
    return bytes(program.out) + b"."


class Reference(pickle.Unpickler):
    """The unpickler of Python, with the functions of the reader under test."""

    def find_class(self, module, name):
        from arenite._core import plain

        return plain._MAKERS[module, name][0]


def shown(value):
    try:
        # Without addresses.
        return re.sub(" at 0x[0-9a-f]+", "", repr(value))
    except (MemoryError, RecursionError, SystemError):
        raise
    except Exception as error:
        return type(error).__name__


def read(data):
    """Reads a pickle, and uses its value. Returns whether there was one."""
    from arenite._core import plain

    try:
        value = plain.load(data)
    except (MemoryError, RecursionError, SystemError):
        raise
    except Exception:
        return False
    text = shown(value)
    other = Reference(io.BytesIO(data)).load()
    theirs = shown(other)
    # The members of a set are in the order of their hashes, and the hash of a NaN or an error is its address.
    is_same = theirs == text or ("{" in text and sorted(theirs) == sorted(text))
    assert type(other) is type(value) and is_same, (text[:200], theirs[:200])
    try:
        hash(value)
    except (TypeError, ValueError):
        pass
    return True


def main(seed, first, last, mark):
    import numpy  # noqa: F401

    import arenite._core.plain  # noqa: F401

    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    values = 0
    file = os.open(mark, os.O_WRONLY)
    for number in range(int(first), int(last)):
        os.pwrite(file, number.to_bytes(8, "little"), 0)
        values += read(generate(seed, number))
    print(values)


if __name__ == "__main__":
    main(*sys.argv[1:])
