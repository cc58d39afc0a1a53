"""Runs commands in a terminal and draws what it shows: a picture of its end, or an animated SVG."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from html import escape

import pyte

#: Seconds between two pictures of the animation, at least.
FRAME = 0.09
SIZE, CELL, LINE, BASE, PAD, BAR = 14, 8.4, 19, 14, 16, 34
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
#: A dark terminal, on light and on dark pages.
PAGE, EDGE, INK, CURSOR = "#161b22", "#30363d", "#e6edf3", "#9198a1"
COLOURS = {
    "black": "#6e7681",
    "red": "#ff7b72",
    "green": "#3fb950",
    "brown": "#d29922",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#56d4dd",
    "white": "#b1bac4",
}
COLOURS |= {f"bright{name}": colour for name, colour in COLOURS.items()}


class Terminal:
    """A terminal and the time in it. Commands run at their own speed; what is typed is typed by this program."""

    def __init__(self, columns, rows, folder, environment):
        self.columns, self.rows, self.folder, self.environment = columns, rows, folder, environment
        self.screen = pyte.Screen(columns, rows)
        self.stream = pyte.ByteStream(self.screen)
        self.now = 0.0
        #: What was shown from when on: `(seconds, lines, cursor)`.
        self.frames = []
        self.text = ""

    def feed(self, data):
        self.text += data.decode(errors="replace")
        # pyte has no faint colours.
        self.stream.feed(data.replace(b"\x1b[2m", b"\x1b[90m"))
        self.look()

    def look(self):
        lines = tuple(self.line(row) for row in range(self.rows))
        cursor = self.screen.cursor
        is_hidden = cursor.hidden or cursor.x >= self.columns
        shown = (lines, None if is_hidden else (cursor.x, cursor.y))
        if self.frames and self.now - self.frames[-1][0] < FRAME:
            self.frames[-1] = (self.frames[-1][0], *shown)
        elif not self.frames or self.frames[-1][1:] != shown:
            self.frames.append((self.now, *shown))

    def line(self, row):
        """Runs of characters of one look: `(column, text, colour, is bold)`."""
        runs = []
        for column in range(self.columns):
            cell = self.screen.buffer[row][column]
            look = (cell.fg, cell.bold)
            if runs and runs[-1][2:] == look:
                runs[-1] = (runs[-1][0], runs[-1][1] + cell.data, *look)
            else:
                runs.append((column, cell.data, *look))
        return tuple(
            (column + len(words) - len(words.lstrip()), words.strip(), *look)
            for column, words, *look in runs
            if words.strip()
        )

    def pause(self, seconds):
        self.now += seconds

    def prompt(self):
        self.feed(b"\x1b[1;32m$\x1b[0m ")

    def type(self, words):
        self.prompt()
        self.pause(0.6)
        for letter in words:
            self.feed(letter.encode())
            self.pause(0.045)
        self.pause(0.4)
        self.feed(b"\r\n")

    def run(self, words, patience=60, last=None):
        """Types a command, and shows what it prints until it ends; returns its exit code. After `last` seconds it is
        killed."""
        self.type(words)
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", self.rows, self.columns, 0, 0))
        child = subprocess.Popen(
            ["bash", "-c", words],
            cwd=self.folder,
            env=self.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)
        begin, start = time.monotonic(), self.now
        try:
            while True:
                passed = time.monotonic() - begin
                if last and passed > last:
                    return None
                if passed > patience:
                    raise TimeoutError(f"not done after {patience} s: {words}")
                if not select.select([ours], [], [], 0.05)[0]:
                    continue
                # What follows at once belongs to the same picture: a bar that makes room for a line comes back.
                data, is_open = b"", True
                try:
                    while not data or len(data) < 65536 and select.select([ours], [], [], 0.005)[0]:
                        data += os.read(ours, 65536)
                except OSError:  # the last process has closed the terminal
                    is_open = False
                self.now = start + time.monotonic() - begin
                self.feed(data)
                if not is_open:
                    break
            return child.wait()
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
            os.close(ours)

    def animation(self, title, hold=5.0):
        """An SVG that plays all frames, one after the other, and begins again after `hold` seconds."""
        return Drawing(self).animation(title, hold)

    def picture(self, title):
        """An SVG of the last frame."""
        return Drawing(self).picture(title)


class Drawing:
    """Lines that occur in several frames are drawn once."""

    def __init__(self, terminal):
        self.terminal = terminal
        self.names, self.lines = {}, []
        self.width, self.height = terminal.columns * CELL, terminal.rows * LINE
        # From one frame to the next, with a gap: nothing of a frame is seen in the others.
        self.stride = round(self.width) + 20

    def run(self, run):
        column, words, colour, bold = run
        classes = " ".join(filter(None, (self.colour(colour), "bold" if bold else "")))
        place = f'x="{column * CELL:.1f}" ' if column else ""
        return (
            f'<text {place}textLength="{len(words) * CELL:.1f}" lengthAdjust="spacingAndGlyphs"'
            + (f' class="{classes}"' if classes else "")
            + f">{escape(words, quote=False)}</text>"
        )

    @staticmethod
    def colour(name):
        return "" if name == "default" else name

    def use(self, line, row):
        if line not in self.names:
            self.names[line] = f"l{len(self.names)}"
            self.lines.append(f'<g id="{self.names[line]}">{"".join(map(self.run, line))}</g>')
        return f'<use href="#{self.names[line]}" y="{row * LINE + BASE}"/>'

    def frame(self, lines, cursor):
        drawn = "".join(self.use(line, row) for row, line in enumerate(lines) if line)
        if cursor:
            drawn = f'<use href="#c" x="{cursor[0] * CELL:.1f}" y="{cursor[1] * LINE}"/>' + drawn
        return drawn

    def animation(self, title, hold):
        frames = self.terminal.frames
        whole = self.terminal.now + hold
        steps = "".join(
            f"{100 * at / whole:.2f}%{{transform:translateX({-index * self.stride}px)}}"
            for index, (at, _, _) in enumerate(frames)
        )
        end = -(len(frames) - 1) * self.stride
        style = (
            f"@keyframes film{{{steps}to{{transform:translateX({end}px)}}}}"
            f".film{{animation:film {whole:.2f}s step-end infinite}}"
            "@media(prefers-reduced-motion:reduce){.film{animation:none}}"
        )
        drawn = "\n".join(
            f'<g transform="translate({index * self.stride})">{self.frame(lines, cursor)}</g>'
            for index, (_, lines, cursor) in enumerate(frames)
        )
        # Without animation, as in a PDF, the end is shown.
        return self.window(title, style, f'<g class="film" transform="translate({end})">\n{drawn}\n</g>')

    def picture(self, title):
        _, lines, _ = self.terminal.frames[-1]
        return self.window(title, "", self.frame(lines, None))

    def window(self, title, style, drawn):
        width, height = self.width + 2 * PAD, self.height + BAR + PAD
        drawn_lines = "\n".join(self.lines)
        used = {run[2] for line in self.names for run in line if run[2] != "default"}
        unknown = used - COLOURS.keys()
        assert not unknown, f"colours without a look: {unknown}"
        colours = "".join(f".{name}{{fill:{COLOURS[name]}}}" for name in sorted(used))
        dots = "".join(f'<circle cx="{PAD + 6 + 18 * n}" cy="17" r="5.5" fill="{EDGE}"/>' for n in range(3))
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
            f'height="{height:.0f}" font-family="{FONT}" font-size="{SIZE}" xml:space="preserve" role="img" '
            f'aria-label="{escape(title)}">\n'
            f"<style>text{{white-space:pre;fill:{INK}}}.bold{{font-weight:bold}}{colours}{style}</style>\n"
            f'<defs>\n<rect id="c" width="{CELL}" height="{LINE}" fill="{CURSOR}"/>\n{drawn_lines}\n</defs>\n'
            f'<rect x=".5" y=".5" width="{width - 1:.0f}" height="{height - 1:.0f}" rx="8" fill="{PAGE}" '
            f'stroke="{EDGE}"/>\n{dots}\n'
            f'<svg x="{PAD}" y="{BAR}" width="{self.width:.0f}" height="{self.height}">\n{drawn}\n</svg>\n</svg>\n'
        )
