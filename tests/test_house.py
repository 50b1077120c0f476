"""The rules of the house, held against the source with `ast`.

Who may import whom, how large files and folders are, which direction imports take, that nouns are
unique, and that every module and path that a text names exists.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# A package and the folder that it lies in.
HOME = {
    "trueprob": ROOT,
    "trueprob_service": ROOT / "service",
    "trueprob_trainer": ROOT / "trainer",
}


def source_files() -> Iterator[tuple[str, Path]]:
    """Module names and files of the three packages."""
    for package, home in HOME.items():
        for path in sorted((home / package).rglob("*.py")):
            name = ".".join(path.relative_to(home).with_suffix("").parts)
            yield name.removesuffix(".__init__"), path


FILES = dict(source_files())
TREES = {module: ast.parse(path.read_text("utf-8")) for module, path in FILES.items()}
LINES = {module: len(path.read_text("utf-8").splitlines()) for module, path in FILES.items()}


def imported_names(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Every imported name of a module, and whether the import runs with the module."""
    pending: list[tuple[ast.AST, bool]] = [(tree, True)]
    while pending:
        node, at_top = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            at_top = False
        pending += [(each, at_top) for each in ast.iter_child_nodes(node)]
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at_top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            assert node.module is not None
            for alias in node.names:
                yield f"{node.module}.{alias.name}", at_top


ALL_IMPORTS = [
    (importer, imported, at_top)
    for importer, tree in TREES.items()
    for imported, at_top in imported_names(tree)
]


def module_of(name: str) -> str | None:
    """The module of ours that an imported name lies in, if any."""
    while name and name not in FILES:
        name = name.rpartition(".")[0]
    return name or None


MODULE_IMPORTS = {
    (importer, module)
    for importer, imported, _ in ALL_IMPORTS
    if (module := module_of(imported)) is not None and module != importer
}


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


def is_ordinary(module: str) -> bool:
    """Whether a module is neither a package's own file nor run as a script."""
    return FILES[module].name not in ("__init__.py", "__main__.py")


# ----- Who may import whom -----

# A third-party package → the modules that may import it.
ONLY_IN = {
    "torch": ("trueprob_trainer",),
    "sklearn": ("trueprob_trainer", "trueprob.estimators"),
    "onnx": ("trueprob_trainer", "trueprob.onnx_export"),
    "pyarrow": ("trueprob.tables", "trueprob_trainer.data.parquet"),
    "onnxruntime": (
        "trueprob_service.inference.network.onnx_model",
        "trueprob_trainer.export",
    ),
    "fsspec": (
        "trueprob_service.control.fitting.set_location",
        "trueprob_service.control.fitting.remote_set_files",
    ),
    "httpx": ("trueprob.client", "trueprob_service.control.upkeep.webhook"),
    "prometheus_client": ("trueprob_service.metrics.telemetry",),
    "sqlalchemy": ("trueprob_service.control.store",),
    "alembic": ("trueprob_service.control.store",),
    "fastapi": (
        "trueprob_service.app",
        "trueprob_service.prediction_routes",
        "trueprob_service.control",
    ),
    "pydantic": (
        "trueprob_service.control",
        "trueprob_service.settings",
        "trueprob_service.prediction_routes",
    ),
    "matplotlib": ("trueprob.diagram",),
    "PIL": (
        "trueprob.pictures",
        "trueprob_trainer.data.decoding",
        "trueprob_trainer.evaluation.corruptions",
        "trueprob_trainer.examples",
    ),
    "jwt": ("trueprob_service.edge.oidc",),
    "opentelemetry": ("trueprob_service.tracing",),
}


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_third_party_package_stays_where_it_belongs(package: str) -> None:
    users = {importer for importer, imported, _ in ALL_IMPORTS if is_in(imported, package)}
    assert {user for user in users if not is_in(user, *ONLY_IN[package])} == set()
    unused = [place for place in ONLY_IN[package] if not any(is_in(u, place) for u in users)]
    assert unused == []


