"""The shape of the tree: the guides name files that are there, and the files of a crate do not import each other in circles.

A file is a module; `use` and paths in the code are its imports, and what a module re-exports counts as an import of the file that has it. Tests and examples
are left out. What remains are recursions of the matter itself, listed in HONEST.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CRATES = ("model", "log", "checkpoint", "runtime", "connectors", "sql", "server", "cli")

# Each with the reason why it is one matter.
HONEST = {
    # A column of JSON may be an object, whose fields are columns; text in a field is read as a value of CSV is.
    frozenset({"connectors/format/json/column", "connectors/format/json/decode", "connectors/format/plain"}),
    # Element access plans the call that the catalogue of collection functions defines.
    frozenset({"sql/functions/collection", "sql/functions/collection/access"}),
}


def leaves(body, prefix=()):
    """The paths of a `use` tree."""
    depth, part, parts = 0, "", []
    for letter in body:
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            parts.append(part)
            part = ""
        else:
            part += letter
    for part in (part.strip() for part in (*parts, part)):
        opening = part.find("{")
        names = [name for name in part[: opening if opening >= 0 else None].split(" as ")[0].strip().split("::") if name]
        if opening >= 0:
            yield from leaves(part[opening + 1 : part.rfind("}")], (*prefix, *names))
        elif names:
            yield (*prefix, *names)


class Crate:
    def __init__(self, name):
        source = ROOT / name / "src"
        self.text = {}
        for path in source.rglob("*.rs"):
            module = path.relative_to(source).with_suffix("").parts
            self.text[() if module in (("lib",), ("main",)) else module[:-1] if module[-1] == "mod" else module] = code(path)
        for module, text in list(self.text.items()):
            for test in re.findall(r"#\[cfg\(test\)\]\s*(?:pub\([^)]*\)\s*)?mod\s+(\w+)\s*;", text):
                self.text = {at: body for at, body in self.text.items() if at[: len(module) + 1] != (*module, test)}
        self.exported = {}
        for module, text in self.text.items():
            for tree in re.findall(r"pub(?:\([^)]*\))?\s+use\s+([^;]+);", text):
                for path in leaves(tree):
                    if (target := self.absolute(module, path)) is not None:
                        self.exported[(*module, path[-1])] = target

    def absolute(self, module, path):
        """A path from the crate's root; `None` for one that leads out of the crate."""
        if path[0] == "crate":
            return path[1:]
        if path[0] == "self":
            return (*module, *path[1:])
        base = module
        while path and path[0] == "super":
            base, path = base[:-1], path[1:]
        if base != module:
            return (*base, *path)
        return (*module, *path) if (*module, path[0]) in self.text else None

    def file_of(self, path, steps=8):
        if steps and self.exported.get(path, path) != path:
            return self.file_of(self.exported[path], steps - 1)
        while path not in self.text:
            path = path[:-1]
        return path

    def imports(self, module):
        private = re.sub(r"pub(?:\([^)]*\))?\s+use\s+[^;]+;", "", self.text[module])
        paths = [path for tree in re.findall(r"\buse\s+([^;]+);", private) for path in leaves(tree)]
        rest = re.sub(r"\buse\s+[^;]+;", "", private)
        paths += [tuple(path.split("::")) for path in re.findall(r"\b(?:crate|super)(?:::\w+)+", rest)]
        targets = (self.absolute(module, path) for path in paths)
        return {self.file_of(target) for target in targets if target is not None} - {module}


def code(path):
    """A file without comments, its unit tests, and modules that it holds itself."""
    text = re.sub(r"//[^\n]*", "", path.read_text())
    text = re.sub(r"pub\(in [^)]*\)", "pub", text)
    text = re.split(r"#\[cfg\(test\)\](?:\s*#\[[^\]]*\])*\s*(?:pub\([^)]*\)\s*)?mod\s+\w+\s*\{", text)[0]
    return re.sub(r"(?ms)^(?:pub(?:\([^)]*\))?\s+)?mod \w+ \{.*?^\}", "", text)


def circles(imports):
    """Sets of files that reach each other (Tarjan, "Depth-first search and linear graph algorithms", 1972)."""
    order, low, stack, found = {}, {}, [], []

    def visit(file):
        order[file] = low[file] = len(order)
        stack.append(file)
        for other in imports[file]:
            if other not in order:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], order[other])
        if low[file] == order[file]:
            circle = stack[stack.index(file) :]
            del stack[stack.index(file) :]
            if len(circle) > 1:
                found.append(frozenset(circle))

    for file in imports:
        if file not in order:
            visit(file)
    return found


def test_files_do_not_import_each_other_in_circles():
    found = set()
    for name in CRATES:
        crate = Crate(name)
        imports = {module: crate.imports(module) for module in crate.text}
        assert any(imports.values()), f"{name}: the imports are not read"
        found |= {frozenset("/".join((name, *module)) for module in circle) for circle in circles(imports)}
    assert found == HONEST, [sorted(circle) for circle in found ^ HONEST]


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [frozenset("abc")]
    assert list(leaves("crate::a::{self, b::{C, D as E}, f}")) == [
        ("crate", "a", "self"), ("crate", "a", "b", "C"), ("crate", "a", "b", "D"), ("crate", "a", "f"),
    ]


def test_the_files_that_the_guides_name_are_there():
    guides = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    missing = []
    for guide in guides:
        text = guide.read_text()
        named = re.findall(r"`((?:%s|tests|bench|examples|scripts)/[\w./-]+)`" % "|".join(CRATES), text)
        prose = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", text)
        linked = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", prose)
        missing += [f"{guide.name}: {path}" for path in named if not (ROOT / path).exists()]
        missing += [f"{guide.name}: {link}" for link in linked if not (guide.parent / link).exists()]
    assert not missing
