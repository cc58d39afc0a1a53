"""`python -m arenite.bench`: its figures are of the work that they name, and its goals are judged as written."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import xml.etree.ElementTree
from pathlib import Path

import harness
import pytest
from arenite.bench import child, measure, peer, report, rows, store_rows, svg, systems, work

COMMAND = harness.COMMAND


def bench(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "arenite.bench", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


@contextlib.contextmanager
def nothing_of_a_peer_left():
    """What programs of other runs have is theirs: only names and processes that are new count."""

    def found():
        names = {f"{folder}/{name}" for folder in (peer.SHM, tempfile.gettempdir()) for name in os.listdir(folder)}
        return {name for name in names if peer.name_of("") in name}

    before = found()
    yield
    harness.until(lambda: found() <= before, "files of the other program to be removed")


def test_list():
    shown = bench("--list")
    assert all(name in shown for name in [*rows.ALL, *systems.ALL])


@pytest.mark.patience(300)
def test_a_quick_run_as_table_json_and_chart(tmp_path):
    with harness.waiting("a quick run of three rows"):
        table = bench(
            "--quick", "--rows", "round-trip,square-list,start", "--systems", "arenite,pool,threads",
            "--json", str(tmp_path / "figures.json"), "--svg", str(tmp_path / "chart.svg"),
        )  # fmt: skip
    found = json.loads((tmp_path / "figures.json").read_text())
    assert [row["name"] for row in found["rows"]] == ["round-trip", "square-list", "start"]
    for row in found["rows"]:
        assert set(row["systems"]) == {"arenite", "pool", "threads"}, row["notes"]
        assert all(len(system["samples"]) == 3 and system["median"] > 0 for system in row["systems"].values())
        assert row["title"] in table
    assert [goal["goal"] for goal in found["rows"][0]["goals"]] == ["≤ 0.4 × pool", "≤ 0.75 × threads"]
    words = "".join(xml.etree.ElementTree.parse(tmp_path / "chart.svg").getroot().itertext())
    assert "multiprocessing.Pool" in words and "arenite" in words
    drawn = [(tmp_path / name).read_text() for name in ("chart.svg", "chart-dark.svg")]
    again = bench("--from", str(tmp_path / "figures.json"), "--svg", str(tmp_path / "chart.svg"))
    assert again == table and drawn == [(tmp_path / name).read_text() for name in ("chart.svg", "chart-dark.svg")]
    assert svg.DARK.page in drawn[1] and not any(colour in drawn[1] for colour in svg.LIGHT)


def test_a_crash_costs_arenite_one_result_and_threads_all():
    with harness.waiting("100 tasks of which one crashes, in two systems"):
        text = bench("--quick", "--rows", "crash-results", "--systems", "arenite,threads", "--json", "-")
    [row] = json.loads(text)["rows"]
    assert {key: system["samples"] for key, system in row["systems"].items()} == {
        "arenite": [99] * 3,
        "threads": [0] * 3,
    }
    assert row["notes"] == {"arenite": "1 error", "threads": "the program dies (SIGSEGV)"}


def figures_of_store_rows(*names, **environment):
    with nothing_of_a_peer_left(), harness.waiting("a quick run of rows of the store"):
        text = bench("--quick", "--rows", ",".join(names), "--systems", "arenite,pool", "--json", "-", **environment)
    found = json.loads(text)["rows"]
    assert [row["name"] for row in found] == list(names)
    return found


@pytest.mark.patience(300)
@pytest.mark.skipif(COMMAND is None, reason="the command is not built: cargo build --release -p arenite-cli")
def test_a_quick_run_of_the_rows_of_the_store():
    pytest.importorskip("numpy")
    found = figures_of_store_rows(
        "store-get", "store-get-1gib", "store-sum", "store-seal-1gib", ARENITE_COMMAND=COMMAND
    )
    beside = {"shared_memory", "pyarrow"}
    others = [beside | {"Redis"}, beside, beside | {"Redis"}, {"with unmapping"}]
    for row, other in zip(found, others, strict=True):
        absent = {"pyarrow": rows.Row.is_there("pyarrow"), "Redis": shutil.which("redis-server")}
        absent = {name for name, there in absent.items() if name in other and not there}
        assert set(row["systems"]) == {"arenite"} | other - absent, row["notes"]
        assert {name for name, note in row["notes"].items() if "not installed" in note} == absent
        assert all(len(system["samples"]) == 3 and system["median"] > 0 for system in row["systems"].values())
    if "Redis" in found[0]["systems"]:
        assert [goal["goal"] for goal in found[0]["goals"]] == ["≤ 0.05 × Redis", "≤ 2 × shared_memory"]


@pytest.mark.patience(300)
def test_a_quick_run_of_a_call_of_a_service():
    [row] = figures_of_store_rows("service-call")
    assert set(row["systems"]) == {"arenite", "pool", "Unix socket, echo", "Executor, own workers"}, row["notes"]


def test_without_the_command_the_rows_of_the_store_say_what_they_need():
    pytest.importorskip("numpy")
    found = figures_of_store_rows("store-get", "store-seal-1gib", ARENITE_COMMAND="/no/such/command")
    for row in found:
        assert row["systems"] == {}
        assert "needs the command `arenite`" in row["notes"]["arenite"]


def test_a_server_that_does_not_start_leaves_its_row_out(monkeypatch):
    pytest.importorskip("numpy")
    monkeypatch.setenv("ARENITE_COMMAND", shutil.which("false"))
    with nothing_of_a_peer_left():
        figures = measure.measure(rows.ALL["store-get"](), ["arenite"], 1, True, lambda words: None)
    assert figures.samples == {}
    assert "did not start" in figures.notes["arenite"]


@pytest.mark.parametrize("who", ["the peer", "the program that measures"])
def test_a_killed_program_leaves_nothing(who):
    pytest.importorskip("numpy")
    holders = ["shared_memory", "service", "echo", *(["pyarrow"] if rows.Row.is_there("pyarrow") else [])]
    start = f"from arenite.bench import peer; print(peer.Peer(*{holders}, elements=1000).mark, flush=True); input()"
    with nothing_of_a_peer_left():
        if who == "the peer":
            made = peer.Peer(*holders, elements=1000)
            made.process.kill()
            made.close()
            harness.until(lambda: not child.marked(made.mark), "the peer and its workers to end")
        else:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            with subprocess.Popen([sys.executable, "-c", start], **pipes) as program:
                mark = program.stdout.readline().strip()
                assert child.marked(mark)
                program.kill()
            harness.until(lambda: not child.marked(mark), "the other program and its workers to end")


def test_busy_programs_end_with_the_one_that_measures():
    start = "from arenite.bench import rows; rows.BusyMap().prepare(); print(flush=True); input()"
    mark = uuid.uuid4().hex
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": {**os.environ, child.MARK: mark}}
    with subprocess.Popen([sys.executable, "-c", start], **pipes) as program:
        program.stdout.readline()
        assert len(child.marked(mark)) == 1 + 2 * len(os.sched_getaffinity(0))
        program.kill()
    harness.until(lambda: not child.marked(mark), "the busy programs to end")


def test_a_wrong_element_is_no_figure():
    row = store_rows.Get()
    with pytest.raises(AssertionError, match="wrong result: elements"):
        row.run(lambda use: use([1.0, peer.LAST]))


def figures_of(row, **samples):
    figures = measure.Figures(row)
    figures.samples = {key: [value] for key, value in samples.items()}
    return figures


def test_goals():
    medians = {"round-trip": {"arenite": 30.0, "pool": 100.0, "threads": 38.0}}
    judged = [goal.judge("round-trip", medians) for goal in rows.RoundTrip.goals]
    assert [reached for _, _, reached in judged] == [True, False]
    assert judged[0][1] == pytest.approx(0.3)
    assert rows.Goal(">=", 2, "pool").judge("map-10k", {"map-10k": {"arenite": 1, "pool": 0.5}})[2] is True
    assert rows.Goal("<=", 50).judge("crash", {"crash": {"arenite": 51}})[2] is False
    # Without the other system there is nothing to compare with.
    assert rows.Goal("<=", 1, "loky").judge("start", {"start": {"arenite": 1.0}}) is None


def test_the_table_says_which_is_faster():
    text = report.table(figures_of(rows.RoundTrip(), arenite=30, pool=90, threads=15), {})
    assert "3 × slower" in text and "2 × faster" in text
    text = report.table(figures_of(rows.Submit(), arenite=100, pool=50, threads=101), {})
    assert "2 × slower" in text and "the same" in text


def test_a_wrong_result_is_no_figure():
    class Wrong(systems.System):
        key = "wrong"

        def map_in_chunks(self, function, items, chunk):
            return [0] * len(items)

        def __init__(self):
            pass

    row, figures = rows.MapChunks(), measure.Figures(rows.MapChunks())
    measure.take_turns(row, {"wrong": Wrong()}, 1, figures, lambda words: None, 30)
    assert figures.samples == {}
    assert "wrong result" in figures.notes["wrong"]


def test_a_system_takes_no_more_time_than_it_has(tmp_path):
    """One turn of the row never ends; the figures of the other system are there, and the program ends."""
    held = tmp_path / "held.py"
    held.write_text(
        "import threading\n"
        "from arenite.bench import __main__, rows, systems\n"
        "def hold(self, function, items):\n"
        "    self.submit(threading.Event().wait)\n"
        "    threading.Event().wait()\n"
        "systems.Pool.map_singly = hold\n"
        "__main__.main()\n"
    )
    arguments = ["--rows", "map-10k", "--systems", "pool,threads", "--limit", "1", "--json", "-"]
    with harness.waiting("a row with a system that never ends"):
        run = subprocess.run([sys.executable, str(held), *arguments], capture_output=True, text=True, check=True)
    [row] = json.loads(run.stdout)["rows"]
    assert row["notes"] == {"pool": "not done within 1 s (--limit)"}
    assert list(row["systems"]) == ["threads"]


def test_a_slow_system_takes_part_in_fewer_turns():
    class Slow(rows.Row):
        name, rounds = "slow", 5

        def sample(self, system):
            return system(0.3)

    figures = measure.Figures(Slow())
    running = {"slow": time.sleep, "fast": lambda seconds: seconds}
    measured = {key: (lambda seconds, wait=wait: wait(seconds) or 1) for key, wait in running.items()}
    measure.take_turns(Slow(), measured, 5, figures, lambda words: None, 1)
    # It is warmed up for 0.3 s, and after three more turns it has used up its second.
    assert 1 <= len(figures.samples["slow"]) <= 3 and len(figures.samples["fast"]) == 5


def test_each_row_has_a_name_and_runs_somewhere():
    for name, row in rows.ALL.items():
        assert row.name == name and row.title and row.unit
        assert "arenite" not in row.without
        assert set(row.without) <= set(systems.ALL)


def test_the_chart_is_whole_without_figures():
    machine = report.machine()
    empty = svg.draw([], machine)
    assert xml.etree.ElementTree.fromstring(empty) is not None
    crash = figures_of(rows.Crash(), arenite=3.0)
    crash.notes = {"arenite": "99 results, 1 errors", "ppe": "50 results, 50 errors", "pool": "99 results, <1> hang"}
    drawn = "".join(xml.etree.ElementTree.fromstring(svg.draw([crash], machine)).itertext())
    assert "50 results, 50 errors" in drawn and "<1> hang" in drawn


def bars(figures, is_linear):
    """The lengths of the bars, from the first one down."""
    drawn = svg.panel(figures, 0, 0, svg.LIGHT, is_linear)
    return [float(width) for width in re.findall(rf'width="([\d.]+)" height="{svg.BAR}\.0"', drawn)]


def test_linear_bars_begin_at_zero():
    figures = figures_of(rows.RoundTrip(), arenite=10, pool=100, threads=1000)
    # The shortest bar is longer than its figure, so that it is seen.
    ours, pool, threads = bars(figures, True)
    assert (ours, pool / threads) == (2.0, pytest.approx(0.1, abs=0.001))
    ours, _, threads = bars(figures_of(rows.RoundTrip(), arenite=20, pool=100, threads=1000), True)
    assert ours / threads == pytest.approx(0.02, abs=0.001)
    ours, pool, threads = bars(figures, False)
    assert (pool / threads, ours) == (pytest.approx(0.5, abs=0.001), 2.0)
    # Counts of a whole have no other scale; one that is zero has no bar.
    crash = figures_of(rows.CrashResults(), arenite=99, ppe=49.5, threads=0)
    for is_linear in (True, False):
        ours, ppe = bars(crash, is_linear)
        assert ppe / ours == pytest.approx(0.5, abs=0.001)
    assert svg.keys(crash) == ["arenite", "ppe", "threads"]
    machine = report.machine()
    drawn = [svg.draw([figures, crash], machine, is_linear=is_linear) for is_linear in (False, True)]
    assert ["Log" in chart for chart in drawn] == [True, False]


def test_the_charts_of_the_readmes_are_of_the_figures_beside_them():
    pictures = Path(__file__).parents[2] / "docs/pictures"
    machine, figures = report.from_json(json.loads((pictures / "bench.json").read_text()))
    assert machine["date"] and machine["packages"]["arenite"]
    # `packaging/pictures.sh chart` draws them again.
    for name, colours in (("bench.svg", svg.LIGHT), ("bench-dark.svg", svg.DARK)):
        drawn = svg.draw(figures, machine, colours, is_linear=True)
        assert (pictures / name).read_text() == drawn
        # The first program has to stand on the first screen beside it.
        assert float(re.search(r'viewBox="0 0 \d+ (\d+)"', drawn)[1]) <= 420


def test_work_is_what_its_name_says():
    assert work.square(7) == 49
    assert work.square_all([1, 2]) == [1, 4]
    np = pytest.importorskip("numpy")
    out = np.empty(3, int)
    work.square_into(np.arange(3), out)
    assert out.tolist() == [0, 1, 4]
    assert work.touch(np.ones(3 * 4096, np.uint8)) == 3