def test_the_core_imports_nothing_of_ours_and_only_numpy_at_the_top() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "trueprob"}
    strays = [
        (importer, imported)
        for importer, imported, at_top in ALL_IMPORTS
        if is_in(importer, "trueprob")
        and (is_in(imported, "trueprob_service", "trueprob_trainer") or at_top)
        and imported.partition(".")[0] not in allowed
        # Two packages with an extra each; nothing that `import trueprob` loads imports them.
        and not (is_in(importer, "trueprob.estimators") and is_in(imported, "sklearn"))
        and not (is_in(importer, "trueprob.client") and is_in(imported, "httpx"))
    ]
    assert strays == []


# Package → what it never imports.
NEVER = {
    "trueprob_trainer": ("trueprob_service",),
    "trueprob_service": ("trueprob_trainer", "trueprob.client"),
    "trueprob_service.inference": ("trueprob_service.control",),
}


@pytest.mark.parametrize("package", NEVER)
def test_a_package_never_imports_what_is_not_its_own(package: str) -> None:
    strays = [i for i in MODULE_IMPORTS if is_in(i[0], package) and is_in(i[1], *NEVER[package])]
    assert strays == []


def test_nothing_imports_the_estimators() -> None:
    estimators = "trueprob.estimators"
    users = {
        i[0] for i in MODULE_IMPORTS if is_in(i[1], estimators) and not is_in(i[0], estimators)
    }
    assert users == set()


SEEN_BY_CONTROL = {
    f"trueprob_service.inference.{name}"
    for name in ("deployment", "deployments", "wire.images", "wire.json_arrays")
}


def test_the_control_plane_sees_deployments_and_inputs_of_the_data_plane_only() -> None:
    seen = {
        imported
        for importer, imported in MODULE_IMPORTS
        if is_in(importer, "trueprob_service.control")
        and is_in(imported, "trueprob_service.inference")
    }
    assert seen == SEEN_BY_CONTROL


def test_routes_talk_to_services_and_not_to_the_database() -> None:
    strays = [
        i
        for i in MODULE_IMPORTS
        if is_in(i[0], "trueprob_service.control.api")
        and is_in(i[1], "trueprob_service.control.store")
    ]
    assert strays == []
    reached = [
        (module, node.lineno)
        for module, tree in TREES.items()
        if is_in(module, "trueprob_service.control.api")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("store", "_store")
    ]
    assert reached == []


def test_the_rules_see_every_package() -> None:
    """A rule about a name that no module has would pass over nothing."""
    named = {
        *(place for places in ONLY_IN.values() for place in places),
        *NEVER,
        *(name for names in NEVER.values() for name in names),
        *SEEN_BY_CONTROL,
    }
    assert {name for name in named if name not in FILES} == set()
    assert {
        package: sum(is_in(m, package) for m in FILES) > 30 for package in HOME
    } == dict.fromkeys(HOME, True)


