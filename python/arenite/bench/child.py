"""Samples that need a separate program: its start, a crash, its death."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid

from . import systems, work

MARK = "ARENITE_BENCH_MARK"
#: The seconds after which a missing result counts as a hang.
HANGS = 3
#: The exit codes of a program that crashes, with the names of their signals.
DEADLY = {-number: number.name for number in (signal.SIGABRT, signal.SIGBUS, signal.SIGSEGV)}


def run(row, key, workers):
    """Runs one sample. Returns `(figure, note)`; if the figure is None, the note gives the reason."""
    mark = uuid.uuid4().hex
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, not pipes: processes that outlive the program would hold the other end of a pipe.
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "arenite.bench.child", row, key, str(workers)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env={**os.environ, MARK: mark},
        )
        try:
            if row == "orphans":
                return orphans(process, out, mark)
            try:
                code = process.wait(timeout=120)
            except subprocess.TimeoutExpired:
                code = "none: it hangs"
            for line in read(out):
                # Also if the program hangs at its end.
                if line.startswith("["):
                    return json.loads(line)
            if row == "crash-results" and code in DEADLY:
                return 0, f"the program dies ({DEADLY[code]})"
            return None, f"exit code {code}: {(read(err) or ['no word'])[-1][:80]}"
        finally:
            process.kill()
            process.wait()
            kill_marked(mark)


def read(file):
    file.seek(0)
    return file.read().strip().splitlines()


def marked(mark):
    """Returns the processes that have inherited the mark of a sample."""
    found = []
    for name in os.listdir("/proc"):
        try:
            if name.isdigit() and mark.encode() in open(f"/proc/{name}/environ", "rb").read():
                found.append(int(name))
        except OSError:
            pass
    return found


def kill_marked(mark):
    for pid in marked(mark):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def orphans(process, out, mark):
    while "ready" not in read(out):
        if process.poll() is not None:
            return None, "did not start"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # Measures the processes that are left after a second.
    time.sleep(1)
    left = [pid for pid in marked(mark) if pid != process.pid]
    # Other programs may use /dev/shm, too; the names of every measured system contain the process id.
    names = [f"/dev/shm/{name}" for name in os.listdir("/dev/shm") if str(process.pid) in name]
    size = 0
    for name in filter(os.path.isfile, names):
        size += os.stat(name).st_blocks * 512
        os.unlink(name)
    return len(left), f"{len(names)} names, {size / 1e6:.0f} MB in /dev/shm"


def start(system, workers):
    begin = time.perf_counter()
    running = system(workers)
    running.call(work.noop)
    figure = (time.perf_counter() - begin) * 1e3
    return running, figure, ""


def crashed(system, workers, task):
    """Runs 100 tasks of which one crashes.

    Returns the time from its error to the next result, and the numbers of results, errors and tasks without an end.
    """
    running = system(workers)
    running.call(work.noop)
    tasks = [running.submit(task, number) for number in range(100)]
    results = errors = hanging = 0
    figure = None

    def answer(number):
        nonlocal results, errors, hanging
        try:
            ok = tasks[number].result(timeout=HANGS if hanging < 2 else 0) == number
            results += ok
        except Exception as error:
            if "imeout" in type(error).__name__:
                hanging += 1
            else:
                errors += 1

    # Waits for the crashed task first: the time from its error is measured.
    answer(50)
    if errors:
        begin = time.perf_counter()
        try:
            running.call(work.noop)
            figure = (time.perf_counter() - begin) * 1e3
        except Exception:
            pass
    for number in range(100):
        if number != 50:
            answer(number)
    return running, figure, (results, errors, hanging)


def crash(system, workers):
    running, figure, (results, errors, hanging) = crashed(system, workers, work.crash_at_fifty)
    note = f"{results} results, {errors} errors" + (f", {hanging} hang" if hanging else "")
    return running, figure, note


def crash_results(system, workers):
    running, next_result, (results, errors, hanging) = crashed(system, workers, work.crash_at_fifty_later)
    if errors > 1 and next_result is None:
        return running, results, "the pool is broken"
    errors = f"{errors} error{'s' * (errors != 1)}" if errors else ""
    hanging = f"{hanging} never end{'s' * (hanging == 1)}" if hanging else ""
    return running, results, ", ".join(filter(None, (errors, hanging)))


def be_killed(system, workers):
    running = system(workers)
    running.map_singly(work.worker, range(4 * workers))
    try:
        import numpy

        array = running.place(numpy.ones(12_000_000))  # noqa: F841, held until the end
    except ImportError:
        pass
    print("ready", flush=True)
    signal.pause()


def main():
    row, key, workers = sys.argv[1], sys.argv[2], int(sys.argv[3])
    system = systems.ALL[key]
    system.load()
    if row == "orphans":
        be_killed(system, workers)
    running, figure, note = {"start": start, "crash": crash, "crash-results": crash_results}[row](system, workers)
    print(json.dumps([figure, note]), flush=True)
    running.close()


if __name__ == "__main__":
    main()
