"""Tables: rows do not depend on workers and parts, odd files give a right table or an error that says where, a crash
costs one part, and other libraries read the parts in place."""

import gc
import gzip
import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import types

import arenite
import harness
import in_sandbox
import pytest

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")
csv = pytest.importorskip("pyarrow.csv")
pq = pytest.importorskip("pyarrow.parquet")

from arenite.tables import cut  # noqa: E402

# pyarrow opens a pipe for signals when it is first used.
csv.read_csv(pa.py_buffer(b"n\n1\n"))


def die_at_mark():
    """Makes the parsers of a worker end it where the text DIE is, as a bug in them would."""
    parse = csv.read_csv

    def read_csv(source, *args, **options):
        data = source.getvalue() if hasattr(source, "getvalue") else source.read()
        if b"DIE" in bytes(data):
            os.kill(os.getpid(), signal.SIGSEGV)
        return parse(pa.BufferReader(data), *args, **options)

    csv.read_csv = read_csv


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(2, preload="arenite.tables") as ex:
        yield ex


@pytest.fixture(scope="module", params=[0, 1, 2, 3])
def any_executor(request):
    with arenite.Executor(request.param, preload="arenite.tables") as ex:
        yield ex


def options():
    """How pyarrow reads what arenite does."""
    return {
        "parse_options": csv.ParseOptions(newlines_in_values=True),
        "convert_options": csv.ConvertOptions(
            null_values=[""], strings_can_be_null=True, quoted_strings_can_be_null=True
        ),
    }


def rows(table):
    return table.to_pyarrow().to_pylist()


# ---- rows

CSV = (
    'id,price,note\r\n1,1.5,"a, b"\r\n2,,"line one\nline ""two"""\n\n3,2.5,5" pipe""\n4,-1,""\n5,7,"\n"\n'
    '6,8.25,"x""\n,""y"\n7,9,'
    'häßlich"x\n8,1e3,"tail"'
)


@pytest.mark.parametrize("text", [CSV, CSV + "\n", CSV.replace("\r\n", "\n"), "\ufeff" + CSV.replace("\n", "\r\n")])
def test_rows_do_not_depend_on_workers_and_parts(tmp_path, any_executor, text):
    path = tmp_path / "a.csv"
    path.write_bytes(text.encode())
    whole = csv.read_csv(path, **options())
    assert len(whole) == 8
    for part_bytes in [*range(1, 30), len(text.encode()) - 1, 1 << 20, None]:
        table = arenite.read_csv(path, part_bytes=part_bytes, executor=any_executor)
        assert table.to_pyarrow().equals(whole), part_bytes
        assert part_bytes != 1 or len(table.parts) >= 8
        # The parts are bytes of the file, one behind the other.
        places = [part.origin.bytes for part in table.parts]
        assert [place.start for place in places[1:]] == [place.stop for place in places[:-1]]
        assert places[-1].stop == path.stat().st_size


def test_random_quotes_and_line_breaks(tmp_path, executor):
    chance = random.Random(7)
    path = tmp_path / "a.csv"
    for _ in range(15):
        cells = ["", "1", "ab", '"', '""', "\n", ",", "\r\n", 'x"y', "é"]
        lines = []
        for _ in range(chance.randint(1, 12)):
            fields = []
            for _ in range(3):
                text = "".join(chance.choices(cells, k=chance.randint(0, 4)))
                bare = not set(text) & set(",\r\n") and not text.startswith('"') and chance.random() < 0.6
                fields.append(text if bare else '"' + text.replace('"', '""') + '"')
            lines.append(",".join(fields))
        path.write_bytes(("a,b,c\n" + "\n".join(lines) + chance.choice(["", "\n"])).encode())
        schema = pa.schema([("a", "string"), ("b", "string"), ("c", "string")])
        text = {**options()}
        text["convert_options"].column_types = schema
        whole = csv.read_csv(path, **text)
        for part_bytes in (1, 3, chance.randint(4, 40)):
            table = arenite.read_csv(path, part_bytes=part_bytes, schema=schema, executor=executor)
            assert table.to_pyarrow().equals(whole), (part_bytes, path.read_bytes())


def states_one_by_one(data, delimiter, state, before):
    """The state machine of `cut`, without any haste."""
    kept = []
    for at, byte in enumerate(data):
        if state == cut.QUOTED:
            if byte == cut.QUOTE:
                state = cut.CLOSING
                kept.append(at)
        elif state == cut.CLOSING and byte == cut.QUOTE:
            state = cut.QUOTED
            kept.append(at)
        elif byte == cut.QUOTE and before in (delimiter, cut.NEWLINE, cut.RETURN):
            state = cut.QUOTED
            kept.append(at)
        else:
            state = cut.OUTSIDE
        before = byte
    return kept, state


def test_quotes_are_those_of_the_state_machine():
    chance = random.Random(3)
    for _ in range(5000):
        alphabet = chance.choice([b'",\nx', b'"x', b'""",\r\nxx', b'x"\n'])
        data = bytes(chance.choices(alphabet, k=chance.randint(0, chance.choice([5, 40, 200]))))
        state, before = chance.choice(cut.STATES), chance.choice(b'",\nx')
        if state == cut.CLOSING:
            before = cut.QUOTE
        found, behind = cut.quotes(cut.view(data), ord(","), state, before)
        assert (found.tolist(), behind) == states_one_by_one(data, ord(","), state, before), (data, state, before)


def test_blocks_of_a_survey_are_chained(monkeypatch):
    chance = random.Random(4)
    monkeypatch.setattr(cut, "BLOCK", 3)
    for _ in range(300):
        data = bytes(chance.choices(b'"",\nx', k=chance.randint(1, 30)))
        blocks = [cut.view(data[at : at + 3]) for at in range(0, len(data), 3)]
        behind = cut.states_behind(blocks, ord(","), ord("x"))
        assert behind[:2] == [states_one_by_one(data, ord(","), state, ord("x"))[1] for state in cut.STATES[:2]]
        found, _ = states_one_by_one(data, ord(","), cut.OUTSIDE, cut.NEWLINE)
        ends = [at + 1 for at, byte in enumerate(data) if byte == cut.NEWLINE and sum(f < at for f in found) % 2 == 0]
        assert cut.first_end(cut.view(data), ord(",")) == (ends[0] if ends else None)
        assert cut.last_end(cut.view(data), ord(",")) == (ends[-1] if ends else None)


def test_order_of_files_and_their_column(tmp_path, executor):
    (tmp_path / "in").mkdir()
    for name, number in [("b.csv", 2), ("a.csv", 1), ("in/c.csv", 3), (".hidden", 9), ("_temporary", 9)]:
        (tmp_path / name).write_text(f"n\n{number}\n")
    folder = arenite.read_csv(tmp_path, file_column="file", executor=executor)
    assert [row["n"] for row in rows(folder)] == [1, 2, 3]
    assert [os.path.relpath(row["file"], tmp_path) for row in rows(folder)] == ["a.csv", "b.csv", "in/c.csv"]
    assert [row["n"] for row in rows(arenite.read_csv(f"{tmp_path}/*.csv", executor=executor))] == [1, 2]
    listed = arenite.read_csv([tmp_path / "in/c.csv", f"{tmp_path}/[ab].csv"], executor=executor)
    assert [row["n"] for row in rows(listed)] == [3, 1, 2]
    with pytest.raises(arenite.TableError, match="themselves"):
        arenite.read_csv(tmp_path, file_column="n", executor=executor)
    for nothing in (f"{tmp_path}/*.txt", f"{tmp_path}/none.csv", []):
        with pytest.raises(arenite.TableError, match="o such file|list of files is empty"):
            arenite.read_csv(nothing, executor=executor)


def test_json_and_parquet(tmp_path, any_executor):
    whole = pa.table(
        {"n": range(100), "text": [f"é{n}" if n % 3 else None for n in range(100)], "many": [[n] for n in range(100)]}
    )
    with open(tmp_path / "a.json", "w") as file:
        file.writelines(
            json.dumps(row, ensure_ascii=False) + "\n\n" * (row["n"] % 2) + "\n" for row in whole.to_pylist()
        )
    for part_bytes in (1, 50, 333, None):
        table = arenite.read_json(tmp_path / "a.json", part_bytes=part_bytes, executor=any_executor)
        assert rows(table) == whole.to_pylist()
    pq.write_table(whole, tmp_path / "a.parquet", row_group_size=30)
    table = arenite.read_parquet(tmp_path / "a.parquet", executor=any_executor)
    assert table.to_pyarrow().equals(whole) and len(table.parts) == 4
    assert str(table.parts[1].origin) == f"{tmp_path}/a.parquet, row group 1 (rows 30..60)"


