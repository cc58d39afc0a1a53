"""No value of a table is altered: what a type cannot contain is an error. Other readers say what a file contains."""

import csv as standard_csv
import datetime
import decimal
import io
import json
import os
import subprocess
import sys

import arenite
import pytest

np = pytest.importorskip("numpy")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

MIDNIGHT, MORNING = datetime.datetime(2020, 1, 1), datetime.datetime(2020, 1, 1, 5)
DATE = datetime.date(2020, 1, 1)
UTC, EAST = datetime.timezone.utc, datetime.timezone(datetime.timedelta(hours=2))


@pytest.fixture(scope="module")
def executor():
    with arenite.Executor(2, preload="arenite.tables") as ex:
        yield ex


@pytest.fixture
def make(tmp_path):
    """Writes a file."""
    numbers = iter(range(1000))

    def write(content, name="a.csv"):
        path = tmp_path / f"{next(numbers):03}-{name}"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def rows(table):
    return table.to_pyarrow().to_pylist()


def refused(call, *parts):
    with pytest.raises(arenite.TableError) as error:
        call()
    assert all(part in str(error.value) for part in parts), error.value
    return error.value


# ---- a sandbox


PROGRAM = """
import sys, arenite
if __name__ == "__main__":
    # Nothing but arenite.tables may load modules of pyarrow.
    for sandbox in (True, "strict"):
        with arenite.Executor(2, sandbox=sandbox, preload="arenite.tables") as ex:
            assert "pandas" not in sys.modules
            json, parquet = sys.argv[1:]
            rows = [{"n": n, "s": "ab"[n % 2], "t": [n]} for n in range(1000)]
            assert arenite.read_json(json, executor=ex, part_bytes=5000).to_pyarrow().to_pylist() == rows
            assert sum(batch.num_rows for batch in arenite.scan_json(json, executor=ex)) == 1000
            table = arenite.read_parquet(parquet, executor=ex)
            assert table.to_pyarrow().to_pylist() == rows
            typed = arenite.read_parquet(parquet, types={"n": "float64"}, executor=ex)
            assert str(typed.schema.field("n").type) == "double" and len(typed) == 1000
            schema = typed.schema.remove(1).remove(1)
            assert table.map_batches(lambda batch: {"n": batch["n"]}, schema=schema).schema == schema
    print("read")
"""


def test_a_sandbox_reads_all_formats(tmp_path, make):
    data = [{"n": n, "s": "ab"[n % 2], "t": [n]} for n in range(1000)]
    lines = make("".join(json.dumps(row) + "\n" for row in data), "a.json")
    pq.write_table(pa.Table.from_pylist(data), tmp_path / "a.parquet")
    (tmp_path / "program.py").write_text(PROGRAM)
    program = [sys.executable, tmp_path / "program.py", lines, tmp_path / "a.parquet"]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert ran.stdout == "read\n", ran.stderr


# ---- CSV


@pytest.mark.parametrize("text", ['"a,b\n1,2\n3,4\n', 'a,"b\n1,2\n', '\n"a\r\n1\r\n', '"a""\n1\n', '"'])
@pytest.mark.parametrize("options", [{}, {"schema": {"a": "int64", "b": "int64"}}, {"by_name": True}])
def test_a_header_whose_quotes_do_not_close(make, executor, text, options):
    with pytest.raises(standard_csv.Error):
        list(standard_csv.reader([text], strict=True))
    schema = options.get("schema")
    given = options if schema is None else {"schema": pa.schema(schema)}
    refused(lambda: arenite.read_csv(make(text), executor=executor, **given), "inside the quotes", "header")
    refused(lambda: arenite.read_csv(make(text), executor=executor, header=False), "inside the quotes")


