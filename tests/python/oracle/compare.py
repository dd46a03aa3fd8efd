"""Two results as multisets of rows."""

import math
from collections import Counter


def _comparable(row, exact):
    """A row whose approximate values are rounded."""
    return tuple(value if sure or value is None else float(f"{float(value):.9g}") for value, sure in zip(row, exact, strict=True))


def _close(a, b):
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-8, abs_tol=1e-6)
    return a == b


def _order(row, exact):
    """Exact values first, so that rows stand beside their counterparts."""
    ranked = sorted(range(len(row)), key=lambda i: not exact[i])
    return [(row[i] is not None, str(type(row[i])), row[i] if row[i] is not None else 0) for i in ranked]


def difference(found, expected, exact):
    """What is missing and what is too much, as a text; empty when both are the same. `exact`: which columns must have the same bits."""
    a, b = (Counter(_comparable(row, exact) for row in rows) for rows in (found, expected))
    missing, extra = list((b - a).elements()), list((a - b).elements())
    if not all(exact) and len(missing) == len(extra):
        # Roundings may fall on two sides of a limit.
        pairs = list(zip(sorted(missing, key=lambda row: _order(row, exact)), sorted(extra, key=lambda row: _order(row, exact)), strict=True))
        if all(all(map(_close, one, other)) for one, other in pairs):
            return ""
    if not missing and not extra:
        return ""
    lines = [f"{len(found)} rows instead of {len(expected)}: {len(missing)} missing, {len(extra)} too many"]
    lines += [f"  missing  {_shown(row)}" for row in missing[:5]] + [f"  too many {_shown(row)}" for row in extra[:5]]
    return "\n".join(lines)


def _shown(row):
    return "(" + ", ".join("NULL" if value is None else str(value) if not isinstance(value, str) else repr(value) for value in row) + ")"
