"""Runs a command with tests, counts them, and runs each failed one once more.

    tests.py UNSTABLE COMMAND…

COMMAND is `cargo test …` or `python -m pytest …`. Of all tests of the workspace, only those of the programs in
`ARENITE_PROGRAMS` run, where it is set: names of .ci/steps with spaces between them. All tests of the workspace run as
two commands beside each other: the suites of `tests/`, which wait for processes most of their time, and the rest, which
computes. A shared machine may
stall a process for seconds, which no time limit of a test can allow for: a test that fails is run once more on its own.
If it passes then, its name is appended to the file UNSTABLE; otherwise this program fails. It fails, too, if COMMAND
ran no test.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import threading
import time

PROGRAMS = os.environ.get("ARENITE_PROGRAMS", "").split()
if sys.argv[1] == "--program":
    # Cargo starts each program with tests by this file, in the environment of the package.
    name = "examples" if "/examples/" in sys.argv[2] else re.sub(r"-[0-9a-f]+$", "", os.path.basename(sys.argv[2]))
    if f"{os.environ['CARGO_PKG_NAME']}/{name}" not in PROGRAMS:
        sys.exit(print("not affected by what has changed"))
    os.execv(sys.argv[2], sys.argv[2:])
unstable, *command = sys.argv[1:]
is_pytest = "pytest" in command
is_everything = "--workspace" in command and not {"--lib", "--test", "--bins", "--doc", "-p", "--"} & set(command)

# How long each program of a `cargo test` took, to see where the time goes.
times = []
passed = ignored = suites = 0
# Failed tests: (arguments that select their program, name). No name: the program ended without a result.
failed = []


def run(words, show=print):
    """Runs a command, passes its output on, and yields it line by line; returns its exit code."""
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    for line in child.stdout:
        show(line.rstrip("\n"), flush=True)
        yield re.sub(r"\x1b\[[0-9;]*m", "", line.rstrip("\n"))
    return child.wait()


def selection(running):
    """Returns the arguments of cargo that select the program of a line `Running …` or `Doc-tests …`."""
    if running.startswith("Doc-tests"):
        return ["--doc"]
    path, program = re.match(r"Running (?:unittests )?(\S+) \((\S+)\)", running).groups()
    name = re.sub(r"-[0-9a-f]+$", "", os.path.basename(program))
    if path == "src/lib.rs":
        return ["--lib"]
    if path.startswith("src/"):
        return ["--bin", name]
    return ["--example" if "/examples/" in program else "--test", name]


def is_wanted(package, name):
    return not PROGRAMS or f"{package}/{name}" in PROGRAMS


def sides():
    """Returns the commands that run beside each other, each a list of commands one after the other."""
    if not is_everything:
        return [[command]]
    words = ["cargo", "metadata", "--no-deps", "--format-version=1"]
    described = subprocess.run(words, capture_output=True, check=True)
    suites, rest, kinds = [], [], {}
    for package in json.loads(described.stdout)["packages"]:
        of = suites if package["name"] == "arenite-tests" else rest
        for target in package["targets"]:
            is_built = "--all-features" in command or not target.get("required-features")
            kind, name = target["kind"][0], "examples" if target["kind"] == ["example"] else target["name"]
            if target["test"] and is_built and is_wanted(package["name"], name):
                if kind == "test":
                    of += ["--test", target["name"]]
                elif kind in ("lib", "bin", "example"):
                    kinds["--lib" if kind == "lib" else f"--{kind}s"] = True
            if target["doctest"] and is_wanted(package["name"], "doc"):
                kinds["--doc"] = True
    names = [name for name in suites + rest if name != "--test"]
    if len(set(names)) < len(names):
        sys.exit(f"two programs with tests have one name: {sorted(names)}")
    doc = [["--doc"]] if kinds.pop("--doc", False) else []
    if "--no-run" in command:
        return [[arguments(command, *kinds, *rest, *suites)]] if names or kinds else []
    found = [[suites], [[*kinds, *rest], *doc]]
    return [[arguments(command, *words) for words in side if words] for side in found]


def cargo():
    """Runs all tests of cargo, and notes what failed."""
    codes = []

    def side(commands):
        for words in commands:
            codes.append(cargo_command(words))

    threads = [threading.Thread(target=side, args=(commands,)) for commands in sides()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(codes, default=0)


printing = threading.Lock()


def cargo_command(words):
    """Runs one command of cargo. The output of each program is shown when the program has ended."""
    global passed, ignored, suites
    where, began, shown = [], time.monotonic(), []

    def finish():
        nonlocal began, shown
        with printing:
            print("\n".join(shown), flush=True)
            if where:
                times.append((time.monotonic() - began, " ".join(where)))
        began, shown = time.monotonic(), []

    is_listed = False
    words = arguments(words, "--no-fail-fast")
    if PROGRAMS and is_everything and "--doc" not in words:
        starter = json.dumps([sys.executable, os.path.abspath(__file__), "--program"])
        words = arguments(words, "--config", f'target."cfg(all())".runner = {starter}')
    output = run(words, lambda line, flush: shown.append(line))
    while True:
        try:
            line = next(output)
        except StopIteration as end:
            finish()
            return end.value
        text = line.strip()
        is_listed = is_listed and line.startswith("    ")
        if re.match(r"Running (unittests )?\S+ \(\S+\)$|Doc-tests ", text):
            finish()
            where = selection(text)
        elif line == "failures:":
            is_listed = True
        elif is_listed and (match := re.match(r"    (.+?)( - should panic| - compile fail| - compile)?$", line)):
            failed.append((where, match[1]))
        elif line.startswith(("error: test failed, to rerun", "error: doctest failed, to rerun")):
            if not any(selected == where for selected, _ in failed):
                failed.append((where, None))
        elif text.startswith("test result: "):
            with printing:
                suites += 1
                passed += sum(int(n) for n in re.findall(r"(\d+) passed", text))
                ignored += sum(int(n) for n in re.findall(r"(\d+) ignored", text))


def arguments(words, *more):
    """Returns a command with more arguments for cargo, before those for the tests."""
    at = words.index("--") if "--" in words else len(words)
    return [*words[:at], *more, *words[at:]]


def again(where, name):
    """Runs a failed test once more; returns whether it passes."""
    # `--lib` and `--doc` may not be given twice.
    words = arguments(command, *([] if len(where) == 1 and where[0] in command else where))
    if name is not None:
        words += ([] if "--" in words else ["--"]) + ["--exact", name]
    print(f"\n==== FAILED ONCE, tried again: {shlex.join(words)}", flush=True)
    output = run(words)
    count = 0
    while True:
        try:
            count += sum(int(n) for n in re.findall(r"test result: ok\. (\d+) passed", next(output)))
        except StopIteration as end:
            # A program without a harness counts nothing.
            return end.value == 0 and (count > 0 or name is None)


def pytest():
    """Runs all tests of pytest, and notes what failed."""
    global passed, ignored, suites
    output = run([*command, "-rfE"])
    while True:
        try:
            line = next(output)
        except StopIteration as end:
            return end.value
        if match := re.match(r"(?:FAILED|ERROR) (\S+::.+?)(?: - .*)?$", line):
            failed.append(([], match[1]))
        elif re.match(r"=*\s*\d+ (passed|failed|skipped|error).* in [0-9.]+s", line):
            suites += 1
            passed += sum(int(n) for n in re.findall(r"(\d+) passed", line))
            ignored += sum(int(n) for n in re.findall(r"(\d+) skipped", line))


def again_pytest(name):
    """Runs a failed test of pytest once more; returns whether it passes."""
    # The folders that were named go, because a test in them is named now; so does what runs tests beside each other.
    begin = command.index("pytest") + 1
    words = [word for word in command[begin:] if not os.path.exists(word) and not re.match(r"-n\d|--dist=", word)]
    words = [*command[:begin], *words]
    print(f"\n==== FAILED ONCE, tried again: {name}", flush=True)
    return subprocess.run([*words, name]).returncode == 0


if "--no-run" in command:
    sys.exit(max((subprocess.run(words).returncode for [words] in sides()), default=0))
code = pytest() if is_pytest else cargo()
for took, where in sorted(times, reverse=True)[:12]:
    print(f"{took:7.1f} s  {where}")
failed = list({(tuple(where), name): (where, name) for where, name in failed}.values())
print(f"tests: {passed} passed, {len(failed)} failed, {ignored} ignored, in {suites} suites", flush=True)
if code != 0 and not failed:
    sys.exit(f"exit code {code}, and no test failed")
if passed == 0:
    sys.exit("no test ran")
# So many failures are no accident of the machine.
if len(failed) > 20:
    sys.exit(f"{len(failed)} tests failed")
lasting = []
for where, name in failed:
    named = " ".join([*where, name or "(ended without a result)"])
    if again_pytest(name) if is_pytest else again(where, name):
        with open(unstable, "a") as file:
            file.write(f"FAILED ONCE: {named}\n")
    else:
        lasting.append(named)
if lasting:
    sys.exit("failed twice: " + ", ".join(lasting))