def test_long_fields_in_a_header(make, executor):
    name = "x" * 200_000
    table = arenite.read_csv(make(f"{name},b\n1,2\n"), executor=executor)
    assert table.schema.names == [name, "b"]
    assert rows(arenite.read_csv(make(f"{name},1\n"), header=False, executor=executor))[0]["column_1"] == name
    assert standard_csv.field_size_limit() == 131072


@pytest.mark.parametrize("digits", ["0xffffffffffffffff", "0x8000000000000000", "0xff", "0X10"])
def test_hexadecimal_is_text(make, executor, digits):
    pandas = pytest.importorskip("pandas")
    data = f"a,b\n{digits},x0xyz\n5,7\n".encode()
    table = arenite.read_csv(make(data), executor=executor)
    assert rows(table) == pandas.read_csv(io.BytesIO(data)).to_dict("records")
    late = make("a\n" + "1\n" * 1200 + f"{digits}\n")
    for kind in ("int8", "int64", "uint64"):
        error = refused(lambda k=kind: arenite.read_csv(make(data), types={"a": k}, executor=executor), digits, kind)
        assert (error.row, error.column) == (1, "a")
    assert refused(lambda: arenite.read_csv(late, executor=executor), digits).row == 1201
    assert rows(arenite.read_csv(late, widen=True, executor=executor))[-1] == {"a": digits}


@pytest.mark.parametrize("blank", ["a,b\n\n", "a,b\r\n\r\n", "a,b\n", "\n\n", "\r\n", ""])
def test_a_file_without_rows_decides_no_types(make, executor, blank):
    filled = make("a,b\n1,2.5\n", "b.csv")
    for by_name in (False, True):
        table = arenite.read_csv([make(blank), filled, make(blank)], by_name=by_name, executor=executor)
        assert rows(table) == [{"a": 1, "b": 2.5}]
    refused(lambda: arenite.read_csv(make("\n\n"), executor=executor), "no row")


def test_two_columns_of_one_name(tmp_path, make, executor):
    path, schema = make("a,a\n1,2\n"), pa.schema([("a", "int64")])
    pq.write_table(pa.table([[1], [2], [3]], names=["a", "a", "b"]), tmp_path / "a.parquet")
    for options in ({"by_name": True}, {"by_name": True, "schema": schema}):
        refused(lambda o=options: arenite.read_csv(path, executor=executor, **o), 'two columns have the name "a"')
        read = lambda o=options: arenite.read_parquet(tmp_path / "a.parquet", executor=executor, **o)  # noqa: E731
        refused(read, 'two columns have the name "a"')
    refused(lambda: arenite.read_parquet(tmp_path / "a.parquet", schema=schema, executor=executor), "two columns")
    other = pa.schema([("b", "int64")])
    assert rows(arenite.read_parquet(tmp_path / "a.parquet", schema=other, executor=executor)) == [{"b": 3}]
    # Their positions tell them apart.
    assert arenite.read_csv(path, executor=executor).to_pyarrow().column(0).to_pylist() == [1]
    whole = arenite.read_parquet(tmp_path / "a.parquet", executor=executor).to_pyarrow()
    assert [column.to_pylist() for column in whole.columns] == [[1], [2], [3]]


def test_nulls_where_the_schema_has_none(tmp_path, make, executor):
    schema = pa.schema([pa.field("a", pa.int64(), nullable=False), ("b", "string")])
    error = refused(lambda: arenite.read_csv(make("a,b\n1,x\n,y\n"), schema=schema, executor=executor), "missing")
    assert (error.row, error.column) == (2, "a")
    read = lambda text: arenite.read_csv(make(text), schema=schema, by_name=True, executor=executor)  # noqa: E731
    refused(lambda: read("b\nx\n"), "missing")
    pq.write_table(pa.table({"a": [1, 2, None], "b": ["x", None, "z"]}), tmp_path / "a.parquet")
    error = refused(lambda: arenite.read_parquet(tmp_path / "a.parquet", schema=schema, executor=executor), "missing")
    assert (error.row, error.column) == (3, "a")
    assert len(arenite.read_csv(make("a,b\n1,\n"), schema=schema, executor=executor)) == 1


