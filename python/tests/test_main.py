"""`python -m arenite`: its tools work with the package alone, and are those of the command where it is found."""

import json
import os
import subprocess
import sys

import arenite
import harness
import pytest


def tool(*arguments, command="/no/such", code=0):
    run = subprocess.run(
        [sys.executable, "-m", "arenite", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "ARENITE_COMMAND": command},
    )
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout + run.stderr


def test_doctor_examines_this_machine():
    found = {line["subject"]: line for line in json.loads(tool("doctor", "--json"))}
    assert found["trial"]["mark"] == "✔" and "ran a task" in found["trial"]["found"]
    assert found["python"]["found"].endswith(sys.executable)
    assert found["command"] == {"mark": "!", "subject": "command", "found": found["command"]["found"]}
    assert "pip install arenite-cli" in found["command"]["found"]
    text = tool("doctor")
    assert all(f" {subject} " in text for subject in found)


def test_top_shows_engines():
    with arenite.Executor(1) as ex:
        assert ex.submit(abs, -1).result() == 1
        [shown] = [line for line in tool("top").splitlines() if f" {os.getpid()} " in line]
        assert shown.split()[-1].isdigit() and " of " in shown
        view = json.loads(tool("top", "--json"))
        own = [engine for engine in view["engines"] if engine["pid"] == os.getpid()]
        assert [engine["done"] for engine in own] == [1]
        if harness.COMMAND:
            told = json.loads(subprocess.check_output([harness.COMMAND, "top", "--json"], text=True))
            [same] = [engine for engine in told["engines"] if engine["pid"] == os.getpid()]
            assert set(same) == set(own[0]) and same["program"] == own[0]["program"]


def test_the_command_does_it_if_it_is_found(tmp_path):
    command = tmp_path / "command"
    command.write_text('#!/bin/sh\necho "$@"\n')
    command.chmod(0o755)
    assert tool("doctor", "--clean", command=str(command)) == "doctor --clean\n"
    assert tool("top", "--interval", "5s", command=str(command)) == "top --interval 5s\n"
    assert str(command) in tool("-h", command=str(command)).replace("\n", "")


@pytest.mark.parametrize("arguments", [[], ["nothing"], ["doctor", "--clean"], ["top", "--interval", "1s"]])
def test_wrong_usage_says_what_there_is(arguments):
    said = tool(*arguments, code=2)
    assert "{doctor,top,bench}" in said
    if len(arguments) > 1:
        assert "need the command `arenite`" in said


def test_bench_is_the_benchmark():
    assert "round-trip" in tool("bench", "--list")
