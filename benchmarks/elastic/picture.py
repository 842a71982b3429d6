"""The figure: latency over time as SVG text, with the windows of the moves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np

from benchmarks.elastic.cluster import Rows
from benchmarks.elastic.figures import latencies_ms

WIDTH, HEIGHT, LEFT, BOTTOM = 1200, 360, 60, 40
BUCKET_S = 0.1
COLOURS = {"split": "#dbe9f6", "merge": "#e5f2dd", "move": "#fbe6d2"}
CURVES = (("p50", 50, "#3b6ea5"), ("p99", 99, "#c05a2b"))

Window = Sequence[float | str]
"""(begin, end, kind), seconds since the Unix epoch."""


def latency_over_time(rows: Rows, windows: Iterable[Window], begin: float, end: float) -> str:
    """p50 and p99 of what was produced in each tenth of a second, over all keys."""
    found = rows[(rows["at"] >= begin) & (rows["at"] < end)]
    buckets = ((found["at"] - begin) / BUCKET_S).astype(int)
    latencies = latencies_ms(found)
    edges = np.searchsorted(np.sort(buckets), np.arange(int((end - begin) / BUCKET_S) + 2))
    by_time = latencies[np.argsort(buckets, kind="stable")]
    parts = [by_time[lo:hi] for lo, hi in pairwise(edges)]
    top = max(100.0, float(np.percentile(latencies, 99.99)) * 1.1) if len(latencies) else 100.0
    whole = [_head(), *(_band(w, begin, end) for w in windows), *_axes(begin, end, top)]
    for name, percent, colour in CURVES:
        points = [(i * BUCKET_S, float(np.percentile(p, percent))) for i, p in enumerate(parts) if len(p)]
        whole.append(_curve(points, end - begin, top, colour))
        whole.append(_text(WIDTH - 60, 20 + 16 * (name == "p99"), name, colour))
    for number, (kind, colour) in enumerate(COLOURS.items()):
        whole.append(f'<rect x="{LEFT + 10 + 80 * number}" y="8" width="12" height="12" fill="{colour}"/>')
        whole.append(_text(LEFT + 28 + 80 * number, 19, kind, "#333"))
    return "\n".join([*whole, "</svg>"]) + "\n"


def _head() -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    )


def _x(seconds: float, whole: float) -> float:
    return LEFT + (WIDTH - LEFT - 20) * seconds / whole


def _y(value: float, top: float) -> float:
    return HEIGHT - BOTTOM - (HEIGHT - BOTTOM - 30) * min(value, top) / top


def _band(window: Window, begin: float, end: float) -> str:
    lo, hi = (_x(float(edge) - begin, end - begin) for edge in window[:2])
    return (
        f'<rect x="{lo:.1f}" y="30" width="{max(1.0, hi - lo):.1f}" height="{HEIGHT - BOTTOM - 30}" '
        f'fill="{COLOURS[str(window[2])]}"/>'
    )


def _axes(begin: float, end: float, top: float) -> Iterable[str]:
    whole = end - begin
    for value in np.linspace(0, top, 5):
        y = _y(float(value), top)
        yield f'<line x1="{LEFT}" x2="{WIDTH - 20}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
        yield _text(8, y + 4, f"{value:.0f} ms", "#333")
    for seconds in range(0, int(whole) + 1, 10 if whole < 200 else 30):
        yield _text(_x(seconds, whole), HEIGHT - 18, f"{seconds} s", "#333")


def _curve(points: list[tuple[float, float]], whole: float, top: float, colour: str) -> str:
    path = " ".join(f"{_x(at, whole):.1f},{_y(value, top):.1f}" for at, value in points)
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1"/>'


def _text(x: float, y: float, text: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}">{text}</text>'