def test_names_of_types(make, executor):
    names = {"int": pa.int64(), "datetime64[ns]": pa.timestamp("ns"), "float64": pa.float64(), "double": pa.float64()}
    path = make("a\n2020\n")
    for name, kind in names.items():
        for options in ({"types": {"a": name}}, {"schema": {"a": name}}):
            assert arenite.scan_csv(path, executor=executor, **options).schema.field("a").type == kind
    for bad, words in (("float", "float32"), ("object", "no type"), ("nothing", "no type")):
        with pytest.raises(ValueError, match=words):
            arenite.read_csv(path, types={"a": bad}, executor=executor)


@pytest.mark.parametrize("kind", [pa.float16(), pa.list_(pa.int64()), pa.string_view(), pa.struct([("x", pa.int64())])])
def test_types_of_which_the_parser_makes_no_values(make, executor, kind):
    for text in ("a\n1\n", "b,a\nx,1\n"):
        error = refused(lambda t=text: arenite.read_csv(make(t), types={"a": kind}, executor=executor), str(kind))
        assert error.column == "a" and "convert the column" in str(error)


def test_arguments_that_make_no_sense(make, executor):
    path = make("a\n1\n")
    with pytest.raises(ValueError, match="delimiter"):
        arenite.read_csv(path, delimiter="\0", executor=executor)
    for source in (os.fsencode(path), [os.fsencode(path)]):
        with pytest.raises(TypeError, match="a path is text, not bytes"):
            arenite.read_csv(source, executor=executor)


# ---- JSON


@pytest.mark.parametrize("line", [b'{"a":"\xff"}', b'{"\xff":"1"}', b'{"a":{"b":["\xc3"]}}', b'{"a":"\xed\xa0\x80"}'])
def test_json_that_is_not_utf8(make, executor, line):
    with pytest.raises(UnicodeDecodeError):
        line.decode()
    early, late = make(b'{"a":"\xc3\xa9"}\n\n' + line + b"\n"), make(b'{"a":"x"}\n' * 1500 + line)
    assert refused(lambda: arenite.read_json(early, executor=executor), "UTF-8").row == 2
    assert refused(lambda: arenite.read_json(late, executor=executor), "UTF-8").row == 1501
    schema = pa.schema([("a", "string")])
    refused(lambda: arenite.read_json(early, schema=schema, executor=executor), "UTF-8")


BEYOND = [1 << 64, -(1 << 63) - 1, 10**30, 10**5000]


@pytest.mark.parametrize("beyond", BEYOND, ids=["2**64", "-2**63-1", "10**30", "10**5000"])
@pytest.mark.parametrize("form", ['{"a":%s}', '{"a":{"b":%s}}', '{"a":[1,%s]}', '{"a":[{"b":[%s]}]}'])
def test_integers_of_json_beyond_64_bits(make, executor, beyond, form):
    digits = str(decimal.Decimal(beyond)) if beyond < 10**4000 else "1" + "0" * 5000
    path = make('{"c":1}\n' + form % digits + "\n", "a.json")
    for options in ({}, {"widen": True}, {"by_name": True}):
        call = lambda o=options: arenite.read_json(path, executor=executor, **o)  # noqa: E731
        refused(call, "64 bits" if len(digits) < 300 else "", "row 2")
    late = make((form % "5" + "\n") * 1200 + form % digits + "\n", "b.json")
    for widen in (False, True):
        call = lambda w=widen: arenite.read_json(late, widen=w, executor=executor)  # noqa: E731
        assert refused(call).row == 1201


@pytest.mark.parametrize("form", ['{"a":%s}', '{"a":{"b":%s}}', '{"a":[%s,1]}', '{"a":[{"b":[%s]}]}'])
def test_integers_of_json_up_to_64_bits(make, executor, form):
    for number in (1 << 63, (1 << 64) - 1):
        line = form % number
        assert rows(arenite.read_json(make(line + "\n"), executor=executor)) == [json.loads(line)]


