"""`python -m arenite.bench`: its figures are of the work that they name, and its goals are judged as written."""

import json
import subprocess
import sys
import xml.etree.ElementTree

import harness
import pytest
from arenite.bench import measure, report, rows, svg, systems, work


def bench(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "arenite.bench", *arguments], capture_output=True, text=True, check=True
    ).stdout


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
    measure.take_turns(row, {"wrong": Wrong()}, 1, figures, lambda words: None)
    assert figures.samples == {}
    assert "wrong result" in figures.notes["wrong"]


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


def test_work_is_what_its_name_says():
    assert work.square(7) == 49
    assert work.square_all([1, 2]) == [1, 4]
    np = pytest.importorskip("numpy")
    out = np.empty(3, int)
    work.square_into(np.arange(3), out)
    assert out.tolist() == [0, 1, 4]
    assert work.touch(np.ones(3 * 4096, np.uint8)) == 3
