"""Runs the queries of tests/golden on a real Flink and stores what it gives in tests/flink/queries: see README.md there. Called by scripts/flink-queries."""

import json
import re
import sys
import tempfile
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

from pyflink.common import Row
from pyflink.table import EnvironmentSettings, TableEnvironment

ROOT = Path(__file__).resolve().parents[2]


def sections(block):
    """The sentence of a block, and its sections as pairs of a title and a text. See tests/python/golden.py."""
    sentence, *rest = re.split(r"^---- ", block, flags=re.MULTILINE)
    pairs = (section.split("\n", 1) for section in rest)
    return sentence.strip(), [(pair[0].strip(), pair[1].rstrip("\n") if len(pair) > 1 else "") for pair in pairs]


def tables(of_block):
    for title, lines in of_block:
        if title.startswith("table "):
            name, columns, options = re.fullmatch(r"table (\w+) \((.*?)\)(?: WITH \((.*)\))?", title).groups()
            yield name, columns, options or "'format' = 'json'", lines


def text(value):
    """A value as JSON has it."""
    if value is None or isinstance(value, (bool, int, float)):
        return json.dumps(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (datetime, date, time)):
        return json.dumps(re.sub(r"(\.\d{3})000$", r"\1", value.isoformat()))
    if isinstance(value, Row):
        return text(value.as_dict(True))
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key), ensure_ascii=False)}:{text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(text, value)) + "]"
    return json.dumps(str(value), ensure_ascii=False)


def types(table):
    """The columns and types of a query, one a line."""
    lines = table._j_table.getResolvedSchema().toString().splitlines()[1:-1]
    found = (re.fullmatch(r"\s*`(.+?)` (.+?),?", line).groups() for line in lines)
    return "\n".join(f"{name} {kind}" for name, kind in found)


def with_times(made):
    """Tables without the rows that have no event time: Flink fails on these, and Coulee puts them into no window."""
    for name, columns, options, lines in made:
        time = re.search(r"WATERMARK FOR (\w+)", columns)
        if time and "json" in options:
            lines = "\n".join(line for line in lines.splitlines() if json.loads(line).get(time[1]) is not None)
        yield name, columns, options, lines


def answer(mode, made, statements, folder):
    """Columns, rows that are left and kinds of changes of the last statement; or the first line of the error."""
    for name, _, _, lines in made:
        (folder / f"{name}.in").write_text(lines + "\n" if lines else "")
    settings = EnvironmentSettings.in_streaming_mode() if mode == "streaming" else EnvironmentSettings.in_batch_mode()
    env = TableEnvironment.create(settings)
    env.get_config().set("parallelism.default", "1").set("table.local-time-zone", "UTC")
    try:
        for name, columns, options, _ in made:
            env.execute_sql(f"CREATE TEMPORARY TABLE {name} ({columns}) WITH ('connector' = 'filesystem', 'path' = '{folder / name}.in', {options})")
        for statement in statements[:-1]:
            setting = re.fullmatch(r"SET '(.+)' = '(.*)'", statement)
            if setting:
                env.get_config().set(*setting.groups())
            else:
                env.execute_sql(statement)
        table = env.sql_query(statements[-1])
        names, left, kinds = table.get_schema().get_field_names(), [], set()
        with table.execute().collect() as rows:
            for row in rows:
                kind = str(row.get_row_kind())
                line = "{" + ", ".join(f"{json.dumps(name, ensure_ascii=False)}: {text(value)}" for name, value in zip(names, row)) + "}"
                kinds.add(kind)
                left.append(line) if kind.startswith("+") else left.remove(line)
        return {"types": types(table), "changes": " ".join(sorted(kinds)), "rows": "\n".join(left)}
    except Exception as error:  # Whatever Flink says is its answer.
        lines = (line.strip().removeprefix(": ") for line in str(error).splitlines())
        causes = [line for line in lines if re.match(r"(Caused by: |org\.apache\.|java\.)", line)]
        return {"error": (causes or str(error).splitlines())[-1][:300].replace(str(folder), "…")}


def main(names):
    for path in sorted((ROOT / "tests/golden").glob("*.txt")):
        if names and path.stem not in names:
            continue
        head, *cases = (sections(block) for block in path.read_text().split("\n====\n"))
        found = []
        for sentence, of_case in cases:
            titles = dict(of_case)
            statements = [part.strip() for part in re.split(r";\s*\n|;\s*$", titles.get("flink", "")) if part.strip()]
            is_query = any(title.startswith("rows") for title in titles) and re.match(r"(SELECT|WITH|VALUES)\b", statements[-1])
            # What is written stays in files.
            if not is_query or any(re.match(r"INSERT|EXECUTE|BEGIN", statement) for statement in statements):
                continue
            own = list(tables(of_case))
            made = [table for table in tables(head[1]) if table[0] not in {name for name, *_ in own}] + own
            with tempfile.TemporaryDirectory() as folder:
                given = {"streaming": answer("streaming", made, statements, Path(folder))}
                if "RowTime field should not be null" in given["streaming"].get("error", ""):
                    given["streaming"] = answer("streaming", list(with_times(made)), statements, Path(folder))
                if "error" in given["streaming"]:
                    given["batch"] = answer("batch", made, statements, Path(folder))
            block = [sentence]
            for mode, result in given.items():
                block += [f"---- {mode} {title}\n{lines}".rstrip("\n") for title, lines in result.items()]
            found.append("\n".join(block))
            print(".", end="", flush=True)
        if found:
            (ROOT / "tests/flink/queries" / path.name).write_text("\n====\n".join(found) + "\n")
        print(f"{path.name}: {len(found)} queries", flush=True)


main(sys.argv[1:])
