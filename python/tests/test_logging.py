"""Records of `logging` that tasks make, and what becomes of them in the program."""

import logging
import pathlib
import threading

import harness
import pytest

import arenite


def log(n):
    logger = logging.getLogger("job.of_a_test")
    logger.debug("debug %d", n)
    logger.info("info %d", n)
    logger.warning("warning %s", {"n": n})
    return n


def log_error():
    try:
        1 // 0
    except ZeroDivisionError:
        logging.getLogger("job.of_a_test").exception("it failed", extra={"where": threading.Lock()})


def configure():
    logging.basicConfig(level=logging.DEBUG, format="own %(message)s")


class Kept(logging.Handler):
    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@pytest.fixture
def kept():
    """A handler of the program for the loggers of the tasks, of which `job` wants INFO."""
    handler, logger = Kept(), logging.getLogger("job")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


@pytest.mark.parametrize("how", ["auto", "forward"])
def test_records_reach_the_handlers_of_the_program(kept, how):
    with arenite.Executor(2, max_tasks_per_child=3, settings=arenite.Settings(logging=how)) as ex:
        list(ex.map(log, range(10)))
    expected = sorted([f"info {n}" for n in range(10)] + [f"warning {{'n': {n}}}" for n in range(10)])
    assert sorted(record.getMessage() for record in kept.records) == expected
    assert {(record.name, record.processName) for record in kept.records} <= {
        ("job.of_a_test", name) for name in ("arenite-1", "arenite-2", "MainProcess")
    }


def test_exceptions_and_extra_values_are_text(kept):
    with arenite.Executor(1) as ex:
        ex.submit(log_error).result()
    (record,) = kept.records
    assert "ZeroDivisionError" in logging.Formatter().format(record)
    assert record.where.startswith("<unlocked _thread.lock")


def log_values():
    logger = logging.getLogger("job.of_a_test")
    logger.info({"event": "begins", "of": [1, 2.5, None]})
    logger.info("%(name)s of %(count)d", {"name": "a", "count": 2})
    logger.info("%s and %r", "b", [1])
    logger.info("%s%%", pathlib.PurePosixPath("c"))


def test_formatters_of_the_program_get_values(kept):
    with arenite.Executor(1) as ex:
        ex.submit(log_values).result()
    theirs, kept.records = kept.records, []
    log_values()
    assert [record.getMessage() for record in theirs] == [record.getMessage() for record in kept.records]
    values = [(record.msg, record.args) for record in kept.records]
    assert [(record.msg, record.args) for record in theirs] == [*values[:3], ("c%", None)]


def test_a_worker_of_a_pool_forwards_too(kept):
    with arenite.Pool(1) as pool:
        pool.map(log, [1])
        harness.until(lambda: len(kept.records) == 2, "the records")


def test_an_initializer_that_configures_logging_has_its_way(kept, capfd):
    with arenite.Executor(1, initializer=configure, output="plain") as ex:
        ex.submit(log, 1).result()
    assert not kept.records
    # The level of the program's logger applies, as in a copy of the program.
    assert capfd.readouterr().err == "own info 1\nown warning {'n': 1}\n"
    with arenite.Executor(1, initializer=configure, output=None, settings=arenite.Settings(logging="forward")) as ex:
        ex.submit(log, 2).result()
    # Its level, too.
    assert [record.getMessage() for record in kept.records] == ["info 2", "warning {'n': 2}"]


def test_without_forwarding_there_is_only_the_last_resort(kept, capfd):
    with arenite.Executor(1, output="plain", settings=arenite.Settings(logging=None)) as ex:
        ex.submit(log, 1).result()
    assert not kept.records
    assert capfd.readouterr().err == "warning {'n': 1}\n"


def test_a_program_without_handlers_forwards_nothing():
    source = """
        import logging
        import arenite

        def log():
            logging.getLogger("job").warning("text")

        with arenite.Executor(1) as ex:
            ex.submit(log).result()
    """
    end = harness.script(source)
    assert (end.code, end.err, end.out) == (0, "(arenite:0) text\n", "")


def test_a_long_record_and_many(kept):
    def flood():
        logger = logging.getLogger("job")
        logger.warning("x" * 3_000_000)
        for n in range(5000):
            logger.warning("line %d", n)

    with arenite.Executor(1) as ex, harness.waiting("five thousand records"):
        ex.submit(flood).result()
    assert [len(record.getMessage()) for record in kept.records[:1]] == [3_000_000]
    assert [record.getMessage() for record in kept.records[1:]] == [f"line {n}" for n in range(5000)]


def test_wrong_uses():
    with pytest.raises(ValueError, match='logging must be None, "auto" or "forward"'):
        arenite.Executor(1, settings=arenite.Settings(logging="yes"))
    with pytest.raises(ValueError, match="a sandbox sends no records"):
        arenite.Executor(1, sandbox=True, settings=arenite.Settings(logging="forward"))


def test_a_worker_that_has_connected_is_heard(monkeypatch, kept):
    """Also if the thread that accepts it gets no processor before the executor ends."""
    from arenite._core import channel

    ended = threading.Event()
    accept = channel.Receiver._accept

    def late(self):
        with harness.waiting("the end of the worker"):
            ended.wait()
        accept(self)

    monkeypatch.setattr(channel.Receiver, "_accept", late)
    with arenite.Executor(1, settings=arenite.Settings(logging="forward")) as ex:
        ex.submit(log, 1).result()
        receiver = ex._workers.receivers[0]
        stop = receiver.stop
        monkeypatch.setattr(receiver, "stop", lambda: (stop(), ended.set()))
    assert [record.getMessage() for record in kept.records] == ["info 1", "warning {'n': 1}"]
