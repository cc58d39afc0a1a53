"""The figures as a picture: one panel per row, a bar per system, on a log scale."""

import math
from html import escape

from . import report

WIDTH, MARGIN, GAP = 1360, 32, 24
PANEL = (WIDTH - 2 * MARGIN - GAP) / 2
HEAD, FOOT, PANEL_HEAD, LINE, BAR, PAD = 116, 40, 50, 25, 15, 18
LABELS, FIGURES = 176, 190
INK, SOFT, GRID, OURS, OTHERS = "#1b1f24", "#59636e", "#e3e7eb", "#0072b2", "#e69f00"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"


def text(x, y, size, words, colour=INK, weight="normal", anchor="start"):
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{colour}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def rect(x, y, width, height, colour, radius=0):
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{radius}" fill="{colour}"/>'


def keys(figures):
    order = {*figures.samples, *(key for key, note in figures.notes.items() if note)}
    return sorted(order, key=lambda key: (key != "arenite", figures.median(key) is None, figures.median(key) or 0))


def height(figures):
    return PANEL_HEAD + LINE * len(keys(figures)) + PAD


def panel(figures, x, y):
    row = figures.row
    parts = [rect(x, y, PANEL, height(figures), "#ffffff", 8)]
    parts.append(text(x + PAD, y + 24, 14.5, row.title, weight="bold"))
    better = "less is better" if row.less_is_better else "more is better"
    parts.append(text(x + PAD, y + 41, 12, f"{row.unit}, {better}", SOFT))
    medians = [value for value in figures.medians().values() if value > 0]
    low = 10 ** math.floor(math.log10(min(medians))) if medians else 1
    high = 10 ** math.ceil(math.log10(max(medians))) if medians else 10
    span = max(math.log10(high / low), 1)
    left, room = x + PAD + LABELS, PANEL - 2 * PAD - LABELS - FIGURES
    top, bottom = y + PANEL_HEAD, y + height(figures) - PAD / 2
    for power in range(int(span) + 1):
        at = left + room * power / span
        parts.append(f'<line x1="{at:.1f}" y1="{top}" x2="{at:.1f}" y2="{bottom}" stroke="{GRID}"/>')
    ours = figures.median("arenite")
    for place, key in enumerate(keys(figures)):
        at = top + LINE * place
        median = figures.median(key)
        ink = OURS if key == "arenite" else OTHERS
        weight = "bold" if key == "arenite" else "normal"
        parts.append(text(left - 10, at + 13, 13, report.name_of(key), INK, weight, "end"))
        words = report.number(median)
        end = left
        if median:
            end += max(2.0, room * math.log10(median / low) / span)
            parts.append(rect(left, at + 1, end - left, BAR, ink, 2))
        if key != "arenite" and (than := report.factor(row, ours, median)):
            words += f"  {than}"
        elif median is None or row.name in ("crash", "orphans"):
            words = f"{words}  {figures.notes.get(key, '')}".strip()
        parts.append(text(end + 8, at + 13, 12.5, words[:60], INK, weight))
    return "\n".join(parts)


def draw(all_figures, machine):
    """A complete SVG file."""
    columns = [0.0, 0.0]
    body = []
    for figures in all_figures:
        if not keys(figures):
            continue
        column = columns.index(min(columns))
        body.append(panel(figures, MARGIN + column * (PANEL + GAP), HEAD + columns[column]))
        columns[column] += height(figures) + GAP
    whole = HEAD + max(columns) + FOOT - GAP
    last = "Medians of samples taken in turns by “python -m arenite.bench”. Faster and slower: than arenite. "
    last += "Log scale: each grid line is ten times the one before."
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole:.0f}" width="{WIDTH}" '
            f'height="{whole:.0f}" font-family="{FONT}" role="img" aria-label="arenite beside other Python pools">',
            rect(0, 0, WIDTH, whole, "#f4f6f8"),
            text(MARGIN, 46, 24, "arenite beside other Python pools", weight="bold"),
            text(MARGIN, 72, 13, report.describe(machine)[:190], SOFT),
            *body,
            text(MARGIN, whole - 14, 11.5, last, SOFT),
            "</svg>\n",
        ]
    )
