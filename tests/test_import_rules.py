"""Who may import whom: the architecture, held against the source with `ast`."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("trueprob", "service", "trainer")


def source_files() -> list[Path]:
    return sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def imported_modules(path: Path) -> Iterator[tuple[str, bool]]:
    """Every imported module of a file, and whether the import runs with the module."""
    tree = ast.parse(path.read_text("utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        at_top = id(node) not in inside
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, at_top
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module, at_top
            for alias in node.names:
                yield f"{node.module}.{alias.name}", at_top


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(package + ".") for package in packages)


ALL_IMPORTS = [
    (module_name(path), imported, at_top)
    for path in source_files()
    for imported, at_top in imported_modules(path)
]

# A third-party package → the modules that may import it.
ONLY_IN = {
    "torch": ("trainer",),
    "sklearn": ("trainer", "trueprob.estimators"),
    "onnx": ("trainer", "trueprob.onnx_export"),
    "pyarrow": ("trueprob.tables", "trueprob_trainer.data.parquet"),
    "onnxruntime": (
        "trueprob_service.inference.network.onnx_model",
        "trueprob_trainer.export.graph",
        "trueprob_trainer.export.precision",
    ),
    "fsspec": (
        "trueprob_service.control.fitting.set_location",
        "trueprob_service.control.fitting.remote_set_files",
    ),
    "httpx": ("trueprob.client", "trueprob_service.control.upkeep.webhook"),
    "prometheus_client": ("trueprob_service.metrics.telemetry", "trueprob_service.metric_families"),
    "sqlalchemy": ("trueprob_service.control.store",),
    "alembic": ("trueprob_service.control.store",),
    "fastapi": (
        "trueprob_service.app",
        "trueprob_service.control",
        "trueprob_service.prediction_routes",
    ),
    "pydantic": (
        "trueprob_service.control",
        "trueprob_service.prediction_routes",
        "trueprob_service.prediction_schemas",
        "trueprob_service.settings",
        "trueprob_service.settings_reading",
    ),
    "matplotlib": ("trueprob.diagram", "trainer"),
}


@pytest.mark.parametrize("package", ONLY_IN)
def test_a_third_party_package_stays_where_it_belongs(package: str) -> None:
    strays = [
        (importer, imported)
        for importer, imported, _ in ALL_IMPORTS
        if is_in(imported, package) and not is_in(importer, *ONLY_IN[package])
    ]
    assert strays == []


def test_the_core_imports_nothing_of_ours_and_only_numpy_at_the_top() -> None:
    allowed = {*sys.stdlib_module_names, "numpy", "trueprob"}
    strays = [
        (importer, imported)
        for importer, imported, at_top in ALL_IMPORTS
        if is_in(importer, "trueprob")
        and (is_in(imported, "service", "trainer") or at_top)
        and imported.partition(".")[0] not in allowed
        # Its classes inherit from scikit-learn's; nothing of the library imports it.
        and not (is_in(importer, "trueprob.estimators") and is_in(imported, "sklearn"))
        # Its signatures name httpx's transports; `import trueprob` does not load it.
        and not (is_in(importer, "trueprob.client") and is_in(imported, "httpx"))
    ]
    assert strays == []


def test_nothing_imports_the_estimators() -> None:
    strays = [
        i
        for i in ALL_IMPORTS
        if is_in(i[1], "trueprob.estimators") and not is_in(i[0], "trueprob.estimators")
    ]
    assert strays == []


def test_the_trainer_never_imports_the_service() -> None:
    assert [i for i in ALL_IMPORTS if is_in(i[0], "trainer") and is_in(i[1], "service")] == []


def test_the_service_never_imports_the_trainer() -> None:
    assert [i for i in ALL_IMPORTS if is_in(i[0], "service") and is_in(i[1], "trainer")] == []


def test_the_demo_is_a_client_like_any_other() -> None:
    strays = [
        (path.name, imported)
        for path in (ROOT / "examples" / "demo").glob("*.py")
        for imported, _ in imported_modules(path)
        if is_in(imported, *OURS) and not is_in(imported, "trueprob.client")
    ]
    assert strays == []
    assert [i for i in ALL_IMPORTS if is_in(i[1], "examples")] == []


def test_the_data_plane_never_imports_the_control_plane() -> None:
    strays = [
        i
        for i in ALL_IMPORTS
        if is_in(i[0], "trueprob_service.inference") and is_in(i[1], "trueprob_service.control")
    ]
    assert strays == []


def test_the_data_plane_loads_neither_fastapi_nor_pydantic() -> None:
    code = (
        "import sys, trueprob_service.inference.asgi; "
        "bad = {'fastapi', 'pydantic'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


SEEN_BY_CONTROL = ("deployment", "deployments", "network_input", "wire_images")


def test_the_control_plane_sees_deployments_and_inputs_of_the_data_plane_only() -> None:
    strays = [
        (importer, imported)
        for importer, imported, _ in ALL_IMPORTS
        if is_in(importer, "trueprob_service.control")
        and is_in(imported, "trueprob_service.inference")
        and imported != "trueprob_service.inference"
        and not is_in(imported, *(f"trueprob_service.inference.{name}" for name in SEEN_BY_CONTROL))
    ]
    assert strays == []


def test_the_service_loads_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys, trueprob_service.app; "
        "bad = {'torch', 'matplotlib', 'pandas', 'sklearn'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_no_file_is_longer_than_a_reader_can_hold() -> None:
    """The clients are 500 lines of docstrings of 33 methods each, and one is generated."""
    allowed = {"trueprob/client": 400, "trueprob/client/client.py": 900}
    allowed["trueprob/client/async_client.py"] = allowed["trueprob/client/client.py"]
    long = {}
    for path in source_files():
        name = path.relative_to(ROOT)
        limit = allowed.get(str(name), allowed.get(str(name.parent), 270))
        if (n := len(path.read_text("utf-8").splitlines())) > limit:
            long[str(name)] = n
    assert long == {}


def test_no_module_is_named_after_nothing() -> None:
    vague = {"utils", "helpers", "common", "manager", "misc"}
    assert [path for path in source_files() if path.stem in vague] == []