# ---- columns and types


def test_by_name(tmp_path, executor):
    (tmp_path / "a.csv").write_text("x,y\n1,a\n")
    (tmp_path / "b.csv").write_text("z,x\n2.5,2\n")
    with pytest.raises(
        arenite.TableError, match=r'b.csv, bytes 4..10, column "z": column 1 is "z" in this file and "x"'
    ):
        arenite.read_csv(tmp_path, executor=executor)
    table = arenite.read_csv(tmp_path, by_name=True, executor=executor)
    assert rows(table) == [{"x": 1, "y": "a", "z": None}, {"x": 2, "y": None, "z": 2.5}]
    (tmp_path / "c.csv").write_text("x\nthree\n")
    with pytest.raises(
        arenite.TableError, match=r'c.csv, column "x": it is string in this file and int64 in those before'
    ):
        arenite.read_csv(tmp_path, by_name=True, executor=executor)
    table = arenite.read_csv(tmp_path, by_name=True, widen=True, executor=executor)
    assert [row["x"] for row in rows(table)] == ["1", "2", "three"]
    (tmp_path / "c.csv").unlink()
    (tmp_path / "d.csv").write_text("x,x\n1,2\n")
    with pytest.raises(arenite.TableError, match='two columns have the name "x"'):
        arenite.read_csv(tmp_path, by_name=True, executor=executor)


def test_a_cell_that_does_not_fit(tmp_path, any_executor):
    lines = [f"{n},{n}.5,t{n}" for n in range(1, 2001)]
    lines[1499] = "1500,n/a,t"
    path = tmp_path / "a.csv"
    path.write_text("id,price,text\n" + "\n".join(lines) + "\n")
    for part_bytes in (300, 5000, None):
        with pytest.raises(arenite.TableError) as raised:
            arenite.read_csv(path, part_bytes=part_bytes, executor=any_executor)
        error = raised.value
        assert str(error).startswith(f'{path}, row 1500, column "price": "n/a" is not double; pass types= or schema='), error
        assert (error.file, error.row, error.column) == (str(path), 1500, "price")
        assert error.bytes.start < path.read_bytes().index(b"n/a") < error.bytes.stop
    table = arenite.read_csv(path, widen=True, part_bytes=5000, executor=any_executor)
    assert len(table) == 2000 and table.schema.field("price").type == pa.string()
    assert table.to_pyarrow()["price"][:2].to_pylist() == ["1.5", "2.5"]
    schema = pa.schema([("id", "string"), ("price", "string"), ("text", "string")])
    assert len(arenite.read_csv(path, schema=schema, executor=any_executor)) == 2000
    report = arenite.read_csv(path, part_bytes=300, errors="report", executor=any_executor)
    assert [failure.row for failure in report.failures] == [1500]
    assert 1950 < len(report) < 2000
    assert "1 failed" in repr(report)


def test_integers_widen_to_floats(tmp_path, executor):
    path = tmp_path / "a.csv"
    path.write_text("n\n" + "1\n" * 1000 + "2.5\n")
    with pytest.raises(arenite.TableError, match='row 1001, column "n": "2.5" is not int64'):
        arenite.read_csv(path, executor=executor)
    table = arenite.read_csv(path, widen=True, executor=executor)
    assert table.schema.field("n").type == pa.float64()
    assert table.to_pyarrow()["n"].to_pylist() == [1.0] * 1000 + [2.5]


@pytest.mark.parametrize(
    ("text", "row", "words"),
    [
        (b"a,b\n1,2\n3\n4,5\n", 2, "1 field instead of 2"),
        (b"a,b\n1,2\n\n3,4,5\n", 2, "3 fields instead of 2"),
        (b'a,b\n1,2\n3,"4\n5,6\n', 2, "ends inside the quotes"),
        (b"a,b\n1,x\n2,\xff\n", 2, "not UTF-8"),
    ],
)
def test_broken_rows(tmp_path, executor, text, row, words):
    path = tmp_path / "a.csv"
    path.write_bytes(text)
    for part_bytes in (1, 5, None):
        with pytest.raises(arenite.TableError, match=f"{path}, row {row}.*{words}") as raised:
            arenite.read_csv(path, part_bytes=part_bytes, executor=executor)
        assert raised.value.row == row
    schema = pa.schema([("a", "int64"), ("b", "string")])
    for part_bytes in (1, 5, None):
        with pytest.raises(arenite.TableError, match=f"{path}, row {row}.*{words}"):
            arenite.read_csv(path, part_bytes=part_bytes, schema=schema, executor=executor)


def test_rows_behind_a_part_that_failed_are_counted(tmp_path, executor):
    path = tmp_path / "a.csv"
    path.write_text("n\n1\nx\n3\n4\ny\n6\n")
    report = arenite.read_csv(path, schema={"n": "int64"}, part_bytes=4, errors="report", executor=executor)
    assert [(failure.row, failure.column) for failure in report.failures] == [(2, "n"), (5, "n")]


def test_json_that_does_not_fit(tmp_path, executor):
    path = tmp_path / "a.json"
    path.write_text('{"n": 1}\n' * 1500 + '{"n": "x"}\n')
    for widen in (False, True):
        # There is no type that holds both.
        with pytest.raises(arenite.TableError, match='row 1501, column "n": .*changed from number to string'):
            arenite.read_json(path, part_bytes=1000, widen=widen, executor=executor)
    # Also where a part has one of them only.
    path.write_text('{"n": 1}\n' * 1500 + '{"n": "x"}\n' * 1500)
    with pytest.raises(arenite.TableError, match='row 1501, column "n": .*changed from number to string'):
        arenite.read_json(path, part_bytes=1000, widen=True, executor=executor)
    path.write_text('{"n": 1}\n' * 1500 + '{"n": 1.5}\n')
    with pytest.raises(arenite.TableError, match='row 1501, column "n": .*; pass types= or schema='):
        arenite.read_json(path, part_bytes=1000, executor=executor)
    assert arenite.read_json(path, widen=True, executor=executor).schema.field("n").type == pa.float64()
    path.write_text('{"n": 1}\n' * 1500 + '{"n": 1, "m": 2}\n')
    with pytest.raises(arenite.TableError, match='row 1501, column "m": the schema has no such field'):
        arenite.read_json(path, executor=executor)
    assert arenite.read_json(path, widen=True, executor=executor).schema.names == ["n", "m"]
    path.write_text('{"n": 1}\n{"n": \n')
    with pytest.raises(arenite.TableError, match="row 2: no JSON object"):
        arenite.read_json(path, executor=executor)
    path.write_text('{"day": "2024-01-01"}\n{"day": "2024-01-01T00:00:00"}\n')
    assert [row["day"] for row in rows(arenite.read_json(path, executor=executor))] == [
        "2024-01-01",
        "2024-01-01T00:00:00",
    ]


def test_json_names_the_column(tmp_path, executor):
    path = tmp_path / "a.json"
    first = '{"n": 1, "s": {"t": [true]}}\n' * 1000
    cases = [
        ('{"n": 1.5}', "n"),
        ('{"n": [1]}', "n"),
        ('{"m": 1}', "m"),
        ('{"s": 1}', "s"),
        ('{"s": {"t": [1]}}', "s"),
        ('{"s": {"u": 1}}', "s"),
        ('{"s": {"t": [{"u": 1}]}}', "s"),
        ("[1]", None),
    ]
    for last, column in cases:
        path.write_text(f"{first}{last}\n")
        for part_bytes in (100, 1 << 20):
            with pytest.raises(arenite.TableError) as raised:
                arenite.read_json(path, part_bytes=part_bytes, executor=executor)
            assert (raised.value.row, raised.value.column) == (1001, column), raised.value


@pytest.mark.parametrize(
    ("first", "last", "type", "values"),
    [
        ("1", "1.5", pa.float64(), [1.0, 1.5]),
        ("1", "9223372036854775808", pa.float64(), [1.0, 2.0**63]),
        ("null", "true", pa.bool_(), [None, True]),
        ("[1]", "[1.5]", pa.list_(pa.float64()), [[1.0], [1.5]]),
        ('{"t": 1}', '{"t": 1.5}', pa.struct({"t": pa.float64()}), [{"t": 1.0}, {"t": 1.5}]),
    ],
)
def test_json_types_widen(tmp_path, executor, first, last, type, values):
    path = tmp_path / "a.json"
    path.write_text(f'{{"n": {first}}}\n' * 1000 + f'{{"n": {last}}}\n')
    for part_bytes in (100, 1 << 20):
        table = arenite.read_json(path, widen=True, part_bytes=part_bytes, executor=executor)
        assert table.schema.field("n").type == type
        found = table.to_pyarrow()["n"].to_pylist()
        assert [found[0], found[999], found[1000]] == [values[0], values[0], values[1]]


