"""Sums up a column of CSV files by the values of another one. The files may be larger than memory.

    python examples/python/partitions.py KEY COLUMN FILE…

FILE is a file, a folder or a pattern. A part that cannot be read is named on the error output, and the others count.
Needs pyarrow.
"""

import collections
import sys

import arenite
import pyarrow as pa


def sums(batch, key, column):
    """In a worker: the sums of one part. What is sent back is small."""
    grouped = pa.Table.from_batches([batch]).group_by(key).aggregate([(column, "sum")])
    return list(zip(grouped[key].to_pylist(), grouped[f"{column}_sum"].to_pylist()))


def main():
    if len(sys.argv) < 4:
        sys.exit("usage: partitions.py KEY COLUMN FILE…")
    key, column, *files = sys.argv[1:]
    totals = collections.Counter()
    failures = 0
    # A part that hangs is ended, too.
    with arenite.Executor(preload="arenite.tables") as ex:
        try:
            parts = arenite.scan_csv(files, executor=ex.options(deadline=60)).map_batches(sums, key, column)
        except arenite.TableError as error:
            sys.exit(str(error))
        while True:
            try:
                for value, total in next(parts):
                    totals[value] += total or 0
            except StopIteration:
                break
            except arenite.TableError as error:
                failures += 1
                print(error, file=sys.stderr)
    for value, total in totals.most_common():
        print(f"{total:.1f}", *str(value).split())
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