def test_the_type_that_was_given_decides_about_integers_of_json(make, executor):
    path = make('{"a":18446744073709551617,"b":1}\n')
    read = lambda kind: rows(arenite.read_json(path, types={"a": kind}, executor=executor))[0]["a"]  # noqa: E731
    assert read(pa.decimal128(25, 0)) == (1 << 64) + 1
    assert read("float64") == float(1 << 64)


def test_json_of_blank_files(make, executor):
    blanks, filled = [make(text) for text in ("\n\n", " \n", "")], make('{"a":1}\n')
    for by_name in (False, True):
        for files in ([*blanks, filled], [filled, *blanks]):
            assert rows(arenite.read_json(files, by_name=by_name, executor=executor)) == [{"a": 1}]


@pytest.mark.parametrize(
    ("text", "row"), [('{"a":1}\n{\n"a":2\n}\n', 2), ('{"a":1}\n{"a":2}{"a":3}\n', 2), ('{"a":1}\r{"a":2}\r', 1)]
)
def test_each_line_of_json_is_an_object(make, executor, text, row):
    for part_bytes in (1, 12, None):
        for schema in (None, pa.schema([("a", "int64")])):
            call = lambda p=part_bytes, s=schema: arenite.read_json(  # noqa: E731
                make(text), part_bytes=p, schema=s, executor=executor
            )
            assert refused(call, "one line").row == row


def test_json_that_is_nested_deeply(make, executor):
    refused(lambda: arenite.read_json(make('{"a":' + "[" * 500 + "]" * 500 + "}\n"), executor=executor))


# ---- Parquet, and other conversions

ALTERED = [
    (pa.timestamp("ms"), MORNING, "date32"),
    (pa.timestamp("ms"), MORNING, "date64"),
    (pa.timestamp("ms"), MORNING, pa.time64("us")),
    (pa.timestamp("ms"), MORNING.replace(microsecond=5000), pa.timestamp("s")),
    (pa.timestamp("ms", "Europe/Paris"), MORNING.replace(tzinfo=UTC), pa.timestamp("ms")),
    (pa.int64(), 5, "bool"),
    (pa.float64(), 0.5, "bool"),
    (pa.float64(), 1.5, "int64"),
    (pa.float64(), 1.25, pa.decimal128(5, 1)),
    (pa.float64(), 1e300, "float32"),
    (pa.int64(), 2**53 + 1, "float64"),
    (pa.int64(), 2049, "float16"),
    (pa.int64(), 300, "int8"),
    (pa.string(), "0xff", "int8"),
    (pa.decimal128(5, 2), decimal.Decimal("1.25"), pa.decimal128(5, 1)),
    (pa.decimal128(5, 2), decimal.Decimal("1.25"), "int64"),
    (pa.time64("us"), datetime.time(1, 1, 1, 5), pa.time32("s")),
    (pa.duration("us"), datetime.timedelta(microseconds=5), pa.duration("s")),
]
FITTING = [
    (pa.timestamp("ms"), MIDNIGHT, "date32"),
    (pa.date32(), DATE, pa.timestamp("ns")),
    (pa.timestamp("ms"), MORNING, pa.timestamp("s")),
    (pa.int64(), 1, "bool"),
    (pa.bool_(), True, "int64"),
    (pa.float64(), 0.1, "float32"),
    (pa.float64(), 2.0, "int64"),
    (pa.float64(), 0.1, pa.decimal128(5, 2)),
    (pa.float64(), 0.1, "string"),
    (pa.decimal128(5, 2), decimal.Decimal("0.1"), "float64"),
    (pa.string(), "007", "int64"),
    (pa.string(), "x", pa.large_string()),
    (pa.dictionary(pa.int32(), pa.string()), "x", pa.string()),
]