def test_options_that_make_no_sense(tmp_path, executor):
    (tmp_path / "a.csv").write_text("a;b\n1;2\n")
    for wrong in (
        {"delimiter": '"'},
        {"delimiter": ""},
        {"part_bytes": 0},
        {"errors": "drop"},
        {"by_name": True, "header": False},
    ):
        with pytest.raises(ValueError):
            arenite.read_csv(tmp_path, executor=executor, **wrong)
    assert rows(arenite.read_csv(tmp_path, delimiter=";", executor=executor)) == [{"a": 1, "b": 2}]
    (tmp_path / "a.csv").write_text("1,x\n2,y\n")
    assert rows(arenite.read_csv(tmp_path, header=False, executor=executor))[1] == {"column_1": 2, "column_2": "y"}


# ---- odd files


def test_empty_files(tmp_path, executor):
    (tmp_path / "a.csv").write_bytes(b"")
    with pytest.raises(arenite.TableError, match="a.csv: there is no row to infer a schema from"):
        arenite.read_csv(tmp_path, executor=executor)
    (tmp_path / "b.csv").write_text("x,y\n")
    table = arenite.read_csv(tmp_path, executor=executor)
    assert len(table) == 0 and table.schema.names == ["x", "y"]
    (tmp_path / "c.csv").write_text("x,y\n\n\n")
    (tmp_path / "d.csv").write_text("x,y\na,b\n")
    assert rows(arenite.read_csv(tmp_path, executor=executor)) == [{"x": "a", "y": "b"}]
    (tmp_path / "e.csv").write_text("x,z\n")
    with pytest.raises(arenite.TableError, match='e.csv.*column 2 is "z"'):
        arenite.read_csv(tmp_path, executor=executor)
    (tmp_path / "a.json").write_bytes(b"\n")
    with pytest.raises(arenite.TableError, match="there is no row"):
        arenite.read_json(tmp_path / "a.json", executor=executor)


def test_gz(tmp_path, any_executor):
    text = "n,t\n" + "".join(f'{n},"a\n{n}"\n' for n in range(5000))
    packed = gzip.compress(text.encode())
    path = tmp_path / "a.csv.gz"
    path.write_bytes(packed)
    (tmp_path / "a.csv").write_text(text)
    whole = csv.read_csv(tmp_path / "a.csv", **options())
    for part_bytes in (1000, None):
        assert arenite.read_csv(path, part_bytes=part_bytes, executor=any_executor).to_pyarrow().equals(whole)
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(arenite.TableError, match=r"a.csv.gz: reading ended behind byte \d+: Compressed file ended"):
        arenite.read_csv(path, part_bytes=1000, executor=any_executor)
    report = arenite.read_csv(path, part_bytes=1000, errors="report", executor=any_executor)
    assert len(report.failures) == 1 and 1000 < len(report) < 5000
    assert rows(report) == whole.slice(0, len(report)).to_pylist()


def test_a_pipe_is_read_once(tmp_path, executor):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    text = "n,t\n" + "".join(f'{n},"a\n{n}"\n' for n in range(5000))
    writer = threading.Thread(target=path.write_text, args=(text,))
    writer.start()
    table = arenite.read_csv(path, part_bytes=1000, executor=executor)
    writer.join()
    assert [row["n"] for row in rows(table)] == list(range(5000)) and len(table.parts) > 10


