"""Programs whose main file changes settings of libraries, on which the results of tasks depend."""

import calendar
import csv
import decimal
import importlib
import io
import locale
import logging
import socket
import sys
import xml.etree.ElementTree

import backends

def optional(name):
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


numpy, image, pandas, sklearn = map(optional, ("numpy", "PIL.ImageFile", "pandas", "sklearn"))


def change():
    sys.setrecursionlimit(2500)
    sys.set_int_max_str_digits(700)
    decimal.getcontext().prec = 6
    decimal.getcontext().rounding = decimal.ROUND_UP
    decimal.getcontext().traps[decimal.Inexact] = True
    decimal.getcontext().traps[decimal.DivisionByZero] = False
    locale.setlocale(locale.LC_ALL, "C.UTF-8")
    socket.setdefaulttimeout(3.5)
    csv.field_size_limit(999)
    calendar.setfirstweekday(3)
    logging.getLogger("quiet.one").setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.INFO)
    logging.disable(logging.DEBUG)
    logging.addLevelName(5, "TRACE")
    logging.addLevelName(logging.WARNING, "careful")
    csv.register_dialect("bars", delimiter="|", quoting=csv.QUOTE_ALL, lineterminator="\n")
    xml.etree.ElementTree.register_namespace("", "http://www.w3.org/2000/svg")
    xml.etree.ElementTree.register_namespace("mine", "http://example.org/mine")
    if numpy:
        numpy.seterr(divide="raise", under="warn")
        numpy.set_printoptions(precision=2, suppress=True, threshold=5)
    if image:
        image.LOAD_TRUNCATED_IMAGES = True
        image.Image.MAX_IMAGE_PIXELS = None
    if pandas:
        pandas.set_option("display.precision", 2)
        pandas.options.display.max_rows = 4
        pandas.set_option("display.float_format", None)
    if sklearn:
        sklearn.set_config(assume_finite=True, transform_output="pandas")


# Not in the process that draws programs. `spawn` runs this file under another name.
if __name__ in ("__main__", "__mp_main__"):
    change()


def depth(left=2000):
    return 0 if left == 0 else 1 + depth(left - 1)


def digits():
    return int("1" * 800)


def third():
    with decimal.localcontext() as context:
        context.traps[decimal.Inexact] = False
        return decimal.Decimal(1) / 3, decimal.Decimal(1) / 0


def inexact():
    return decimal.Decimal(1) / 3


def locales():
    return locale.setlocale(locale.LC_ALL), locale.setlocale(locale.LC_NUMERIC)


def limits():
    return socket.getdefaulttimeout(), csv.field_size_limit(), calendar.firstweekday(), sys.getrecursionlimit()


def levels():
    found = [logging.getLogger(name) for name in ("quiet.one", "quiet", "quiet.one.inner", "other")]
    enabled = [[one.isEnabledFor(level) for level in (logging.WARNING, logging.DEBUG)] for one in found]
    return [one.getEffectiveLevel() for one in found], enabled


def level_names():
    return [logging.getLevelName(level) for level in (5, 10, 25, 30, 40, "TRACE", "WARNING", "careful")]


def dialects():
    file = io.StringIO()
    csv.writer(file, "bars").writerow([1, "a"])
    return file.getvalue(), list(csv.reader(["a|b"], "bars")), csv.list_dialects()


def namespaces():
    tree = xml.etree.ElementTree.Element("{http://www.w3.org/2000/svg}svg", {"{http://example.org/mine}a": "1"})
    return xml.etree.ElementTree.tostring(tree)


def frames():
    return str(pandas.DataFrame({"a": [n / 7 for n in range(9)]})), pandas.get_option("display.max_rows")


def configuration():
    return sklearn.get_config()


def week():
    return calendar.weekheader(2)


def divide():
    return numpy.float64(1) / numpy.zeros(2)


def shown():
    return str(numpy.arange(10) / 3), repr(numpy.array([1e-9, 2 / 3]))


def pixels():
    return image.LOAD_TRUNCATED_IMAGES, image.Image.MAX_IMAGE_PIXELS


PROGRAMS = [depth, digits, third, inexact, locales, limits, levels, level_names, dialects, namespaces, week]
PROGRAMS += [divide, shown] if numpy else []
PROGRAMS += [pixels] if image else []
PROGRAMS += [frames] if pandas else []
PROGRAMS += [configuration] if sklearn else []
TASKS = {f"settings: {program.__name__}": program for program in PROGRAMS}

names, programs = backends.of_tasks(TASKS)

if __name__ == "__main__":
    backends.main(programs)
