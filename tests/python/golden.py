"""Golden streams: files of `tests/golden` that say what statements give, readable as a specification.

A file is blocks between lines of `====`. The first holds what the file is about and its tables; each other one is a case: a sentence, and sections that
begin with a line of `---- name`:

| section | holds |
| --- | --- |
| `table NAME (COLUMNS) [WITH (…)]` | the lines of a JSON file that the table reads; in the first block for all cases, in a case for it alone |
| `flink` | the statements. Of the last one, a query, the rows are compared; a DESCRIBE, SHOW or EXPLAIN is compared as text |
| `duckdb` | the same question to DuckDB, over tables of the same names: where `rows` come from |
| `rows` | what the query gives, sorted, without the fields that are null: DuckDB's answer |
| `rows in order` | the same of a query with ORDER BY: not sorted |
| `rows by hand` | the same, where DuckDB cannot say it: never rewritten |
| `types` | the columns and types of the query |
| `explain` | its plan |
| `error` | what the statement is refused with |
| `said` | what the run says of rejected, late and timeless rows |
| `shown` | what the last statement prints |

`COULEE_GOLDEN=write` rewrites all sections but `rows by hand`. Rows are written as DuckDB gives them, and the test fails when Coulee gives others: a
rewrite cannot bless a wrong answer.
"""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import duckdb
from conftest import ROOT, coulee

FOLDER = ROOT / "tests/golden"
WRITES = os.environ.get("COULEE_GOLDEN") == "write"
# The sections that DuckDB fills.
DUCKDBS = ("rows", "rows in order")
# What a run says of rows that did not make it.
SAID = re.compile(r"\brejected\b|\blate\b|no event time|failed in an expression|could not be delivered|has no effect")


class Case:
    """A block: its sentence, and its sections as pairs of a title and a text."""

    def __init__(self, text):
        sentence, *sections = re.split(r"^---- ", text, flags=re.MULTILINE)
        self.sentence = sentence.strip()
        pairs = (section.split("\n", 1) for section in sections)
        self.sections = [(pair[0].strip(), pair[1].rstrip("\n") if len(pair) > 1 else "") for pair in pairs]

    def get(self, title):
        return next((text for name, text in self.sections if name == title), None)

    def set(self, title, text):
        self.sections = [(name, text if name == title else old) for name, old in self.sections]

    @property
    def tables(self):
        """Name, columns, options and lines of each."""
        for title, lines in self.sections:
            if title.startswith("table "):
                name, columns, options = re.fullmatch(r"table (\w+) \((.*?)\)(?: WITH \((.*)\))?", title).groups()
                yield name, columns, options or "'format' = 'json'", lines

    def __str__(self):
        return "\n".join([self.sentence, *(f"---- {title}\n{text}".rstrip("\n") for title, text in self.sections)])


def check(path, folder):
    """Runs all cases of a file. Returns what differs, as texts; rewrites the file if that is wanted."""
    head, *cases = (Case(block) for block in path.read_text().split("\n====\n"))
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(_check, head, case, folder / str(index)) for index, case in enumerate(cases)]
        wrong = [problem for job in jobs for problem in job.result()]
    if WRITES:
        path.write_text("\n====\n".join(map(str, [head, *cases])) + "\n")
    return wrong


def _check(head, case, folder):
    """Runs a case. Returns what differs."""
    folder.mkdir(parents=True)
    names = {name for name, *_ in case.tables}
    tables = [table for table in head.tables if table[0] not in names] + list(case.tables)
    for name, _, _, lines in tables:
        (folder / f"{name}.in").write_text(lines + "\n" if lines else "")
    actual = _actual(case, tables, folder)
    wrong = []
    for title, expected in case.sections:
        if title.startswith("table ") or title in ("flink", "duckdb"):
            continue
        if title in DUCKDBS:
            expected = _answer(case, tables, folder, title == "rows")
        found = actual[title.removesuffix(" by hand")]
        if WRITES and title != "rows by hand":
            case.set(title, expected if title in DUCKDBS else found)
        if found != (expected if not WRITES or title.startswith("rows") else found):
            wrong.append(f"{case.sentence}\n---- {title}\n{found}\n---- expected\n{expected}")
        if title in DUCKDBS and not WRITES and case.get(title) != expected:
            wrong.append(f"{case.sentence}\nDuckDB gives other rows than the file has:\n{expected}")
    return wrong