def test_the_service_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, trueprob_service.app; "
        "bad = {'torch', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_prediction_loads_neither_a_web_framework_nor_onnxruntime() -> None:
    code = (
        "import sys, trueprob_service.inference.asgi; "
        "bad = {'fastapi', 'pydantic', 'sqlalchemy', 'onnxruntime'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# ----- Files and folders -----

MOST_LINES, LEAST_LINES, MOST_FILES = 500, 80, 15
# A module that is longer, or short with a single importer → why.
REASONS: dict[str, str] = {
    "trueprob_service.settings": "every setting is a field of one class",
    "trueprob.client.async_client": "generated from trueprob.client.client",
    "trueprob.client.client": "every route is a documented method of one class",
    "trueprob_service.control.store.migrations.env": "Alembic runs it as a script",
    "trueprob_service.control.store.migrations.versions.r0012_verdict_and_rollback": "a revision",
    "trueprob_service.control.store.migrations.versions.r0013_classes_of_alarms": "a revision",
    "trueprob_service.control.store.migrations.versions.r0014_class_counters": "a revision",
    "trueprob_service.control.store.migrations.versions.r0015_keep_prediction": "a revision",
    "trueprob_service.control.api.audit": "one noun a file, as the other routes",
    "trueprob_service.control.store.migrations.versions.r0016_audit": "a revision",
    "trueprob_service.control.store.migrations.versions.r0017_remembered": "a revision",
    "trueprob_service.schema_check": "runs in a child process; its parent imports no SQLAlchemy",
}


def test_files_are_neither_scraps_nor_scrolls() -> None:
    importers = Counter(imported for _, imported in MODULE_IMPORTS)
    odd = {
        module
        for module, lines in LINES.items()
        if is_ordinary(module)
        and (lines >= MOST_LINES or (lines < LEAST_LINES and importers[module] <= 1))
    }
    assert odd == REASONS.keys()


def test_no_folder_is_a_drawer() -> None:
    folders = Counter(path.parent for path in FILES.values())
    assert {folder: n for folder, n in folders.items() if n > MOST_FILES} == {}


def sibling_edges() -> dict[str, dict[str, set[str]]]:
    """Package → its children → the children that they import: a.b.x → a.c.y is b → c of a."""
    edges: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for importer, imported in MODULE_IMPORTS:
        if not is_ordinary(importer):
            continue
        mine, theirs = importer.split("."), imported.split(".")
        shared = 0
        while mine[shared : shared + 1] == theirs[shared : shared + 1] != []:
            shared += 1
        if 0 < shared < min(len(mine), len(theirs)):
            edges[".".join(mine[:shared])][mine[shared]].add(theirs[shared])
    return edges


def test_children_of_a_package_import_one_another_in_one_direction() -> None:
    for edges in sibling_edges().values():
        TopologicalSorter(edges).prepare()  # a CycleError names the circle


def test_every_package_says_its_noun() -> None:
    packages = {m: ast.get_docstring(TREES[m]) for m, p in FILES.items() if p.name == "__init__.py"}
    assert [m for m, text in packages.items() if len((text or "").partition("\n")[0]) < 20] == []


# ----- Names -----

VAGUE = {"answering", "common", "elsewhere", "following", "helpers", "known", "manager", "misc"} | {
    "parts", "repeats", "utils", "wish",
}  # fmt: skip


def test_no_module_is_named_after_nothing() -> None:
    assert [module for module in FILES if module.rpartition(".")[2] in VAGUE] == []


# The client's answers bear the names of the schemas that they read.
ANSWERS, SCHEMAS = "trueprob.client.answers", "trueprob_service.control.schemas"


def test_no_two_public_classes_have_one_name() -> None:
    homes = defaultdict(list)
    for module, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module)
    several = {name: modules for name, modules in homes.items() if len(modules) > 1}
    assert {
        name: modules
        for name, modules in several.items()
        if len(modules) > 2 or ANSWERS not in modules or not any(is_in(m, SCHEMAS) for m in modules)
    } == {}


DOCUMENTS = [
    path
    for pattern in ("*.md", "docs/*.md", ".github/**/*.md")
    for path in sorted(ROOT.glob(pattern))
    # These tell of earlier layouts too.
    if path.name not in ("CHANGELOG.md", "decisions.md")
]
_DOTTED = re.compile(r"(?<![\w./-])(trueprob(?:_service|_trainer)?(?:\.\w+)+)")
_PATH = re.compile(
    r"(?<![\w./:-])((?:trueprob|service|trainer|tests|benchmarks|deploy|examples|docs)/[\w./*-]*\w/?)"
)
# Dotted names that are no modules: files and domains of users.
_NO_MODULE = re.compile(r"\.(npz|json|onnx|py|pyi|yml|yaml|toml|md|example|log|sqlite3)$")


def texts() -> Iterator[tuple[str, str]]:
    """Documents, and the docstrings of every module."""
    for path in DOCUMENTS:
        yield str(path.relative_to(ROOT)), path.read_text("utf-8")
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield module, ast.get_docstring(node) or ""


def exists(dotted: str) -> bool:
    """Whether a dotted name is a module of ours or a name that one has."""
    module = module_of(dotted)
    assert module is not None
    rest = dotted.removeprefix(module).strip(".").partition(".")[0]
    if not rest:
        return True
    text = FILES[module].read_text("utf-8")
    return re.search(rf"\b{rest}\b", text) is not None


def test_every_module_that_a_text_names_exists() -> None:
    missing = [
        (where, name)
        for where, text in texts()
        for name in _DOTTED.findall(text)
        if not _NO_MODULE.search(name) and not exists(name)
    ]
    assert missing == []


def test_every_path_that_a_text_names_exists() -> None:
    missing = [
        (where, name)
        for where, text in texts()
        for name in _PATH.findall(text)
        if "NAME" not in name and not list(ROOT.glob(name))
    ]
    assert missing == []
