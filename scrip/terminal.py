"""The lines of several processes in one terminal: each with its name, each name in its colour."""

import sys
from pathlib import Path
from typing import IO, Self

COLOURS = (36, 35, 33, 32, 34, 96, 95, 93)  # ANSI: cyan, magenta, yellow, green, blue, …
NAME_WIDTH = 8


class TerminalLines:
    """Writes lines to a terminal (in colour) or to a pipe or file (without)."""

    def __init__(self, stream: IO[str] | None = None) -> None:
        """Write to `stream`, or to standard error."""
        self._stream = stream or sys.stderr
        self._colour = self._stream.isatty()
        self._colours: dict[str, int] = {}

    def __call__(self, name: str, line: str) -> None:
        """Write one line."""
        label = f"{name:<{NAME_WIDTH}} |"
        if self._colour:
            colour = self._colours.setdefault(name, COLOURS[len(self._colours) % len(COLOURS)])
            label = f"\x1b[{colour}m{label}\x1b[0m"
        self._stream.write(f"{label} {line}\n")
        self._stream.flush()

    def close(self) -> None:
        """Close the stream, if it is a file of our own."""
        if self._stream is not sys.stderr:
            self._stream.close()


class FileLines:
    """Writes lines to a file, for a terminal that shows something else meanwhile."""

    def __init__(self, path: Path) -> None:
        """Open `path` anew."""
        self._lines = TerminalLines(path.open("w"))

    def __call__(self, name: str, line: str) -> None:
        """Write one line."""
        self._lines(name, line)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._lines.close()