@pytest.mark.parametrize("nest", [lambda value: value, lambda value: [value], lambda value: {"x": value}])
@pytest.mark.parametrize(
    ("fits", "kind", "value", "other"), [(False, *one) for one in ALTERED] + [(True, *one) for one in FITTING]
)
def test_conversions(tmp_path, executor, nest, fits, kind, value, other):
    def nested(kind):
        return {list: pa.list_, dict: lambda kind: pa.struct([("x", kind)])}.get(type(nest(0)), lambda kind: kind)(kind)

    other = nested(pa.type_for_alias(other) if isinstance(other, str) else other)
    try:
        # Arrow makes nulls in structs empty texts.
        found = pa.table({"a": pa.array([nest(value)] if type(nest(0)) is dict else [None, nest(value)], nested(kind))})
    except pa.ArrowNotImplementedError:
        pytest.skip("Arrow makes no such columns of Python's values")
    pq.write_table(found, tmp_path / "a.parquet")
    schema = pa.schema([("a", other)])
    read = lambda **options: arenite.read_parquet(tmp_path / "a.parquet", executor=executor, **options)  # noqa: E731
    calls = [lambda: read(schema=schema), lambda: read(types={"a": other})]
    calls.append(lambda: arenite.table(found, executor=executor).map_batches(lambda batch: batch, schema=schema))
    for call in calls:
        if fits:
            assert call().to_pyarrow().equals(found.cast(schema))
        else:
            refused(call)


def test_integers_and_floats_of_parquet_files_widen_exactly(tmp_path, executor):
    for number, exact in ((2**53 + 1, False), (2**53, True)):
        pq.write_table(pa.table({"a": [number]}), tmp_path / "a.parquet")
        pq.write_table(pa.table({"a": [1.5]}), tmp_path / "b.parquet")
        read = lambda: arenite.read_parquet(f"{tmp_path}/*.parquet", widen=True, executor=executor)  # noqa: E731
        if exact:
            assert [row["a"] for row in rows(read())] == [number, 1.5]
        else:
            refused(read)


# ---- apply


def of(executor, values, **options):
    """Applies a function that returns these values."""
    return arenite.apply(pa.array(range(len(values))), lambda at: values[at], executor=executor, **options)


def test_apply_keeps_nanoseconds(executor):
    pandas = pytest.importorskip("pandas")
    for series in (
        pandas.Series(pandas.to_datetime(["2020-01-01 00:00:00.123456789", None])),
        pandas.Series(pandas.to_timedelta([1, 10**15 + 1], "ns")),
        pandas.Series(pandas.to_datetime(["2020-01-01 00:00:00.123456789"])).dt.tz_localize("Europe/Paris"),
    ):
        found = arenite.apply(series, lambda value: value, executor=executor)
        pandas.testing.assert_series_equal(found, series.apply(lambda value: value))
    for kind in (pa.timestamp("ns"), pa.duration("ns")):
        column = pa.array([1, None, 1001], kind)
        assert arenite.apply(column, lambda value: value, executor=executor).equals(column)
        nested = arenite.apply(column, lambda value: {"x": [value]}, executor=executor)
        assert nested.equals(pa.array([{"x": [value]} for value in column], nested.type))
    with pytest.raises(TypeError, match="nanoseconds"):
        arenite.apply(pa.array([1], pa.time64("ns")), str, executor=executor)
    with pytest.raises(TypeError, match="altered"):
        of(executor, [pandas.Timestamp(1)], type=pa.timestamp("us"))


