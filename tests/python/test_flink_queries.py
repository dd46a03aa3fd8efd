"""The rows and types of the golden streams are those of a real Flink, which stand in tests/flink/queries: see tests/flink/README.md."""

import json
import re
from decimal import Decimal

import pytest
from conftest import ROOT
from golden import FOLDER, Case, _line

QUERIES = ROOT / "tests/flink/queries"
DIFFERENCES = ROOT / "tests/flink/queries_differences.txt"
REFUSED = ROOT / "tests/flink/queries_refused.txt"


def _blocks(path):
    return [Case(block) for block in path.read_text().split("\n====\n")]


def _listed(file):
    """The cases of a list with reasons, as `file: sentence`."""
    return [line for line in file.read_text().splitlines() if line.strip() and not line.startswith("#")]


def _modes(flinks):
    """In which of its modes Flink runs a query."""
    return [mode for mode in ("streaming", "batch") if flinks.get(f"{mode} rows") is not None]


def _rows(text):
    lines = [_line(json.loads(line, parse_float=Decimal)) for line in text.splitlines()]
    return sorted(lines)


def _types(text):
    """Without what Flink says beside: nullability, lengths, and which column is a time attribute."""
    kinds = re.sub(r" NOT NULL| \*ROWTIME\*", "", text)
    return re.sub(r"\b(VAR)?CHAR\(\d+\)", "STRING", kinds)


def _differs(mine, flinks):
    """What of a golden case is not as Flink has it."""
    modes = _modes(flinks)
    if not modes:
        return f"Flink does not run it: {flinks.get('streaming error')}"
    title, rows = next((title, text) for title, text in mine.sections if title.startswith("rows"))
    given = flinks.get(f"{modes[0]} rows")
    ours, theirs = _rows(rows), _rows(given)
    if ours != theirs:
        return f"rows: {[line for line in ours if line not in theirs]}, Flink's: {[line for line in theirs if line not in ours]}"
    if title == "rows in order" and modes[0] == "batch" and [*map(_parsed, rows.splitlines())] != [*map(_parsed, given.splitlines())]:
        return "the order of the rows"
    types = mine.get("types")
    if types is not None and _types(types) != _types(flinks.get(f"{modes[0]} types")):
        return f"types: {types!r}, Flink's: {flinks.get(f'{modes[0]} types')!r}"
    return ""


def _parsed(line):
    return _line(json.loads(line, parse_float=Decimal))


@pytest.mark.parametrize("path", sorted(QUERIES.glob("*.txt")), ids=lambda path: path.stem)
def test_golden_streams_are_as_flink_has_them(path):
    golden = {case.sentence: case for case in _blocks(FOLDER / path.name)}
    differing, refused = _listed(DIFFERENCES), _listed(REFUSED)
    wrong, needed = [], set()
    for flinks in _blocks(path):
        mine = golden.get(flinks.sentence)
        assert mine is not None, f"{flinks.sentence}: no such golden case any more: run scripts/flink-queries {path.stem}"
        key = f"{path.stem}: {flinks.sentence.splitlines()[0]}"
        difference = _differs(mine, flinks)
        if difference and key in (differing if _modes(flinks) else refused):
            needed.add(key)
        elif difference:
            wrong.append(f"{key}\n  {difference}")
    unneeded = [key for key in differing + refused if key.startswith(f"{path.stem}: ") and key not in needed]
    assert not wrong and not unneeded, "\n".join([*wrong, *(f"{key}: does not differ any more" for key in unneeded)])


def test_differences_have_reasons_and_files():
    names = {path.stem for path in QUERIES.glob("*.txt")}
    for file in (DIFFERENCES, REFUSED):
        for line in _listed(file):
            assert line.split(": ")[0] in names, line
        reasons = [block for block in file.read_text().split("\n\n")[1:] if block.strip()]
        assert len(reasons) < 10 and all(block.lstrip().startswith("#") for block in reasons)
