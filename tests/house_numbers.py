"""Prints how large the house is: `python -m tests.house_numbers [CHECKOUT]`.

Works on older checkouts too, where two of the packages had other names.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter, defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path


def homes(root: Path) -> dict[str, Path]:
    """Package → the folder that it lies in."""
    if (root / "service" / "trueprob_service").is_dir():
        return {
            "trueprob": root,
            "trueprob_service": root / "service",
            "trueprob_trainer": root / "trainer",
        }
    return {"trueprob": root, "service": root, "trainer": root}


def docstring_lines(tree: ast.Module) -> int:
    """Lines of all docstrings of a module."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    nodes = [node for node in ast.walk(tree) if isinstance(node, kinds)]
    first = [node.body[0] for node in nodes if ast.get_docstring(node) is not None]
    return sum((node.end_lineno or node.lineno) - node.lineno + 1 for node in first)


def cycles(trees: dict[str, ast.Module]) -> int:
    """Packages whose children, files or folders, import one another in a circle."""
    edges: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for importer, tree in trees.items():
        if importer.endswith(("__init__", "__main__")):
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.ImportFrom) or node.module is None:
                continue
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                imported = name if name in trees else node.module
                mine, theirs = importer.split("."), imported.split(".")
                if mine[0] != theirs[0]:
                    continue
                shared = 0
                while mine[shared : shared + 1] == theirs[shared : shared + 1] != []:
                    shared += 1
                if shared < min(len(mine), len(theirs)):
                    edges[".".join(mine[:shared])][mine[shared]].add(theirs[shared])
    return sum(is_circular(graph) for graph in edges.values())


def is_circular(graph: dict[str, set[str]]) -> bool:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError:
        return True
    return False


def numbers(root: Path) -> dict[str, str]:
    """What the table in docs/architecture.md shows of a checkout."""
    files = {
        ".".join(path.relative_to(home).with_suffix("").parts): path
        for package, home in homes(root).items()
        for path in sorted((home / package).rglob("*.py"))
    }
    texts = {module: path.read_text("utf-8") for module, path in files.items()}
    trees = {module: ast.parse(text) for module, text in texts.items()}
    lines = sum(len(text.splitlines()) for text in texts.values())
    fullest = max(Counter(path.parent for path in files.values()).values())
    share = sum(map(docstring_lines, trees.values())) / lines
    return {
        "source files": str(len(files)),
        "lines": f"{lines:,}".replace(",", " "),
        "files in the fullest folder": str(fullest),
        "packages with an import cycle": str(cycles(trees)),
        "share of docstrings": f"{share:.1%}",
        "words in the README": str(len((root / "README.md").read_text("utf-8").split())),
    }


if __name__ == "__main__":
    checkout = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1]
    for name, value in numbers(checkout).items():
        print(f"{name:32} {value}")