@pytest.mark.parametrize(
    "values",
    [
        [DATE, MORNING], [MORNING, DATE], ["x", b"x"], [b"x", "x"], [MORNING, MORNING.replace(tzinfo=UTC)],
        [MORNING.replace(tzinfo=UTC), MORNING], [1 << 63, 1], [2**53 + 1, 1.5], [True, 1], [1, "x"],
        [decimal.Decimal("0.1"), 0.1],
    ],
)  # fmt: skip
def test_results_of_several_types_do_not_depend_on_chunks(executor, values):
    with pytest.raises(TypeError, match="pass type="):
        of(executor, values)
    with pytest.raises(TypeError, match="pass type="):
        of(executor, [values[0]] * 300 + [values[1]] * 300)
    with pytest.raises(TypeError, match="pass type="):
        of(executor, [{"a": [values[0], values[1]]}])


def test_zones_do_not_depend_on_chunks(executor):
    values = [MORNING.replace(tzinfo=UTC), MORNING.replace(tzinfo=EAST)]
    for count in (1, 300):
        found = of(executor, [values[0]] * count + [values[1]] * count)
        assert str(found.type.tz) == "UTC" and found[count].as_py() == values[1]


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1.5, pa.int64()), (decimal.Decimal("1.5"), pa.int64()), (MORNING, pa.date32()), (MORNING, pa.date64()),
        (MORNING.replace(microsecond=5), pa.timestamp("s")), (datetime.timedelta(microseconds=5), pa.duration("s")),
        (datetime.time(1, 1, 1, 5), pa.time32("s")), (1e300, pa.float32()), (1e6, pa.float16()),
        ([1.5], pa.list_(pa.int64())), ({"a": 1.5}, pa.struct([("a", pa.int64())])),
        (MORNING.replace(tzinfo=EAST), pa.timestamp("us")),
    ],
)  # fmt: skip
def test_types_of_results_alter_no_value(executor, value, kind):
    with pytest.raises(TypeError):
        of(executor, [None, value], type=kind)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1.0, 2, None], pa.int64()), ([1, 1 << 63], pa.uint64()), ([MIDNIGHT], pa.date32()), ([DATE], pa.date32()),
        ([b"x"], pa.string()), (["x"], pa.dictionary(pa.int8(), pa.string())), ([0.5], pa.float32()),
        ([[("a", 1)]], pa.map_(pa.string(), pa.int64())), ([decimal.Decimal("1.50")], pa.decimal128(5, 1)),
        ([MORNING, None], pa.timestamp("ns")), ([float("nan")], pa.float32()),
    ],
)  # fmt: skip
def test_types_of_results(executor, values, kind):
    found = of(executor, values, type=kind)
    # As strings: a NaN is not equal to itself.
    assert found.type == kind and str(found) == str(pa.array(values, kind))


def test_columns_whose_values_are_no_objects_of_python(executor):
    pandas = pytest.importorskip("pandas")
    for series in (
        pandas.Series(pandas.period_range("2020", periods=2, freq="M")),
        pandas.Series(pandas.interval_range(0, 2)),
    ):
        with pytest.raises(TypeError, match="astype"):
            arenite.apply(series, str, executor=executor)
        texts = series.astype(str)
        assert arenite.apply(texts, str, executor=executor).tolist() == texts.tolist()
    with pytest.raises(TypeError, match="no type in common"):
        arenite.apply(pandas.Series([DATE, MORNING], dtype=object), str, executor=executor)


# ---- columns instead of tables


def test_columns_are_no_tables(make, executor):
    columns = [pa.chunked_array([[1], [2]])]
    if pandas := pytest.importorskip("pandas"):
        columns.append(pandas.Series([1, 2]))
    if polars := pytest.importorskip("polars"):
        columns.append(polars.Series([1, 2]))
    path = make("a\n1\n")
    for column in columns:
        with pytest.raises(TypeError, match="a data frame, a table of pyarrow or a dict of columns"):
            arenite.table(column, executor=executor)
        [result] = arenite.scan_csv(path, executor=executor).map_batches(lambda _, column=column: column)
        assert type(result) is type(column) and list(result) == list(column)
        refused(
            lambda column=column: arenite.read_csv(path, executor=executor).map_batches(lambda _: column),
            "returns a RecordBatch, a Table or a dict of columns",
        )
