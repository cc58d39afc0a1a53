"""Editors: what jedi (Spyder, pylsp, IPython) and pyright (Pylance) complete and show is what the package has."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import arenite
import pytest

pytest.importorskip("numpy")

#: Programs, each with what its last word is completed to.
COMPLETIONS = [
    ("arenite.Exec", "Executor"),
    ("arenite.iso", "isolated"),
    ("arenite.Executor(2).sub", "submit"),
    ("arenite.Executor(2).options(dead", "deadline="),
    ("arenite.Executor(2).options(deadline=3).ma", "map"),
    ("arenite.Executor(2).submit(abs, 1).exc", "exception"),
    ("arenite.Pool(2).imap_u", "imap_unordered"),
    ("arenite.connect('x').dra", "draft"),
    ("arenite.scan_csv('x').write_p", "write_parquet"),
    ("arenite.service.Serv", "Service"),
    ("arenite.Executor(2).sta", "stats"),
    ("arenite.WorkerD", "WorkerDied"),
    ("with arenite.Executor() as ex:\n    ex.optio", "options"),
]
#: Names whose documentation is shown.
SHOWN = [
    "Executor", "Executor.share", "Executor.options", "Pool", "isolated", "mut", "empty", "install", "cancelled",
    "Table", "read_csv", "WorkerDied",
]  # fmt: skip


def documentation(name):
    """The first line of what the running package says of a name."""
    found = arenite
    for part in name.split("."):
        found = getattr(found, part)
    return inspect.getdoc(found).splitlines()[0]


def flat(text):
    """Without what an editor adds: line breaks, and the backslashes of Markdown."""
    return " ".join(text.replace("\\", "").replace("&nbsp;", " ").split())


class Jedi:
    def __init__(self, folder):
        self.jedi = pytest.importorskip("jedi")
        self.jedi.settings.cache_directory = str(folder / "cache")
        self.project = self.jedi.Project(folder, added_sys_path=[str(Path(arenite.__file__).parents[1])])

    def read(self, program):
        # In this process, and not in one that jedi starts.
        here = self.jedi.InterpreterEnvironment()
        return self.jedi.Script(program, project=self.project, environment=here)

    def complete(self, program):
        return [found.name for found in self.read(program).complete()]

    def hover(self, program, line, column):
        names = self.read(program).help(line + 1, column)
        return "".join(name.docstring() for name in names)

    def close(self):
        pass


class Pyright:
    """A client of its language server."""

    def __init__(self, folder):
        pytest.importorskip("basedpyright")
        program = shutil.which("basedpyright-langserver", path=os.path.dirname(sys.executable))
        self.server = subprocess.Popen(
            [program, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder
        )
        self.uri, self.last = (folder / "use.py").as_uri(), 0
        self.paths = [str(Path(arenite.__file__).parents[1])]
        asks_for_settings = {"workspace": {"configuration": True}}
        self.ask("initialize", processId=os.getpid(), rootUri=folder.as_uri(), capabilities=asks_for_settings)
        self.send(method="initialized", params={})

    def send(self, **message):
        text = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self.server.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(text), text))
        self.server.stdin.flush()

    def ask(self, method, **params):
        self.last += 1
        self.send(id=self.last, method=method, params=params)
        while True:
            length = 0
            while line := self.server.stdout.readline().strip():
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            assert length, "the server has ended"
            message = json.loads(self.server.stdout.read(length))
            if message.get("method") == "workspace/configuration":
                settings = {"extraPaths": self.paths, "diagnosticMode": "openFilesOnly"}
                answers = [
                    {"pythonPath": sys.executable} if item.get("section") == "python" else settings
                    for item in message["params"]["items"]
                ]
                self.send(id=message["id"], result=answers)
            elif "method" in message and "id" in message:
                self.send(id=message["id"], result=None)
            elif message.get("id") == self.last:
                assert "error" not in message, message
                return message["result"]

    def at(self, program, line, column):
        document = {"uri": self.uri, "languageId": "python", "version": self.last, "text": program}
        self.send(method="textDocument/didOpen", params={"textDocument": document})
        return {"textDocument": {"uri": self.uri}, "position": {"line": line, "character": column}}

    def closed(self, answer):
        self.send(method="textDocument/didClose", params={"textDocument": {"uri": self.uri}})
        return answer

    def complete(self, program):
        lines = program.split("\n")
        found = self.closed(self.ask("textDocument/completion", **self.at(program, len(lines) - 1, len(lines[-1]))))
        return [item["label"] for item in (found["items"] if isinstance(found, dict) else found or [])]

    def hover(self, program, line, column):
        found = self.closed(self.ask("textDocument/hover", **self.at(program, line, column)))
        return found["contents"]["value"] if found else ""

    def close(self):
        self.server.kill()
        self.server.communicate()


@pytest.mark.patience(300)
@pytest.mark.parametrize("kind", [Jedi, Pyright])
def test_names_are_completed_and_explained(kind, tmp_path):
    editor = kind(tmp_path)
    try:
        for words, expected in COMPLETIONS:
            found = editor.complete(f"import arenite\n{words}")
            assert expected in found, (words, found[:10])
        for name in SHOWN:
            line = f"arenite.{name}"
            shown = flat(editor.hover(f"import arenite\n{line}", 1, len(line) - 1))
            assert flat(documentation(name)) in shown, (name, shown)
    finally:
        editor.close()
