import subprocess
import sys

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