def test_a_cut_parquet_file(tmp_path, executor):
    pq.write_table(pa.table({"n": range(1000)}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.parquet").write_bytes(whole[:length])
        with pytest.raises(arenite.TableError, match="a.parquet: no whole Parquet file"):
            arenite.read_parquet(tmp_path, executor=executor)


def test_parquet_columns_of_repeated_text(tmp_path, any_executor):
    chance = random.Random(5)
    words = ["", "a", "ä€😀", "long " * 50, None]
    rows = 5000
    few = [chance.choice(words) for _ in range(rows)]
    columns = {
        "few": pa.array(few),
        "of bytes": pa.array([word and word.encode() for word in few], pa.binary()),
        "large": pa.array(few, pa.large_string()),
        "missing": pa.array([None] * rows, pa.string()),
        "many": pa.array([f"row {row}" for row in range(rows)]),
        "dictionary": pa.array(few).dictionary_encode(),
        "lists": pa.array([[word, word] for word in few]),
        "structs": pa.array([{"few": word} for word in few]),
    }
    path = tmp_path / "a.parquet"
    for options in ({}, {"use_dictionary": False}, {"dictionary_pagesize_limit": 100}):
        pq.write_table(pa.table(columns), path, row_group_size=rows // 3, **options)
        assert arenite.read_parquet(path, executor=any_executor).to_pyarrow().equals(pq.read_table(path)), options
    twice = pa.table([columns["few"], pa.array(range(rows)), columns["of bytes"]], names=["same", "same", "same"])
    pq.write_table(twice, path)
    assert arenite.read_parquet(path, executor=any_executor).to_pyarrow().equals(twice)
    numbers = pa.table({"text": [str(row % 7) for row in range(rows)]})
    pq.write_table(numbers, path)
    table = arenite.read_parquet(path, types={"text": "int64"}, executor=any_executor)
    assert table.to_pyarrow().equals(numbers.cast(pa.schema([("text", pa.int64())])))


def test_parquet_files_that_differ(tmp_path, executor):
    pq.write_table(pa.table({"n": [1, 2], "t": ["a", "b"]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"t": ["c"], "n": [1.5]}), tmp_path / "b.parquet")
    with pytest.raises(arenite.TableError, match="b.parquet: its columns are"):
        arenite.read_parquet(tmp_path, executor=executor)
    with pytest.raises(arenite.TableError, match='b.parquet, column "n": it is double in this file and int64'):
        arenite.read_parquet(tmp_path, by_name=True, executor=executor)
    table = arenite.read_parquet(tmp_path, by_name=True, widen=True, executor=executor)
    assert [row["n"] for row in rows(table)] == [1.0, 2.0, 1.5]


@pytest.mark.patience(300)
@pytest.mark.parametrize("count", [2000, pytest.param(10_000, marks=pytest.mark.nightly)])
def test_thousands_of_tiny_files(tmp_path, executor, count):
    for number in range(count):
        (tmp_path / f"{number:05}.csv").write_text(f"n\n{number}\n")
    table = arenite.read_csv(tmp_path, executor=executor)
    assert table.to_pyarrow()["n"].to_pylist() == list(range(count))
    assert len(table.parts) == count


def test_a_sandbox(tmp_path):
    (tmp_path / "a.csv").write_bytes(CSV.encode())
    with arenite.Executor(1, sandbox=True, preload="arenite.tables") as ex:
        table = arenite.read_csv(tmp_path, part_bytes=20, executor=ex)
        assert table.to_pyarrow().equals(csv.read_csv(tmp_path / "a.csv", **options()))


TAKEN_OVER = ["compressed", "beyond", "no stream", "no part", "a fault", "no fault"]


@pytest.mark.parametrize("what", TAKEN_OVER)
def test_what_a_sandboxed_worker_sends_is_checked(tmp_path, what):
    (tmp_path / "a.csv").write_bytes(CSV.encode())
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "b.parquet")

    def each(value):
        in_sandbox.taken_over(what)
        return "abc"

    def of_batch(batch):
        in_sandbox.taken_over(what)
        return {"": ["abc"]}

    with arenite.Executor(1, sandbox=True, preload=["arenite.tables", "in_sandbox"]) as ex:
        table = arenite.read_csv(tmp_path / "a.csv", executor=ex)
        scan = arenite.scan_csv(tmp_path / "a.csv", executor=ex)
        for use in (
            lambda: arenite.apply(pa.chunked_array([[1]]), each, executor=ex),
            lambda: table.map_batches(of_batch),
            lambda: list(scan.map_batches(of_batch)),
            # Each worker is taken over now.
            lambda: arenite.read_csv(tmp_path / "a.csv", executor=ex),
            lambda: arenite.read_parquet(tmp_path / "b.parquet", executor=ex),
        ):
            with pytest.raises(arenite.TableError, match="its worker has sent|u.9b") as caught:
                use()
            assert not set("\x1b\x9b\u202e") & set(str(caught.value)), ascii(caught.value)
        ex.submit(in_sandbox.taken_over, "").result()
        assert len(arenite.read_csv(tmp_path / "a.csv", executor=ex)) == len(table)


@pytest.mark.parametrize("by", [None, "g"])
def test_a_piece_has_a_result_for_each_row_or_group(by):
    pandas = pytest.importorskip("pandas")
    from arenite._core import plain
    from arenite.tables.frame import Polars

    frame = pandas.DataFrame({"g": [0, 1, 2, 3], "n": [1, 2, 3, 4]})
    # Rows behind one too many would be those of others.
    data, *_ = plain.dump([1, 1, 1, 1, 1], None)

    def of_row(row):
        in_sandbox.raw_reply(data)
        return 1

    with arenite.Executor(1, sandbox=True, preload=["arenite.tables", "in_sandbox", "pandas"]) as ex:
        with pytest.raises(arenite.TableError, match="each of 4 rows or groups"):
            arenite.apply(frame, of_row, by=by, executor=ex)
    # polars starts threads, which a sandbox refuses.
    table = pa.table({"n": [1, 2]})
    assert [Polars(abs, (), by).is_of(table, count) for count in (2, 3)] == [True, by is not None]
    assert not Polars(abs, (), by).is_of(None, 0)


class NoText(Exception):
    def __str__(self):
        raise ValueError


def test_a_failure_without_a_text_is_reported(tmp_path, executor):
    (tmp_path / "a.csv").write_bytes(CSV.encode())

    def fail(batch):
        raise NoText

    with pytest.raises(arenite.TableError, match="NoText, whose text cannot be made"):
        arenite.read_csv(tmp_path / "a.csv", executor=executor).map_batches(fail)


def test_dictionaries_that_grow_are_refused():
    """Each addition would be a copy of the whole."""
    from arenite.tables import stream

    out = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(emit_dictionary_deltas=True)
    parts = [pa.array(["a" * 1000, "b"][:count]).dictionary_encode() for count in (1, 2)]
    with pa.ipc.new_stream(out, pa.schema([("", parts[0].type)]), options=options) as into:
        for part in parts:
            into.write_batch(pa.record_batch({"": part}))
    with pytest.raises(pa.ArrowInvalid, match="grows"):
        stream.read(out.getvalue())


def test_columns_that_share_bytes_are_refused():
    """Each of them would be looked at: the square of the length of what was sent."""
    from arenite.tables import part, stream

    columns = [pa.array(["x" * 1000])] + [pa.array(["x"])] * 99
    data = part.write(*of_columns(columns))
    message = next(one for one in pa.ipc.MessageReader.open_stream(pa.py_buffer(data)) if one.type == "record batch")
    described = bytes(message.metadata)
    header = stream._Table(memoryview(described), int.from_bytes(described[:4], "little")).table(2)
    begin, count = header.vector(2)
    assert count == 3 * len(columns)
    begin += bytes(data).index(described)
    for column in range(1, 100):
        data[begin + 48 * column : begin + 48 * (column + 1)] = data[begin : begin + 48]
    assert part.read(data)[1][0].column(99)[0].as_py() == "x" * 1000
    with pytest.raises(pa.ArrowInvalid, match="share bytes"):
        stream.read(data)


def of_columns(columns):
    batch = pa.RecordBatch.from_arrays(columns, names=[str(number) for number in range(len(columns))])
    return batch.schema, [batch, batch]


def test_texts_that_share_bytes_are_refused():
    from arenite.tables import part, stream

    text = pa.py_buffer(b"x" * (1 << 20))
    views = np.zeros((2000, 4), "<i4")
    views[:, 0], views[:, 1] = 1 << 20, int.from_bytes(b"xxxx", "little")
    shared = pa.Array.from_buffers(pa.string_view(), len(views), [None, pa.py_buffer(views.tobytes()), text])
    with pytest.raises(pa.ArrowInvalid, match="too many bytes"):
        stream.read(part.write(*of_columns([shared])))


def test_types_with_code_in_the_program_are_refused():
    from arenite.tables import part, stream

    def typed(name):
        return pa.schema([pa.field("a", pa.list_(pa.field("b", pa.int64(), metadata={"ARROW:extension:name": name})))])

    for name in ("pandas.period", "arrow.py_extension_type"):
        with pytest.raises(pa.ArrowInvalid, match="none of Arrow's own"):
            stream.read(part.write(typed(name), []))
    assert stream.read(part.write(typed("arrow.unknown"), []))[0].names == ["a"]


def test_honest_parts_of_all_types_pass_the_checks():
    from arenite.tables import part, stream

    columns = [
        pa.array([1, None, 3]), pa.array(["a", None, "c" * 100]), pa.array([[1], [], None]), pa.array([{"a": "b"}] * 3),
        pa.array(["a", "b", "a"]).dictionary_encode(), pa.array([1, 2, 3], pa.timestamp("us", "Europe/Berlin")),
        pa.nulls(3), pa.array(["x" * 50, "y", None], pa.string_view()), pa.array([[1, 2]] * 3, pa.list_(pa.int8(), 2)),
        pa.array([[("k", ["v"])]] * 3, pa.map_(pa.string_view(), pa.list_(pa.string_view()))),
        pa.UnionArray.from_sparse(pa.array([0, 1, 0], pa.int8()), [pa.array([1, 2, 3]), pa.array(["a", "b", "c"])]),
        pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a" * 20, "b"], pa.string_view())),
    ]  # fmt: skip
    schema, batches = of_columns(columns)
    found, read = stream.read(part.write(schema, [*batches, batches[0].slice(1, 2)]))
    assert found.equals(schema) and read[0].equals(batches[0]) and read[2].equals(batches[0].slice(1, 2))
    # Many columns, and batches that share a dictionary.
    names = [f"column {number}" for number in range(3000)]
    wide = pa.schema([(name, pa.list_(pa.timestamp("ns", "UTC"))) for name in names], {"k": "v" * 1000})
    assert stream.read(part.write(wide, []))[0].equals(wide)
    words = pa.array([str(number) for number in range(10_000)])
    codes = pa.array(range(10_000), pa.int32())
    batch = pa.record_batch({"w": pa.DictionaryArray.from_arrays(codes, words)})
    assert len(stream.read(part.write(batch.schema, [batch] * 30))[1]) == 30


# ---- failures


def test_a_parser_that_dies_costs_one_part(tmp_path):
    lines = [f"{n},{'DIE' if n == 500 else 'text'}\n" for n in range(1, 1001)]
    path = tmp_path / "a.csv"
    path.write_text("n,t\n" + "".join(lines))
    with arenite.Executor(2, initializer=die_at_mark) as ex:
        report = arenite.read_csv(
            path, part_bytes=1000, schema={"n": "int64", "t": "string"}, errors="report", executor=ex
        )
        [failure] = report.failures
        assert isinstance(failure.__cause__, arenite.WorkerDied) and failure.__cause__.signal == signal.SIGSEGV
        assert failure.file == str(path) and f"{path}, bytes {failure.bytes.start}..{failure.bytes.stop}: " in str(
            failure
        )
        lost = path.read_bytes()[failure.bytes.start : failure.bytes.stop]
        assert b"DIE" in lost and len(lost) < 1100
        assert len(report) == 1000 - lost.count(b"\n")
        with pytest.raises(arenite.TableError, match="bytes"):
            arenite.read_csv(path, part_bytes=1000, schema={"n": "int64", "t": "string"}, executor=ex)
        # The rest of a scan goes on, too.
        scan = iter(arenite.scan_csv(path, part_bytes=1000, schema={"n": "int64", "t": "string"}, executor=ex))
        read, failed = 0, []
        while True:
            try:
                read += next(scan).num_rows
            except arenite.TableError as error:
                failed.append(error.bytes)
            except StopIteration:
                break
        assert (read, failed) == (len(report), [failure.bytes])


def test_a_function_that_fails_costs_one_part(tmp_path, executor):
    path = tmp_path / "a.csv"
    path.write_text("n\n" + "".join(f"{n}\n" for n in range(300)))
    table = arenite.read_csv(path, part_bytes=100, executor=executor)

    def double(batch, at, how):
        numbers = batch["n"].to_pylist()
        if at in numbers:
            if how == "raise":
                raise LookupError(at)
            if how == "hang":
                threading.Event().wait()
            os.kill(os.getpid(), signal.SIGKILL)
        return {"twice": [2 * number for number in numbers]}

    for how, cause in [("raise", LookupError), ("die", arenite.WorkerDied), ("hang", arenite.DeadlineExceeded)]:
        made = table.map_batches(double, 150, how, errors="report", executor=executor.options(deadline=3))
        [failure] = made.failures
        assert isinstance(failure.__cause__, cause), failure
        assert str(failure).startswith(f"{path}, bytes {failure.bytes.start}..{failure.bytes.stop}: ")
        lost = [int(n) for n in path.read_bytes()[failure.bytes.start : failure.bytes.stop].split() if n != b"n"]
        assert 150 in lost
        assert made.to_pyarrow()["twice"].to_pylist() == [2 * n for n in range(300) if n not in lost]
    with pytest.raises(arenite.TableError, match="LookupError: 150") as raised:
        table.map_batches(double, 150, "raise")
    assert isinstance(raised.value.__cause__, LookupError)
    assert len(table.map_batches(double, -1, "raise")) == 300


def test_a_full_arena_says_what_to_do(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("n\n" + "123456\n" * 2_000_000)
    with arenite.Executor(1, capacity="8MiB") as ex:
        with pytest.raises(arenite.TableError, match="or scan the files") as raised:
            arenite.read_csv(path, part_bytes=1 << 20, executor=ex)
        assert isinstance(raised.value.__cause__, arenite.ArenaFull)
        raised = None
        gc.collect()
        # Twice the capacity passes through.
        total = sum(
            arenite.scan_csv(path, part_bytes=1 << 17, executor=ex).map_batches(
                lambda batch: sum(batch["n"].to_pylist())
            )
        )
        assert total == 123456 * 2_000_000


def test_what_a_function_may_return(tmp_path, executor):
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    table = arenite.read_csv(tmp_path, executor=executor)
    for returned in (
        lambda b: b,
        lambda b: pa.Table.from_batches([b]),
        lambda b: {"n": b["n"]},
        lambda b: {"n": b["n"].to_pylist()},
    ):
        assert rows(table.map_batches(returned)) == rows(table)
    with pytest.raises(arenite.TableError, match="returns a RecordBatch, a Table or a dict of columns, not int"):
        table.map_batches(lambda batch: 3)
    floats = table.map_batches(lambda b: b, schema=pa.schema([("n", "double")]))
    assert floats.schema.field("n").type == pa.float64()
    (tmp_path / "b.csv").write_text("n\n3\n")
    two = arenite.read_csv(tmp_path, executor=executor)
    with pytest.raises(
        arenite.TableError, match="b.csv, bytes 2..4: this part has the columns y: int64, and those before it x"
    ):
        two.map_batches(lambda b: {"y" if b["n"][0].as_py() == 3 else "x": b["n"]})
    (tmp_path / "b.csv").unlink()
    (tmp_path / "a.csv").write_text("n\n")
    empty = arenite.read_csv(tmp_path, executor=executor).map_batches(lambda batch: {"m": batch["n"]})
    assert len(empty) == 0 and empty.schema.names == ["m"]


# ---- memory


def addresses(arrow):
    for batch in arrow.to_batches():
        for column in batch.columns:
            yield from ((b.address, b.size) for b in column.buffers() if b is not None and b.size)


def in_arena(executor, address, size):
    return executor._workers.engine.find(address, size) is not None


def test_other_libraries_read_in_place(tmp_path, executor):
    path = tmp_path / "a.csv"
    path.write_text("n,x,t\n" + "".join(f"{n},{n / 2},text number {n}\n" for n in range(1000)))
    table = arenite.read_csv(path, part_bytes=4000, executor=executor)
    found = list(addresses(table.to_pyarrow()))
    assert len(found) > 10 and all(in_arena(executor, *one) for one in found)
    assert all(in_arena(executor, *one) for one in addresses(pa.table(table)))
    mapped = table.map_batches(lambda batch: batch)
    assert all(in_arena(executor, *one) for one in addresses(mapped.to_pyarrow()))
    # In a task: the batches are views of the arena there, too.
    inside = executor.submit(lambda t: [a for b in t.to_batches() for a in [b.column(0).buffers()[1].address]], table)
    assert len(inside.result()) == len(table.parts)
    copied = executor.stats().bytes_copied
    assert executor.submit(len, table).result() == 1000
    # Not the parts: only their descriptions.
    assert executor.stats().bytes_copied - copied < table.nbytes / 4


def test_polars_reads_in_place(tmp_path, executor):
    polars = pytest.importorskip("polars")
    (tmp_path / "a.csv").write_text("n,x,t\n" + "".join(f"{n},{n / 2},t{n}\n" for n in range(1000)))
    table = arenite.read_csv(tmp_path, executor=executor)
    frame = polars.DataFrame(table)
    assert frame["n"].to_list() == list(range(1000)) and frame["t"][7] == "t7"
    for name in ("n", "x"):
        numbers = frame[name].to_numpy(allow_copy=False)
        # Numbers are used where they lie; texts become polars' own.
        assert in_arena(executor, numbers.__array_interface__["data"][0], numbers.nbytes)


def test_duckdb_reads_a_table(tmp_path, executor):
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "a.csv").write_text("n,t\n" + "".join(f"{n},{'ab'[n % 2]}\n" for n in range(1000)))
    t = arenite.read_csv(tmp_path, part_bytes=500, file_column="file", executor=executor)
    found = duckdb.sql("select t, sum(n), count(distinct file) from t group by t order by t").fetchall()
    assert found == [("a", sum(range(0, 1000, 2)), 1), ("b", sum(range(1, 1000, 2)), 1)]


def test_pandas(tmp_path, executor):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "a.csv").write_text("n,t\n1,a\n2,\n")
    frame = arenite.read_csv(tmp_path, executor=executor).to_pandas()
    assert (
        isinstance(frame, pandas.DataFrame)
        and frame["n"].tolist() == [1, 2]
        and frame["t"].isna().tolist() == [False, True]
    )


def test_memory_is_free_when_a_table_is_gone(tmp_path):
    (tmp_path / "a.csv").write_text("n\n" + "1\n" * 100_000)
    with arenite.Executor(1) as ex:
        table = arenite.read_csv(tmp_path, executor=ex)
        assert ex.stats().used_bytes >= table.nbytes > 800_000
        column = table.to_pyarrow()["n"]
        del table
        gc.collect()
        assert ex.stats().used_bytes > 800_000
        del column
        gc.collect()
        harness.until(lambda: ex.stats().used_bytes < 100_000, "the arena to be empty")


def test_a_scan_takes_flat_memory(tmp_path):
    """The arena has the parts in flight, and not the whole table."""
    path = tmp_path / "a.csv"
    path.write_text("n\n" + "1234567\n" * 100_000)
    peaks = []
    for is_kept in (False, True):
        with arenite.Executor(2) as ex:
            peak, total, kept = 0, 0, []
            for batch in arenite.scan_csv([path] * 4, part_bytes=20_000, executor=ex):
                total += batch.num_rows
                peak = max(peak, ex.stats().used_bytes)
                kept += [batch] if is_kept else []
            assert total == 400_000
            peaks.append(peak)
    # At most 8 of 160 parts are in flight, in blocks that are longer than the parts.
    assert peaks[0] < peaks[1] / 3


def test_a_scan_that_is_dropped_ends_its_tasks(tmp_path, executor):
    path = tmp_path / "a.csv"
    path.write_text("n\n" + "1\n" * 1000)
    results = arenite.scan_csv(path, part_bytes=100, executor=executor).map_batches(lambda batch: batch.num_rows)
    assert next(results) > 0
    results.close()
    assert list(results) == []
    harness.until(lambda: executor.stats().running == 0, "the tasks of the scan to end")


# ---- apply


def test_apply(executor):
    numbers = pa.array([*range(1000), None])

    def add(value, more):
        return None if value is None else value + more

    wanted = [n + 0.5 for n in range(1000)] + [None]
    made = arenite.apply(numbers, add, 0.5, executor=executor)
    assert isinstance(made, pa.DoubleArray) and made.to_pylist() == wanted
    made = arenite.apply(pa.chunked_array([numbers, numbers]), add, 0.5, executor=executor)
    assert isinstance(made, pa.ChunkedArray) and made.to_pylist() == 2 * wanted
    # The types of chunks may differ: numbers of both kinds.
    assert arenite.apply(numbers, lambda n: n if n != 999 else 0.5, executor=executor).to_pylist()[999] == 0.5
    assert arenite.apply(pa.array([], "int64"), add, 1, executor=executor).to_pylist() == []
    assert arenite.apply(pa.array([1]), str, type=pa.large_string(), executor=executor).type == pa.large_string()
    with pytest.raises(ZeroDivisionError) as raised:
        arenite.apply(numbers, lambda n: 1 / (n - 700), executor=executor)
    assert "rows 512..768" in raised.value.__notes__[0]
    with pytest.raises(TypeError, match="no type in common"):
        arenite.apply(numbers, lambda n: "x" if n is None or n >= 768 else 1, executor=executor)
    with pytest.raises(TypeError, match="takes a pandas or polars Series"):
        arenite.apply([1], add, executor=executor)


def test_apply_to_pandas(executor):
    pandas = pytest.importorskip("pandas")
    series = pandas.Series(["a", None, "ccc"], index=[5, 6, 7], name="text")
    made = arenite.apply(series, lambda text: -1 if text is None else len(text), executor=executor)
    assert isinstance(made, pandas.Series) and made.tolist() == [1, -1, 3]
    assert made.index.tolist() == [5, 6, 7] and made.name == "text"
    assert series.index.tolist() == [5, 6, 7]


def test_apply_to_polars(executor):
    polars = pytest.importorskip("polars")
    series = polars.Series("text", ["a", None, "ccc"])
    made = arenite.apply(series, lambda text: -1 if text is None else len(text), executor=executor)
    assert isinstance(made, polars.Series) and made.to_list() == [1, -1, 3] and made.name == "text"


PANDAS_ROWS = [
    # Of other types in some of the pieces.
    lambda row: None if row["a"] < 990 else row["a"] / 2,
    lambda row: 1 if row["a"] < 990 else "text",
    lambda row: row[["a", "b"]] if row["a"] < 990 else row[["b", "text"]],
    lambda row: [row["a"], row["text"]],
    lambda row: row,
    lambda row: row["a"] + row["b"],
    lambda row: row["text"],
    lambda row: (row["a"], row["text"]),
    lambda row: row[["a", "b"]] * 2,
    lambda row: None if row["a"] > 500 else row["b"],
]
PANDAS_GROUPS = [
    len,
    # Some of the pieces are one group.
    lambda group: group["b"] - group["b"].mean(),
    lambda group: group["b"].describe(),
    lambda group: None if len(group) % 2 else group["b"].sum(),
    lambda group: group["b"].to_numpy()[:3],
    lambda group: group.sort_values("b"),
    lambda group: None,
    lambda group: group["b"].sum(),
    lambda group: group[["b"]].mean(),
    lambda group: group.head(2),
    lambda group: group.assign(rank=group["b"].rank()),
    lambda group: "x" * len(group),
]


def frame_data(count):
    random_ = random.Random(f"{os.environ['ARENITE_SEED']} {count}")
    return {
        "a": [random_.randrange(50) for _ in range(count)],
        "b": [random_.random() for _ in range(count)],
        "key": [random_.choice([None, "x", "y", "z", "zz", "q" * random_.randrange(9)]) for _ in range(count)],
        "text": [str(random_.randrange(50)) for _ in range(count)],
    }


@pytest.mark.parametrize("count", [0, 1, 300])
def test_apply_to_frames_of_pandas(executor, count):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(frame_data(count), index=range(7, 7 + count))
    if count == 0:
        frame = frame.astype({"a": "int64", "b": "float64"})
    equal = {pandas.Series: pandas.testing.assert_series_equal, pandas.DataFrame: pandas.testing.assert_frame_equal}
    before = frame.copy(deep=True)
    for function in PANDAS_ROWS:
        made, wanted = arenite.apply(frame, function, executor=executor), frame.apply(function, axis=1)
        equal[type(wanted)](made, wanted)
    for by in ("key", ["text", "key"], "a"):
        for function in PANDAS_GROUPS:
            made = arenite.apply(frame, function, by=by, executor=executor)
            wanted = frame.groupby(by, observed=True).apply(function)
            equal[type(wanted)](made, wanted)
    frame["key"] = frame["key"].astype("category")
    made = arenite.apply(frame, lambda group, more: len(group) + more, 5, by="key", executor=executor)
    wanted = frame.groupby("key", observed=True).apply(lambda group: len(group) + 5)
    equal[type(wanted)](made, wanted)
    pandas.testing.assert_frame_equal(frame.drop(columns="key"), before.drop(columns="key"))


def test_apply_to_frames_of_polars():
    """A program of its own: polars keeps threads and descriptors."""
    pytest.importorskip("polars")
    harness.script(
        f"""
        import random

        import arenite
        import polars
        from polars.testing import assert_frame_equal

        random_ = random.Random({os.environ["ARENITE_SEED"]!r})
        with arenite.Executor(2) as ex:
            for count in (1, 300):
                frame = polars.DataFrame({{
                    "a": [random_.randrange(1000) for _ in range(count)],
                    "b": [random_.random() for _ in range(count)],
                    "key": [random_.choice([None, "x", "y", "q" * random_.randrange(9)]) for _ in range(count)],
                }})
                for function in (lambda row: row[0] + row[1], lambda row: (row[2], row[0]), lambda row: str(row[2])):
                    assert_frame_equal(arenite.apply(frame, function, executor=ex), frame.map_rows(function))
                for function in (lambda group: group.head(2), lambda group: group.select(polars.col("b").sum())):
                    for by in ("key", ["a", "key"]):
                        made = arenite.apply(frame, function, by=by, executor=ex)
                        assert_frame_equal(made, frame.group_by(by, maintain_order=True).map_groups(function))
                made = arenite.apply(frame, lambda row, more: row[0] + more, 5, executor=ex)
                assert_frame_equal(made, frame.map_rows(lambda row: row[0] + 5))
                assert arenite.table(frame, executor=ex).to_polars().equals(frame)
        """
    ).ok()


def test_apply_to_frames_says_what_is_wrong(executor):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": range(1000), "key": [n // 10 for n in range(1000)]})
    with pytest.raises(ZeroDivisionError) as raised:
        arenite.apply(frame, lambda row: 1 // int(row["a"] - 700), executor=executor)
    assert "rows 512..768 of the data frame" in raised.value.__notes__[-1]
    with pytest.raises(ZeroDivisionError) as raised:
        arenite.apply(frame, lambda group: 1 // int(group["a"].iloc[0] - 700), by="key", executor=executor)
    assert "of groups " in raised.value.__notes__[-1]
    with pytest.raises(KeyError, match="other"):
        arenite.apply(frame, len, by="other", executor=executor)
    with pytest.raises(TypeError, match="by= is for data frames"):
        arenite.apply(frame["a"], len, by="key", executor=executor)
    with pytest.raises(TypeError, match="type= is for columns"):
        arenite.apply(frame, len, type=pa.int64(), executor=executor)


# ---- the process


def test_without_an_executor_and_in_a_task(tmp_path, executor):
    """All calls share one executor; a task reads by itself."""
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    ran = harness.script(
        f"""
        import arenite
        one, two = arenite.read_csv({str(tmp_path)!r}), arenite.read_csv({str(tmp_path)!r})
        assert one._tasks._executor is two._tasks._executor
        more = arenite.apply(one.to_pyarrow()["n"], lambda n: n + 1)
        print(len(one.map_batches(lambda batch: batch)), more.to_pylist())
        """
    ).ok()
    assert ran.out == "2 [2, 3]\n"
    assert executor.submit(lambda path: len(arenite.read_csv(path)), str(tmp_path)).result() == 2


def test_imports_are_lazy():
    program = """if True:
        import sys, arenite
        arenite.Executor, arenite.TableError
        print([name for name in ("numpy", "pyarrow") if name in sys.modules])
    """
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_without_pyarrow():
    program = "import sys; sys.modules['pyarrow'] = None\nimport arenite\narenite.read_csv('a.csv')"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (
        "ImportError: tables need pyarrow and numpy, and pyarrow is missing: pip install 'arenite[tables]'"
        in ran.stderr
    )


# ---- progress


class Shown:
    """Stands for tqdm."""

    bars: list = []

    def __init__(self, total, desc, **options):
        assert options == {"unit": "B", "unit_scale": True, "unit_divisor": 1024}
        self.total, self.desc, self.n, self.steps, self.closed = total, desc, 0, [], 0
        self.bars.append(self)

    def update(self, n):
        self.n += n
        self.steps.append(self.n)

    def close(self):
        self.closed += 1


@pytest.fixture
def bars(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", types.SimpleNamespace(tqdm=Shown))
    monkeypatch.setattr(Shown, "bars", [])
    return Shown.bars


def test_progress(tmp_path, any_executor, bars):
    text = "n\n" + "".join(f"{n}\n" for n in range(3000))
    (tmp_path / "a.csv").write_text(text)
    (tmp_path / "b.csv").write_text("")
    with gzip.open(tmp_path / "c.csv.gz", "wt") as file:
        file.write(text)
    (tmp_path / "d.csv").write_text("")
    total = sum(file.stat().st_size for file in tmp_path.iterdir())
    options = {"part_bytes": 1000, "progress": "reading", "executor": any_executor}
    table = arenite.read_csv(tmp_path, **options)
    assert len(list(arenite.scan_csv(tmp_path, **options))) > 20
    assert list(arenite.scan_csv(tmp_path, **options).map_batches(len))
    assert len(table.map_batches(lambda batch: batch, progress=True)) == 6000
    for bar, end in zip(bars, [total, total, total, table.nbytes], strict=True):
        assert bar.total == end == bar.steps[-1] and bar.closed >= 1
        assert len(bar.steps) > 20 and bar.steps == sorted(bar.steps)
    assert [bar.desc for bar in bars] == ["reading"] * 3 + [None]
    # Where a type is widened, it begins anew, and a failure ends it.
    (tmp_path / "d.csv").write_text("n\nx\n")
    with pytest.raises(arenite.TableError):
        arenite.read_csv(tmp_path, **options)
    assert bars[-1].closed == 1
    arenite.read_csv(tmp_path, widen=True, **options)
    assert bars[-1].steps != sorted(bars[-1].steps) and bars[-1].steps[-1] == bars[-1].total


def test_progress_of_row_groups(tmp_path, executor, bars):
    pq.write_table(pa.table({"n": range(1000)}), tmp_path / "a.parquet", row_group_size=100)
    pq.write_table(pa.table({"n": range(10)}), tmp_path / "b.parquet")
    arenite.read_parquet(tmp_path, progress=True, executor=executor)
    [bar] = bars
    assert len(bar.steps) >= 11 and bar.steps[-1] == bar.total == sum(f.stat().st_size for f in tmp_path.iterdir())


def test_progress_without_tqdm(tmp_path, executor, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    (tmp_path / "a.csv").write_text("n\n1\n")
    assert len(arenite.read_csv(tmp_path, progress=True, executor=executor)) == 1


def test_types_are_those_of_the_files_that_have_values(tmp_path, executor):
    files = {"a.csv": "n,m,r\n", "b.csv": "n,m,r\n1,2,\n", "c.csv": "n,m,r\n1.5,,0.5\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    wanted = pa.table({"n": [1.0, 1.5], "m": [2, None], "r": [None, 0.5]})
    for options in ({"widen": True}, {"widen": True, "by_name": True}):
        made = arenite.read_csv(tmp_path, executor=executor, **options).to_pyarrow()
        # A column without values in the first file that has rows is text, unless all files are looked at.
        expected = wanted if "by_name" in options else wanted.set_column(2, "r", pa.array([None, "0.5"]))
        assert made == expected
    assert arenite.read_csv([tmp_path / "a.csv", tmp_path / "b.csv"], executor=executor).schema.field("n").type == "int64"
    made = arenite.read_csv(tmp_path, by_name=True, types={"n": "string"}, executor=executor).to_pyarrow()
    assert made["n"].to_pylist() == ["1", "1.5"]


def test_large_integers_are_not_rounded(tmp_path, executor):
    pandas = pytest.importorskip("pandas")
    (tmp_path / "a.csv").write_text("id,x,y\n1,1.5,2\n9400111899223197428490,-1e300,9223372036854775807\n")
    made = arenite.read_csv(tmp_path / "a.csv", executor=executor).to_pandas()
    wanted = pandas.read_csv(tmp_path / "a.csv")
    assert made["id"].tolist() == wanted["id"].astype(str).tolist()
    assert made["y"].tolist() == wanted["y"].tolist() and made["x"].tolist() == wanted["x"].tolist()
    (tmp_path / "a.json").write_text('{"id": 1, "s": "18446744073709551615"}\n{"id": 18446744073709551615, "s": ""}\n')
    made = arenite.read_json(tmp_path / "a.json", executor=executor).to_pandas()
    assert made["id"].tolist() == pandas.read_json(tmp_path / "a.json", lines=True)["id"].tolist()


@pytest.mark.parametrize("text", ["a,b\r1,2\r3,4\r", "a,b\r1,2\n3,4\n", '"a\r",b\r1,2\r\n3,4\n', "\r\ra,b\r\n1,2\r3,4"])
def test_carriage_returns_end_records(tmp_path, any_executor, text):
    (tmp_path / "a.csv").write_bytes(text.encode())
    import csv as plain

    wanted = list(plain.reader(io.StringIO(text.lstrip("\r"), newline="")))
    made = arenite.read_csv(tmp_path / "a.csv", executor=any_executor).to_pyarrow()
    assert [made.column_names, *([str(cell) for cell in row.values()] for row in made.to_pylist())] == wanted


def test_a_schema_decides_the_types_of_parquet_files_that_differ(tmp_path, executor):
    import pyarrow.parquet

    for name, values in (("a", [1, 2]), ("b", [0.5])):
        pyarrow.parquet.write_table(pa.table({"n": values}), tmp_path / f"{name}.parquet")
    schema = pa.schema([("n", pa.float64())])
    made = arenite.read_parquet(tmp_path, schema=schema, executor=executor).to_pyarrow()
    assert made == pyarrow.parquet.read_table(tmp_path, schema=schema)
    assert arenite.read_parquet(tmp_path, types={"n": "float64"}, executor=executor).to_pyarrow() == made
    with pytest.raises(arenite.TableError, match='column "typo"'):
        arenite.read_parquet(tmp_path, schema=pa.schema([("typo", pa.int64())]), executor=executor)


def test_the_index_of_a_data_frame_is_no_column(executor):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"n": [1, 2, 3]}, index=["a", "b", "c"])
    table = arenite.table(frame, executor=executor)
    assert table.schema.names == ["n"]
    made = table.map_batches(lambda batch: (rows := batch.to_pandas())[rows["n"] > 1])
    assert made.to_pyarrow().to_pydict() == {"n": [2, 3]}


def test_files_of_parts_have_the_order_of_the_parts(tmp_path):
    from arenite.tables import write

    folder = write.Folder(tmp_path, "none")
    for number in (0, 9, 99_999, 100_000, 100_001, 999_999, 1_000_000):
        folder.files = Files(number)
        folder.write(b"")
    assert sorted(Files.written) == Files.written


class Files(list):
    """A list of so many files."""

    written = []

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def append(self, file):
        self.written.append(file)


@pytest.mark.parametrize("workers", [1, 3])
def test_several_parts_widen_one_column(tmp_path, workers):
    """Each of them fails with the types of the plan, and is compared with those, not with what another one needs."""
    path = tmp_path / "wide.csv"
    rows = range(30_000)
    fractions = {n for n in rows if n >= 2000 and n % 1000 == 0}
    texts = "".join(f"{n}{'.5' * (n in fractions)},{n * (n < 20_000)}{'x' * (n >= 20_000)}\n" for n in rows)
    path.write_text("n,s\n" + texts)
    with arenite.Executor(workers, preload=["arenite.tables"]) as ex:
        table = arenite.read_csv(path, widen=True, part_bytes=30_000, executor=ex).to_pyarrow()
    assert table.num_rows == len(rows)
    assert [str(field.type) for field in table.schema] == ["double", "string"]
    assert table["n"].to_pylist()[2000:2002] == [2000.5, 2001.0]
    assert table["s"].to_pylist()[-1] == "0x"


@pytest.mark.leaves("descriptors of polars' threads")
@pytest.mark.parametrize("late", [1500, 9000, 29_999])
def test_types_of_a_scan_widen(tmp_path, executor, late):
    """The oracle are libraries that look at all rows before they choose a type."""
    polars, duckdb = pytest.importorskip("polars"), pytest.importorskip("duckdb")
    path = tmp_path / "wide.csv"
    rows = range(30_000)
    number, text = [n / 2 if n >= late else n for n in rows], [f"x{n}" if n >= late else n / 4 for n in rows]
    lines = [f"{n},{number[n]},{text[n]},{n % 7},{'' if n < late else n}" for n in rows]
    path.write_text("whole,number,text,few,empty\n" + "\n".join(lines) + "\n")
    options = {"part_bytes": 20_000, "executor": executor}
    with pytest.raises(arenite.TableError, match=rf'row {late + 1}, .* is not .* widen=True'):
        list(arenite.scan_csv(path, **options))
    scan = arenite.scan_csv(path, widen=True, types={"few": "float64"}, **options)
    assert scan.schema == arenite.read_csv(path, widen=True, types={"few": "float64"}, **options).schema
    found = pa.Table.from_batches(scan)
    assert found.num_rows == len(rows) and found.schema == scan.schema
    theirs = polars.read_csv(path, infer_schema_length=None)
    ducks = duckdb.read_csv(str(path), sample_size=-1)
    for name, kind in {"whole": "int64", "number": "double", "text": "string"}.items():
        assert str(scan.schema.field(name).type) == kind
        expected = theirs[name].to_list()
        assert found[name].to_pylist() == expected == [value for (value,) in ducks.select(name).fetchall()]
    assert str(scan.schema.field("few").type) == "double"
    with pytest.raises(arenite.TableError, match='"x.*" is not double'):
        list(arenite.scan_csv(path, widen=True, types={"text": "float64"}, **options))
    lines = tmp_path / "wide.json"
    lines.write_text("".join(f'{{"n": {one}}}\n' for one in number))
    scanned = pa.Table.from_batches(arenite.scan_json(lines, widen=True, **options))
    assert scanned["n"].to_pylist() == polars.read_ndjson(lines, infer_schema_length=None)["n"].to_list()


def test_a_scan_of_a_pipe_does_not_widen(tmp_path, executor):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writing = threading.Thread(target=path.write_text, args=("a\n1\n",))
    writing.start()
    with pytest.raises(arenite.TableError, match="reads the files twice, and this one can be read only once"):
        arenite.scan_csv(path, widen=True, executor=executor)
    with harness.waiting("the pipe to be read"):
        writing.join()


def frames():
    """The same rows as pandas, polars, pyarrow and a dict hold them."""
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    columns = {"name": ["a", None, "c"], "price": [1.5, 2.0, None]}
    arrow = pa.table(columns)
    return columns, [columns, arrow, arrow.to_batches()[0], pandas.DataFrame(columns), polars.DataFrame(columns)]


def test_what_was_in_memory_becomes_a_table(executor):
    columns, frames_of = frames()
    for frame in frames_of:
        table = arenite.table(frame, executor=executor)
        assert table.to_pyarrow().to_pydict() == columns, type(frame)
    large = pa.table({"n": np.arange(3_000_000), "text": pa.array(["x"] * 3_000_000)})
    table = arenite.table(large, executor=executor)
    assert len(table.parts) > 4 and table.to_pyarrow().equals(large)
    assert table.map_batches(lambda batch: {"rows": [batch.num_rows]}).to_pyarrow()["rows"].to_pylist() == [
        part.num_rows for part in table.parts
    ]
    assert len(arenite.table(large.slice(0, 0), executor=executor)) == 0
    with pytest.raises(TypeError, match="not list"):
        arenite.table([1, 2], executor=executor)


def test_some_columns_get_types(tmp_path, any_executor):
    (tmp_path / "a.csv").write_text("id,price,day\n1,2,2024-01-02\n" + "2,3,2024-01-03\n" * 2000 + "3,2.5,x\n")
    source = tmp_path / "a.csv"
    types_of = {"price": "float64", "day": str, "id": np.int16}
    table = arenite.read_csv(source, types=types_of, executor=any_executor)
    column_types = {"price": pa.float64(), "day": pa.string(), "id": pa.int16()}
    expected = csv.read_csv(source, convert_options=csv.ConvertOptions(column_types=column_types))
    assert table.to_pyarrow().equals(expected) and table.schema.names == ["id", "price", "day"]
    scanned = arenite.scan_csv(source, types=types_of, executor=any_executor)
    assert scanned.schema == table.schema and sum(batch.num_rows for batch in scanned) == len(table)
    # Such a type stays, also where others are widened.
    with pytest.raises(arenite.TableError, match='column "price": "2.5" is not int64'):
        arenite.read_csv(source, types={"price": pa.int64()}, widen=True, executor=any_executor)
    widened = arenite.read_csv(source, types={"price": "float64"}, widen=True, executor=any_executor)
    assert widened.schema.field("day").type == pa.string() and widened.schema.field("price").type == pa.float64()
    (tmp_path / "a.jsonl").write_text('{"n": 1}\n{"n": 2}\n')
    assert arenite.read_json(tmp_path / "a.jsonl", types={"n": "double"}, executor=any_executor).schema.types == [pa.float64()]
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "a.parquet")
    assert arenite.read_parquet(tmp_path / "a.parquet", types={"n": "int8"}, executor=any_executor).schema.types == [pa.int8()]
    with pytest.raises(ValueError, match="types has the column 'prize', and the files have 'id', 'price', 'day'"):
        arenite.read_csv(source, types={"prize": "int8"}, executor=any_executor)
    with pytest.raises(ValueError, match="'int9' is no type of pyarrow or numpy"):
        arenite.read_csv(source, types={"id": "int9"}, executor=any_executor)


def test_tables_and_scans_are_written_as_parquet(tmp_path, any_executor):
    lines = [f"{n},{n / 7},\"row\n{n}\"" for n in range(20_000)]
    (tmp_path / "a.csv").write_text("id,part,text\n" + "\n".join(lines) + "\n")
    (tmp_path / "b.csv").write_text("id,part,text\n")
    expected = csv.read_csv(tmp_path / "a.csv", parse_options=csv.ParseOptions(newlines_in_values=True))
    scan = arenite.scan_csv([tmp_path / "a.csv", tmp_path / "b.csv"], part_bytes=50_000, executor=any_executor)
    files = scan.write_parquet(tmp_path / "new" / "scan")
    assert len(files) > 5 and sorted((tmp_path / "new" / "scan").iterdir()) == files
    # Another reader, and their names are their order.
    assert pq.read_table(tmp_path / "new" / "scan").equals(expected)
    table = arenite.read_csv(tmp_path / "a.csv", part_bytes=50_000, executor=any_executor)
    files = table.write_parquet(tmp_path / "table", compression="zstd")
    assert [pq.read_metadata(file).num_rows for file in files] == [part.num_rows for part in table.parts]
    assert pq.read_metadata(files[0]).row_group(0).column(0).compression == "ZSTD"
    assert pq.read_table(tmp_path / "table").equals(expected)
    assert arenite.read_parquet(tmp_path / "table", executor=any_executor).to_pyarrow().equals(expected)
    # Nothing is replaced, and a folder has parts of one table only.
    for write in (scan.write_parquet, table.write_parquet):
        with pytest.raises(arenite.TableError, match="parts of another table are in this folder"):
            write(tmp_path / "table")
    with pytest.raises(ValueError, match="no compression 'zip'"):
        table.write_parquet(tmp_path / "zip", compression="zip")
    (tmp_path / "file").write_text("")
    with pytest.raises(arenite.TableError, match="cannot write it: File exists"):
        table.write_parquet(tmp_path / "file")
    # Without rows there are columns.
    [empty] = arenite.scan_csv(tmp_path / "b.csv", executor=any_executor).write_parquet(tmp_path / "empty")
    assert pq.read_table(empty).schema.names == ["id", "part", "text"]


def test_a_part_that_cannot_be_read_ends_the_writing_behind_those_before_it(tmp_path, executor):
    (tmp_path / "a.csv").write_text("n\n" + "1\n" * 30_000 + "x\n" + "1\n" * 30_000)
    scan = arenite.scan_csv(tmp_path, part_bytes=10_000, executor=executor)
    with pytest.raises(arenite.TableError, match="row 30001"):
        scan.write_parquet(tmp_path / "out")
    written = sorted((tmp_path / "out").iterdir())
    assert written and sum(pq.read_metadata(file).num_rows for file in written) <= 30_000
    assert all(file.name == f"part-{number:05}.parquet" for number, file in enumerate(written))


def test_a_sandboxed_worker_encodes(tmp_path):
    (tmp_path / "a.csv").write_text("n\n1\n2\n")
    with arenite.Executor(1, sandbox=True, preload="arenite.tables") as sandboxed:
        arenite.scan_csv(tmp_path / "a.csv", executor=sandboxed).write_parquet(tmp_path / "scan")
        arenite.table({"n": [1, 2]}, executor=sandboxed).write_parquet(tmp_path / "table")
    assert pq.read_table(tmp_path / "scan")["n"].to_pylist() == pq.read_table(tmp_path / "table")["n"].to_pylist() == [1, 2]