def _actual(case, tables, folder):
    """What Coulee gives, by section."""
    statements = _statements(case.get("flink"))
    last = statements.pop()
    script = [f"CREATE TABLE {name} ({columns}) WITH ('connector' = 'filesystem', 'path' = '{name}.in', {options})" for name, columns, options, _ in tables]
    script += statements
    is_query = re.match(r"(SELECT|WITH)\b", last) and case.get("error") is None
    if is_query and case.get("types") is not None:
        script += [f"CREATE VIEW result AS {last}", "DESCRIBE result"]
    if is_query and case.get("explain") is not None:
        script.append(f"EXPLAIN {last}")
    # The last statement in a file of its own, so that errors show its lines and columns.
    (folder / "tables.sql").write_text("SET 'table.dml-sync' = 'true';\n" + "".join(f"{line};\n" for line in script))
    done = coulee("run", "tables.sql", "-e", last, "--output", "json", cwd=folder, check=case.get("error") is None)
    rows = [_line(json.loads(line, parse_float=Decimal)) for line in done.stdout.splitlines() if line.startswith("{")]
    rest = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("{"))
    described, _, explained = rest.partition("Stream plan\n")
    return {
        "rows": "\n".join(sorted(rows)),
        "rows in order": "\n".join(rows),
        "types": _types(described),
        "explain": _plain("Stream plan\n" + explained.rstrip(), folder, "") if explained else "",
        "error": _plain(done.stderr, folder, r"^(error: |  *= help| *\d+ \||  *\|)"),
        "said": "\n".join(_plain(line, folder, "") for line in done.stderr.splitlines() if SAID.search(line)),
        "shown": rest.strip(),
    }


def _statements(text):
    return [statement.strip() for statement in re.split(r";\s*\n|;\s*$", text) if statement.strip()]


def _plain(text, folder, wanted):
    """The lines that matter, without what differs from run to run."""
    lines = [line.rstrip() for line in text.splitlines() if re.search(wanted, line)]
    return re.sub(r"'select-[0-9a-f]+'", "'select-…'", "\n".join(lines)).replace(str(folder), "…")


def _types(described):
    """The columns of a DESCRIBE, one a line."""
    found = []
    for line in described.splitlines()[2:]:
        match = re.match(r"(\S+)\s+(.+?)\s+(TRUE|FALSE)\b", line)
        if match:
            found.append(f"{match[1]} {match[2]}" + (" NOT NULL" if match[3] == "FALSE" else ""))
    return "\n".join(found)


def _answer(case, tables, folder, is_sorted):
    """DuckDB's rows, as Coulee prints rows."""
    with duckdb.connect() as db:
        for name, columns, _, lines in tables:
            fields = [part.split(None, 1) for part in _parts(columns)]
            kinds = {name_.strip("`"): _duck(kind) for name_, kind in fields if name_ not in ("WATERMARK", "PRIMARY") and not kind.startswith("AS ")}
            described = ", ".join(f"{column}: '{kind}'" for column, kind in kinds.items())
            source = f"read_json('{folder / name}.in', format = 'newline_delimited', columns = {{{described}}})"
            made = ", ".join(f"CAST(NULL AS {kind}) AS {column}" for column, kind in kinds.items())
            db.execute(f"CREATE TABLE {name} AS " + (f"SELECT * FROM {source}" if lines else f"SELECT {made} LIMIT 0"))
        cursor = db.execute(case.get("duckdb"))
        names = [column[0] for column in cursor.description]
        rows = [_line(dict(zip(names, map(_shown, row), strict=True))) for row in cursor.fetchall()]
        return "\n".join(sorted(rows) if is_sorted else rows)


def _parts(text):
    """What the commas outside of brackets separate."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter in "(<") - (letter in ")>")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


def _duck(flink):
    """A type, or what stands behind a column's name."""
    name, inner = re.fullmatch(r"(\w+)(?:<(.*)>)?.*", flink.strip()).groups()
    if inner is None:
        kind = re.match(r"\w+(\([\d, ]+\))?", flink)[0].upper()
        return "TIMESTAMP" if kind.startswith("TIMESTAMP") else {"STRING": "VARCHAR", "INT": "INTEGER"}.get(kind, kind)
    if name == "ARRAY":
        return f"{_duck(inner)}[]"
    if name == "MAP":
        return f"MAP({', '.join(map(_duck, _parts(inner)))})"
    fields = [part.split(None, 1) for part in _parts(inner)]
    return f"STRUCT({', '.join(f'{field} {_duck(kind)}' for field, kind in fields)})"


def _shown(value):
    """As `--output json` shows it."""
    if hasattr(value, "isoformat"):
        return re.sub(r"(\.\d{3})000$", r"\1", value.isoformat())
    return value


def _line(row):
    """A row as one line of JSON: without what is null, numbers with no more digits than they need."""

    def text(value):
        if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=float)
        return format(Decimal(str(value)).normalize(), "f")

    return "{" + ", ".join(f"{json.dumps(name)}: {text(value)}" for name, value in row.items() if value is not None) + "}"
