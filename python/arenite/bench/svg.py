"""The figures as a picture, for light and dark pages: one panel per row, a bar per system."""

import math
import textwrap
from html import escape
from typing import NamedTuple

from . import report

# Four rows with five systems each are 420 pixels high.
WIDTH, MARGIN, GAP = 1000, 16, 12
PANEL = (WIDTH - 2 * MARGIN - GAP) / 2
HEAD, FOOT, PANEL_HEAD, LINE, BAR, PAD = 58, 38, 42, 20, 12, 12
LABELS, FIGURES = 136, 150


class Colours(NamedTuple):
    page: str
    panel: str
    ink: str
    soft: str
    grid: str
    ours: str
    others: str


LIGHT = Colours("#f4f6f8", "#ffffff", "#1b1f24", "#59636e", "#e3e7eb", "#0072b2", "#e69f00")
DARK = Colours("#0d1117", "#161b22", "#e6edf3", "#9198a1", "#2b323b", "#56b4e9", "#c98500")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def text(x, y, size, words, colour, weight="normal", anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def rect(x, y, width, height, colour, radius=0):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" fill="{colour}"/>'


def keys(figures):
    order = {*figures.samples, *(key for key, note in figures.notes.items() if note)}
    sign = 1 if figures.row.less_is_better else -1

    def best_first(key):
        median = figures.median(key)
        return key != "arenite", median is None, sign * (median or 0), key

    return sorted(order, key=best_first)


def height(figures):
    return PANEL_HEAD + LINE * len(keys(figures)) + PAD


class Scale:
    """The position of a figure on its axis, as a fraction of the axis, and the grid lines."""

    def __init__(self, figures, is_linear):
        medians = [value for value in figures.medians().values() if value > 0]
        self.is_linear = is_linear or figures.row.whole is not None
        if self.is_linear:
            self.low, self.high = 0, figures.row.whole or max(medians, default=1)
            self.lines = [0]
        else:
            self.low = 10 ** math.floor(math.log10(min(medians))) if medians else 1
            self.high = 10 ** math.ceil(math.log10(max(medians))) if medians else 10
            self.span = max(math.log10(self.high / self.low), 1)
            self.lines = [power / self.span for power in range(int(self.span) + 1)]

    def share(self, figure):
        return figure / self.high if self.is_linear else math.log10(figure / self.low) / self.span


def panel(figures, x, y, colours, is_linear=False):
    row, scale = figures.row, Scale(figures, is_linear)
    parts = [rect(x, y, PANEL, height(figures), colours.panel, 8)]
    parts.append(text(x + PAD, y + 20, 13, row.title, colours.ink, "bold"))
    better = "less is better" if row.less_is_better else "more is better"
    parts.append(text(x + PAD, y + 35, 12, f"{row.unit}, {better}", colours.soft))
    left, room = x + PAD + LABELS, PANEL - 2 * PAD - LABELS - FIGURES
    top, bottom = y + PANEL_HEAD, y + height(figures) - PAD / 2
    for share in scale.lines:
        at = left + room * share
        parts.append(f'<line x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{bottom}" stroke="{colours.grid}"/>')
    ours = figures.median("arenite")
    for place, key in enumerate(keys(figures)):
        at = top + LINE * place
        median = figures.median(key)
        bar = colours.ours if key == "arenite" else colours.others
        weight = "bold" if key == "arenite" else "normal"
        parts.append(text(left - 8, at + 11, 12, report.name_of(key), colours.ink, weight, "end"))
        words = report.number(median)
        end = left
        if median:
            end += max(2.0, room * scale.share(median))
            parts.append(rect(left, at + 1, end - left, BAR, bar, 2))
        if key != "arenite" and (than := report.factor(row, ours, median)):
            words += f" · {than}"
        elif median is None or row.name in ("crash", "crash-results", "orphans"):
            words = " · ".join(filter(None, (words, figures.notes.get(key))))
        parts.append(text(end + 6, at + 11, 12, words[:60], colours.ink, weight))
    return "\n".join(parts)


def draw(all_figures, machine, colours=LIGHT, is_linear=False):
    """Returns a complete SVG file, with rows in two columns if there are more than one.

    Bars have a log scale unless `is_linear` is true; figures that are counts out of a whole always have a linear scale.
    """
    shown = [figures for figures in all_figures if keys(figures)]
    columns = [0.0] * min(max(len(shown), 1), 2)
    body = []
    for figures in shown:
        column = columns.index(min(columns))
        body.append(panel(figures, MARGIN + column * (PANEL + GAP), HEAD + columns[column], colours, is_linear))
        columns[column] += height(figures) + GAP
    width = 2 * MARGIN + len(columns) * (PANEL + GAP) - GAP
    whole = HEAD + max(columns) + FOOT - GAP
    words = "Medians of samples taken in turns by “python -m arenite.bench”. Faster and slower: than arenite. "
    if not all(Scale(figures, is_linear).is_linear for figures in shown):
        words += "Log scale: each grid line is ten times the one before."
    last = textwrap.wrap(words, int(width / 6.6))
    whole += 15 * (len(last) - 1)
    described = report.describe(machine)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {whole:.0f}" width="{width:.0f}" '
            f'height="{whole:.0f}" font-family="{FONT}" role="img" aria-label="arenite beside other Python pools">',
            rect(0, 0, width, whole, colours.page),
            text(MARGIN, 26, 20, "arenite beside other Python pools", colours.ink, "bold"),
            text(MARGIN, 46, 12, textwrap.shorten(described, int(width / 6.6), placeholder=" …"), colours.soft),
            *body,
            *(text(MARGIN, whole - 14 - 15 * n, 11.5, line, colours.soft) for n, line in enumerate(reversed(last))),
            "</svg>\n",
        ]
    )
