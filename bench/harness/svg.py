"""Plots as SVG that stands in a page: axes, lines, marks. No script, no fonts of its own, nothing
that has to be fetched. Colours differ in lightness too, and marks in shape, so that paper without
colour and eyes without red or green can tell them apart.
"""

import math
from html import escape

FONT = 11
PALETTE = ["#555555", "#0060a8", "#d55e00", "#009e73", "#b0508c", "#c09000", "#56a0d9", "#7a3b00"]
SHAPES = ["circle", "square", "up", "diamond", "down", "cross", "circle", "square"]


def _decades(*leading):
    return [float(f"{digit}e{power}") for power in range(-7, 8) for digit in leading]


LOG_SERIES = [[k / 20 for k in range(1, 60)],
              [k / 10 for k in range(1, 14)] + [1.5, 1.7, 2, 2.5, 3, 4, 5],
              _decades(1, 2, 3, 4, 5, 6, 7, 8, 9),
              [k / 10 for k in range(5, 10)] + [1, 1.2, 1.5, 2, 3, 4, 5],
              _decades(1, 1.5, 2, 3, 5, 7), _decades(1, 2, 5), _decades(1), [1.0]]


def number(value):
    """As short as it can be read: 0.95, 1.2, 30, 4k."""
    if value >= 1e6:
        return f"{value / 1e6:g}M"
    if value >= 1e4:
        return f"{value / 1e3:g}k"
    if value >= 1e3:
        return f"{value:.0f}"
    return f"{value:.3g}"


def coordinate(value):
    return f"{value:.1f}".removesuffix(".0")


def text(x, y, words, anchor="middle", size=FONT, extra=""):
    return (f'<text x="{coordinate(x)}" y="{coordinate(y)}" text-anchor="{anchor}" '
            f'font-size="{size}"{extra}>{escape(words)}</text>')


class Scale:
    """From values to places; logarithmic for ratios, from zero for amounts."""

    def __init__(self, values, log=False, marks=None):
        # where ticks are, if that is known better
        self.marks = marks
        low, high = min(values), max(values)
        self.log = log
        if log:
            # never so narrow that noise looks like a difference
            low, high = min(low, 0.8) / 1.05, max(high, 1.25) * 1.05
        else:
            low, high = 0.0, high * 1.05 or 1.0
        self.low, self.high = low, high
        self.start = self.end = 0.0

    def place(self, start, end):
        self.start, self.end = start, end
        return self

    def at(self, value):
        if self.log:
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * part

    def ticks(self, most=5):
        return self.marks or (self._log_ticks(most) if self.log else self._even_ticks(most))

    def _even_ticks(self, most):
        step = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        while (self.high - self.low) / step > most:
            step *= 2.5 if f"{step:e}"[0] == "2" else 2
        first = math.ceil(self.low / step)
        return [k * step for k in range(first, int(self.high / step) + 1)]

    def _log_ticks(self, most):
        """The densest of a few series of round numbers for which there is room; 1 is in each."""
        for series in LOG_SERIES:
            found = [tick for tick in series if self.low <= tick <= self.high]
            if len(found) <= most:
                return found
        return [1.0]


def mark(shape, x, y, colour, title="", size=4.5):
    """One point; its title appears under the mouse."""
    a, b = coordinate(x), coordinate(y)
    left, right = coordinate(x - size), coordinate(x + size)
    top, bottom = coordinate(y - size), coordinate(y + size)
    kinds = {
        "circle": f'<circle cx="{a}" cy="{b}" r="{size}"',
        "square": f'<path d="M{left} {top}H{right}V{bottom}H{left}Z"',
        "up": f'<path d="M{a} {top}L{right} {bottom}H{left}Z"',
        "down": f'<path d="M{a} {bottom}L{right} {top}H{left}Z"',
        "diamond": f'<path d="M{a} {top}L{right} {b}L{a} {bottom}L{left} {b}Z"',
        "cross": f'<path d="M{left} {top}L{right} {bottom}M{left} {bottom}L{right} {top}" '
                 f'stroke="{colour}" stroke-width="2"',
    }
    tip = f"<title>{escape(title)}</title>" if title else ""
    return f'{kinds[shape]} fill="{colour}" fill-opacity="0.85">{tip}</' + \
        ("circle>" if shape == "circle" else "path>")


class Plot:
    """A frame with two axes; what is drawn into it is added as SVG by the caller."""

    def __init__(self, x, y, x_label="", y_label="", width=320, height=230, left=52):
        self.width, self.height = width, height
        self.left, self.right, self.top, self.bottom = left, width - 10, 8, height - 36
        self.x = x.place(self.left, self.right)
        self.y = y.place(self.bottom, self.top) if y else None
        self.x_label, self.y_label = x_label, y_label
        self.parts = []

    def add(self, part):
        self.parts.append(part)

    def line(self, points, colour, title="", dashed=False):
        path = "L".join(f"{coordinate(self.x.at(x))} {coordinate(self.y.at(y))}"
                        for x, y in points)
        dash = ' stroke-dasharray="4 3"' if dashed else ""
        tip = f"<title>{escape(title)}</title>" if title else ""
        self.add(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.7"{dash}>'
                 f"{tip}</path>")

    def point(self, x, y, shape, colour, title="", size=4.5):
        self.add(mark(shape, self.x.at(x), self.y.at(y), colour, title, size))

    def _axes(self):
        parts = []
        for tick in self.x.ticks():
            x = coordinate(self.x.at(tick))
            strong = ' class="one"' if self.x.log and tick == 1 else ""
            parts.append(f'<path d="M{x} {self.top}V{self.bottom}"{strong}/>')
        for tick in self.y.ticks() if self.y else ():
            y = coordinate(self.y.at(tick))
            strong = ' class="one"' if self.y.log and tick == 1 else ""
            parts.append(f'<path d="M{self.left} {y}H{self.right}"{strong}/>')
        return f'<g class="grid">{"".join(parts)}</g>'

    def _labels(self):
        parts = [text(self.x.at(tick), self.bottom + 14, number(tick)) for tick in self.x.ticks()]
        for tick in self.y.ticks() if self.y else ():
            parts.append(text(self.left - 5, self.y.at(tick) + 4, number(tick), "end"))
        middle = (self.left + self.right) / 2
        parts.append(text(middle, self.height - 5, self.x_label, extra=' class="axis"'))
        if self.y_label:
            y = (self.top + self.bottom) / 2
            parts.append(text(0, 0, self.y_label,
                              extra=f' class="axis" transform="translate(11 {y}) rotate(-90)"'))
        return "".join(parts)

    def svg(self, title):
        return (f'<svg viewBox="0 0 {self.width} {self.height}" role="img">'
                f"<title>{escape(title)}</title>{self._axes()}{self._labels()}"
                f'{"".join(self.parts)}</svg>')
