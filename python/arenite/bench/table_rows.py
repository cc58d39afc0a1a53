"""Rows about tables, compared with libraries that read the same files in one process."""

import importlib.util
import multiprocessing
import os
import tempfile

from . import work
from .row import Goal, Row, check, timed

ALL_BUT_ARENITE = ("pool", "ppe", "loky", "pebble", "threads", "ray", "dask")
HEADER = b"id,price,quantity,time,kind,note\n"


def block():
    """Returns 20,000 rows of six columns, some with line breaks in quotes."""
    import random

    chance = random.Random(1)
    lines = []
    for row in range(20_000):
        day, second = chance.randrange(28) + 1, chance.randrange(60)
        note = f"plain {row}"
        if row % 10 == 0:
            note = f'"note {row},\nline ""two"""'
        elif row % 3 == 0:
            note = f'"item {row}"'
        lines.append(
            f"{chance.randrange(10**6)},{chance.random() * 100:.4f},{chance.randrange(100)},"
            f"2024-01-{day:02} 10:20:{second:02},{'ABCDE'[row % 5]},{note}\n"
        )
    return "".join(lines).encode(), len(lines)


class Tables(Row):
    """A row with `size` bytes of CSV; a tenth of that with `--quick`."""

    unit, needs, without = "ms", ("pyarrow", "numpy"), ALL_BUT_ARENITE
    size = 400 << 20
    rounds = 7

    def prepare(self):
        self.folder = tempfile.TemporaryDirectory(prefix="arenite-bench-")
        self.path = os.path.join(self.folder.name, "a.csv")
        data, rows = block()
        times = (self.size // 10 if self.is_quick else self.size) // len(data)
        with open(self.path, "wb") as file:
            file.write(HEADER)
            for _ in range(times):
                file.write(data)
        self.rows = times * rows

    def finish(self):
        self.folder.cleanup()

    def run(self, function, *arguments):
        seconds, table = timed(function, *arguments)
        check(len(table) == self.rows, "rows")
        return seconds * 1e3

    def read(self, system):
        import arenite

        return arenite.read_csv(self.path, executor=system.executor)


class Csv(Tables):
    name, title = "csv-400mb", "CSV with line breaks in quotes into memory: 400 MB, with --quick 40"
    goals = [Goal("<=", 1.05, "polars"), Goal("<=", 0.8, "pyarrow"), Goal("<=", 0.8, "duckdb")]

    def sample(self, system):
        return self.run(self.read, system)

    def baselines(self):
        def polars():
            import polars

            return self.run(polars.read_csv, self.path)

        def pyarrow():
            from pyarrow import csv

            options = csv.ParseOptions(newlines_in_values=True)
            return self.run(lambda: csv.read_csv(self.path, parse_options=options))

        def duckdb():
            import duckdb

            return self.run(lambda: duckdb.read_csv(self.path).to_arrow_table())

        return {"polars": polars, "pyarrow": pyarrow, "duckdb": duckdb}


class Parquet(Tables):
    name, title = "parquet", "the same as Parquet into memory"
    goals = [Goal("<=", 1.3, "polars")]

    def prepare(self):
        super().prepare()
        from pyarrow import csv, parquet

        table = csv.read_csv(self.path, parse_options=csv.ParseOptions(newlines_in_values=True))
        os.unlink(self.path)
        self.path = os.path.join(self.folder.name, "a.parquet")
        parquet.write_table(table, self.path, row_group_size=1 << 18)

    def sample(self, system):
        import arenite

        return self.run(lambda: arenite.read_parquet(self.path, executor=system.executor))

    def baselines(self):
        def polars():
            import polars

            return self.run(polars.read_parquet, self.path)

        def pyarrow():
            from pyarrow import parquet

            return self.run(parquet.read_table, self.path)

        return {"polars": polars, "pyarrow": pyarrow}


class MapBatches(Tables):
    name, title = "map-batches", "a Python function on all rows of a table in memory: 400 MB of CSV, with --quick 40"
    goals = [
        Goal("<=", 1 / 0.95, "two processes, results not sent"),
        Goal("<=", 1 / 1.8, "one process"),
        Goal("<=", 1 / 2, "Dask dataframe"),
    ]
    rounds = 3

    def begin(self, system):
        self.table = self.read(system)

    def sample(self, system):
        return self.run(self.table.map_batches, work.count_words)

    def end(self, system):
        del self.table

    def baselines(self):
        def one_process():
            import pyarrow

            batches = self.table.to_batches()
            return self.run(lambda: pyarrow.concat_tables([pyarrow.table(work.count_words(one)) for one in batches]))

        def two_processes():
            """Each of two processes does half of the work and keeps its results: the limit of this machine."""
            batches = self.table.to_batches()
            context = multiprocessing.get_context("fork")
            halves = batches[::2], batches[1::2]
            processes = [context.Process(target=count_all_words, args=(half,)) for half in halves]

            def both():
                for process in processes:
                    process.start()
                for process in processes:
                    process.join()
                check([process.exitcode for process in processes] == [0, 0], "exit codes")

            return timed(both)[0] * 1e3

        found = {"one process": one_process, "two processes, results not sent": two_processes}
        if importlib.util.find_spec("dask") is not None and importlib.util.find_spec("pandas") is not None:
            import dask.dataframe

            frame = dask.dataframe.from_pandas(self.table.to_pandas(), npartitions=len(self.table.parts))
            made = frame.map_partitions(work.count_words_of_frame, meta={"words": "int64"})
            found["Dask dataframe"] = lambda: self.run(lambda: made.compute(scheduler="processes", num_workers=2))
        return found


def count_all_words(batches):
    for batch in batches:
        work.count_words(batch)


class ScanMemory(Tables):
    name, title, unit = "scan", "most memory of a sum over 9 files of 400 MB (--quick: 40), compared with 1 file", "×"
    goals = [Goal("<=", 1.1)]
    rounds = 3

    def sample(self, system):
        self.peak(system, 1)
        one = self.peak(system, 1)
        return self.peak(system, 9) / one

    def peak(self, system, times):
        import arenite

        executor, peak, rows = system.executor, 0, 0
        scan = arenite.scan_csv([self.path] * times, part_bytes=4 << 20, executor=executor)
        for found in scan.map_batches(work.count_rows):
            rows += found
            stats = executor.stats()
            peak = max(peak, stats.used_bytes + sum(private_bytes(worker.pid) for worker in stats.workers))
        check(rows == times * self.rows, "rows")
        return peak


def private_bytes(pid):
    """Returns the private memory of a process: neither files nor shared memory."""
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))


ROWS = (Csv, Parquet, MapBatches, ScanMemory)
