import ast
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import trueprob


def test_public_names_are_sorted_and_exist():
    # Constants, classes, functions, each by name: the order that ruff keeps.
    kinds = [(not name.isupper(), not name[0].isupper(), name) for name in trueprob.__all__]
    assert kinds == sorted(kinds)
    assert len(set(trueprob.__all__)) == len(trueprob.__all__)
    for name in trueprob.__all__:
        assert getattr(trueprob, name) is not None


def test_importing_the_library_loads_numpy_only():
    program = (
        "import sys, trueprob, trueprob.cli.__main__\n"
        "heavy = {'scipy', 'torch', 'onnx', 'onnxruntime', 'rich', 'httpx', 'matplotlib', "
        "'pyarrow', 'fastapi', 'sqlalchemy', 'prometheus_client'}\n"
        "print(sorted(heavy & {name.split('.')[0] for name in sys.modules}))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "[]"


def test_type_checkers_see_the_same_names_from_the_same_modules():
    stub = Path(trueprob.__file__).with_suffix(".pyi")
    declared = {
        (alias.asname, node.module)
        for node in ast.parse(stub.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == set(trueprob._HOME_OF.items())
    assert {name for name, _ in declared} == {*trueprob.__all__} - {"__version__"}


def test_no_public_name_is_hidden_by_a_module_of_its_name():
    modules = {module.name for module in pkgutil.iter_modules(trueprob.__path__)}
    assert not modules & {*trueprob.__all__}


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'calibrate'"):
        trueprob.calibrate  # noqa: B018
    assert {"fit", "score"} <= {*dir(trueprob)}
