"""A main file that changes settings of libraries, on which the results of tasks depend. On fork and spawn."""

import calendar
import csv
import decimal
import importlib
import locale
import logging
import socket
import sys

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


change()


def depth():
    "the limit of recursion"

    def down(left):
        return 0 if left == 0 else 1 + down(left - 1)

    return down(2000)


def digits():
    "the limit of digits of a number"
    return int("1" * 800)


def third():
    "precision and rounding of decimals"
    with decimal.localcontext() as context:
        context.traps[decimal.Inexact] = False
        return decimal.Decimal(1) / 3, decimal.Decimal(1) / 0


def inexact():
    "traps of decimals"
    return decimal.Decimal(1) / 3


def locales():
    "the locale"
    return locale.setlocale(locale.LC_ALL), locale.setlocale(locale.LC_NUMERIC)


def limits():
    "limits of sockets, of csv and of recursion"
    return socket.getdefaulttimeout(), csv.field_size_limit(), calendar.firstweekday(), sys.getrecursionlimit()


def levels():
    "levels of loggers"
    found = [logging.getLogger(name) for name in ("quiet.one", "quiet", "quiet.one.inner", "other")]
    enabled = [[one.isEnabledFor(level) for level in (logging.WARNING, logging.DEBUG)] for one in found]
    return [one.getEffectiveLevel() for one in found], enabled


def frames():
    "options of pandas"
    return str(pandas.DataFrame({"a": [n / 7 for n in range(9)]})), pandas.get_option("display.max_rows")


def configuration():
    "the configuration of scikit-learn"
    return sklearn.get_config()


def week():
    "the first day of the week"
    return calendar.weekheader(2)


def divide():
    "how numpy takes a division by zero"
    return numpy.float64(1) / numpy.zeros(2)


def shown():
    "how numpy prints"
    return str(numpy.arange(10) / 3), repr(numpy.array([1e-9, 2 / 3]))


def pixels():
    "limits of Pillow"
    return image.LOAD_TRUNCATED_IMAGES, image.Image.MAX_IMAGE_PIXELS


NEEDS = {"pixels": image, "frames": pandas, "configuration": sklearn, "divide": numpy, "shown": numpy}
for name, module in NEEDS.items():
    if module is None:
        del globals()[name]


if __name__ == "__main__":
    backends.run(globals())
