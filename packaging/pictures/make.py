"""Makes the pictures of the documentation: `packaging/pictures.sh` prepares what this needs.

    make.py COMMAND FOLDER [PICTURE…]

COMMAND is `arenite`, FOLDER one for everything that the programs in the pictures need, whose name is seen in them.
Pictures go to docs/pictures.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from browser import Browser
from PIL import Image
from terminal import Terminal

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
OUT = ROOT / "docs/pictures"
#: Bytes that a picture may have.
MOST = {".svg": 200_000, ".webp": 120_000}

command, folder, *chosen = sys.argv[1:]
folder = Path(folder)
(folder / "bin").mkdir()
for name, program in (("arenite", command), ("python", sys.executable)):
    # `python` finds its packages by the path that it is started with.
    script = folder / "bin" / name
    script.write_text(f'#!/bin/sh\nexec "{Path(program).absolute()}" "$@"\n')
    script.chmod(0o755)
ENVIRONMENT = {
    "PATH": f"{folder}/bin:/usr/bin:/bin",
    "HOME": str(folder),
    "TERM": "xterm-256color",
    "LANG": "C.UTF-8",
    "XDG_RUNTIME_DIR": str(folder / "run"),
}
(folder / "run").mkdir(mode=0o700)


def save(name, content):
    """Writes a picture, which must not have become too large, nor show where it was made."""
    path = OUT / name
    assert len(content) <= MOST[path.suffix], f"{name} has {len(content)} bytes"
    if path.suffix == ".svg":
        shown = [str(ROOT), str(Path(command).absolute().parent), os.uname().nodename + ":"]
        assert not [text for text in shown if text.encode() in content], f"{name} shows one of {shown}"
    OUT.mkdir(exist_ok=True)
    path.write_bytes(content)
    print(f"{len(content):>8}  {name}")


def chart():
    """Both charts of the figures in bench.json."""
    made = folder / "bench.svg"
    subprocess.run(
        [sys.executable, "-m", "arenite.bench", "--from", OUT / "bench.json", "--linear", "--svg", made],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for name in ("bench.svg", "bench-dark.svg"):
        save(name, (folder / name).read_bytes())


def photos():
    """A folder of photos of which one is torn."""
    there = folder / "photos"
    if there.exists():
        return
    there.mkdir()
    samples = sorted(path for path in (ROOT / "samples").iterdir() if path.suffix in (".jpg", ".png"))
    large = ROOT / "samples/seeding.jpg"
    for number in range(48):
        photo = large if number % 3 else samples[number // 3 % len(samples)]
        shutil.copy(photo, there / f"{photo.stem}-{number + 1:02}{photo.suffix}")
    torn = there / "seeding-41.jpg"
    torn.write_bytes(torn.read_bytes()[:200_000])


def resize():
    photos()
    terminal = Terminal(92, 22, folder, ENVIRONMENT)
    code = terminal.run("arenite resize photos --size 320 --out thumbs")
    assert code == 1, terminal.text
    terminal.run("ls thumbs | wc -l")
    terminal.prompt()
    save("resize.svg", terminal.animation("arenite resize makes thumbnails of all photos but a torn one").encode())


def crash():
    for name in ("parser.c", "crash.py"):
        shutil.copy(HERE / name, folder)
    terminal = Terminal(84, 27, folder, ENVIRONMENT)
    terminal.run("cc -g -O0 -shared -fPIC parser.c -o libparser.so")
    terminal.run("cat crash.py")
    terminal.pause(2)
    assert terminal.run("python crash.py") == 0, terminal.text
    terminal.prompt()
    save("crash.svg", terminal.animation("A task that crashes fails alone, with its C and its Python stack").encode())


@contextlib.contextmanager
def world():
    """A store with a page, a service, and a program that uses both. Yields the page's address."""
    serve = [folder / "bin/arenite", "serve", "--json", "--capacity", "1GiB", "--http", "127.0.0.1:0"]
    shutil.copy(HERE / "world.py", folder)
    pipes = {"env": ENVIRONMENT, "cwd": folder, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with contextlib.ExitStack() as stack:
        programs = []
        for words in (serve, *([folder / "bin/python", "world.py", name] for name in ("serve", "notebook"))):
            programs.append(stack.enter_context(subprocess.Popen(words, **pipes)))
            stack.callback(programs[-1].terminate)
            stack.callback(programs[-1].stdin.close)
            line = programs[-1].stdout.readline()
            if words is serve:
                page = json.loads(line)["page"]
            else:
                assert line == "ready\n", line
        yield page


def webp(name, png):
    image = Image.open(io.BytesIO(png)).convert("RGB")
    made = io.BytesIO()
    image.save(made, "webp", lossless=True, quality=100, method=6)
    save(name, made.getvalue())


def pair(name, browser, on_phones=".scroll"):
    """Both pictures of a page, after a look at whether it fits windows."""
    for width, parts in ((1280, ".scroll, .wide"), (1000, ".scroll, .wide"), (390, on_phones)):
        browser.look(width)
        assert (cut := browser.cut(f"html, :is({parts})")) == [], f"{name} at {width} pixels: {cut}"
    for suffix, dark in (("", False), ("-dark", True)):
        webp(f"{name}{suffix}.webp", browser.picture(1000, 1.5, dark))


def page():
    """The page of `arenite serve --http`."""
    with world() as address, Browser(folder / "browser") as browser:
        browser.open(address)
        browser.until("!document.getElementById('main').hidden")
        pair("page", browser)


def top():
    with world():
        terminal = Terminal(92, 16, folder, ENVIRONMENT)
        terminal.run("arenite top", last=2)
    save("top.svg", terminal.picture("arenite top: memory, objects and clients of a store").encode())


def report():
    """The page that `arenite resize --report` writes."""
    photos()
    words = "resize photos --size 320 --out reported --workers 2 --report run.html".split()
    ran = subprocess.run([folder / "bin/arenite", *words], cwd=folder, env=ENVIRONMENT, capture_output=True)
    assert ran.returncode == 1, ran
    with Browser(folder / "browser") as browser:
        browser.open((folder / "run.html").as_uri())
        # Of the table of kernels a phone shows the first columns.
        pair("report", browser, ".wide:has(.incidents)")


PICTURES = {"chart": chart, "resize": resize, "crash": crash, "top": top, "page": page, "report": report}
for name in chosen or PICTURES:
    PICTURES[name]()
