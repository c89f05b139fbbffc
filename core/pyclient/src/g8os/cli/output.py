"""How results and errors are shown: tables of plain text, or JSON. Colour only on a terminal, and never with NO_COLOR."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

_COLOUR = re.compile("\x1b\\[[0-9]+m")

RED, GREEN, YELLOW = 31, 32, 33


class Output:
    def __init__(self, *, json: bool, headers: bool, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.json = json
        self._headers = headers
        self._out = out or sys.stdout
        self._err = err or sys.stderr

    def value(self, value: Any) -> None:
        """Any answer: as JSON, as a table if it is a list of objects, as lines otherwise."""
        if self.json:
            self.document(value)
        elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            columns = {key: None for row in value for key in row}
            self.table([key.upper() for key in columns], [[_cell(row.get(key)) for key in columns] for row in value])
        elif isinstance(value, dict):
            self.pairs(value)
        elif isinstance(value, list):
            for item in value:
                self.line(_cell(item))
        elif value is not None:
            self.line(_cell(value))

    def document(self, value: Any) -> None:
        """One JSON document, on one line."""
        self.line(json.dumps(value, ensure_ascii=False, separators=(",", ":")))

    def pairs(self, pairs: Mapping[str, Any]) -> None:
        """Names and values under each other."""
        width = max((len(name) for name in pairs), default=0)
        for name, value in pairs.items():
            self.line(f"{name.upper():<{width}}  {_cell(value)}".rstrip())

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Columns two blanks apart, without borders."""
        shown = [list(headers), *rows] if self._headers else list(rows)
        widths = [max(_width(row[n]) for row in shown) for n in range(len(headers))] if shown else []
        for row in shown:
            cells = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
            self.line("  ".join(cells).rstrip())

    def line(self, text: str) -> None:
        print(text, file=self._out, flush=True)

    def text(self, text: str, *, error: bool = False) -> None:
        """A line of a program's output, at once."""
        print(text, file=self._err if error else self._out, flush=True)

    def error(self, message: str, hint: str | None = None) -> None:
        """What, why, what next."""
        self._out.flush()
        prefix = self.coloured("g8:", RED, self._err)
        print(f"{prefix} {message}", file=self._err)
        if hint:
            print(f"    {hint}", file=self._err)

    def coloured(self, text: str, colour: int, stream: TextIO | None = None) -> str:
        stream = stream or self._out
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
        return text if plain else f"\x1b[{colour}m{text}\x1b[0m"


def size(number: float) -> str:
    """Bytes as people read them."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(number) < 1024 or unit == "TiB":
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    raise AssertionError("the last unit takes any size")


def age(seconds: float) -> str:
    """A span of time in its largest unit."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(0, int(seconds))}s"


def _cell(value: Any) -> str:
    """A value on one line; what controls a terminal does not reach it."""
    if value is None or value == "":
        return "-"
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list) and all(isinstance(item, str | int | float) for item in value):
        return printable(",".join(str(item) for item in value)) or "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return printable(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def _width(cell: str) -> int:
    """Colours take no room."""
    return len(_COLOUR.sub("", cell))


def printable(text: str) -> str:
    return "".join(char if char.isprintable() else "\ufffd" for char in text)
