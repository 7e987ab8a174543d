"""Families of problems: one for each file of problem lines, and for what the command line names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastconv.core.problem import ConvProblem

DTYPES = ("float32", "float64")
QUICK = str(Path(__file__).with_name("quick.txt"))
_SHAPES = Path(__file__).with_name("shapes")


@dataclass(frozen=True)
class Family:
    """Problems that are reported together."""

    name: str
    problems: tuple[ConvProblem, ...]


def families(names: list[str], **chosen: Any) -> list[Family]:
    """Read what the user names.

    Parameters
    ----------
    names
        Stems of files in bench/shapes, paths of files, or problem lines; nothing means all of bench/shapes.
    chosen
        Fields of problems, ``dtype`` or ``layout``, that take the place of what the lines give; None changes nothing.

    Raises
    ------
    ValueError
        For a name that is none of these, or a problem that the peers cannot be given.
    """
    found: dict[str, list[ConvProblem]] = {}
    for name in names or all_names():
        family, lines = _lines(name)
        found.setdefault(family, []).extend(_problem(line, chosen) for line in lines)
    return [Family(family, tuple(problems)) for family, problems in found.items()]


def all_names() -> list[str]:
    return sorted(path.stem for path in _SHAPES.glob("*.txt"))


def _lines(name: str) -> tuple[str, list[str]]:
    """The family that a name belongs to, and its problem lines."""
    if "=" in name:
        return "command line", [name]
    path = _SHAPES / f"{name}.txt" if name in all_names() else Path(name)
    if not path.is_file():
        raise ValueError(f"shapes {name!r}: neither a problem line nor a file, nor one of {', '.join(all_names())}")
    return path.stem, [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _problem(line: str, chosen: dict[str, Any]) -> ConvProblem:
    problem = ConvProblem.parse(line).replace(**{name: value for name, value in chosen.items() if value is not None})
    if problem.padding_mode != "zeros" or problem.dtype not in DTYPES:
        raise ValueError(f"problem line {line!r}: only zero padding and {' or '.join(DTYPES)}")
    return problem
