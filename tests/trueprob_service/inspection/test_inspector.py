"""What an inspection finds, with a real child and real networks."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.trueprob_service.inspection import bombs
from tests.waiting import wait_until
from trueprob_service.errors import STOPPING, InferenceFailed, ModelUnavailable, NetworkRefused
from trueprob_service.inference.network.onnx_model import OnnxModel
from trueprob_service.inference.network.tensors import NamedTensors, TensorSpec
from trueprob_service.inspection.inspector import Inspector
from trueprob_service.inspection.verdicts import Verdicts
from trueprob_service.inspection.worker import TryNetwork

ROWS = TensorSpec("x", "float32", (4,))
MEMORY = 1 << 29


@pytest.fixture(scope="module")
def inspector() -> Iterator[Inspector]:
    with Inspector(memory=MEMORY) as shared:
        yield shared


def written(folder: Path, content: bytes) -> TryNetwork:
    path = folder / "model.onnx"
    path.write_bytes(content)
    return TryNetwork(path, (ROWS,), "logits", "logits", 3, max_batch_rows=64)


def refused(inspector: Inspector, network: TryNetwork, **options: object) -> NetworkRefused:
    with pytest.raises(NetworkRefused) as caught:
        inspector.check(network, **options)  # type: ignore[arg-type]
    return caught.value


def test_a_good_network_passes_and_leaves_no_file(inspector: Inspector, tmp_path: Path) -> None:
    network = written(tmp_path, bombs.content())
    inspector.check(network)
    assert list(tmp_path.iterdir()) == [network.network]


def test_a_relative_path_is_that_of_this_process(
    inspector: Inspector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = written(tmp_path, bombs.external("weights.bin"))
    (tmp_path / "weights.bin").write_bytes(bombs.MATRIX.tobytes())
    inspector.check(network)  # the child runs
    monkeypatch.chdir(tmp_path)
    relative = replace(network, network=Path("model.onnx"))
    inspector.check(relative)
    assert [each.name for each in inspector.session(relative.network).get_inputs()] == ["x"]


@pytest.mark.parametrize("name", bombs.MEMORY)
def test_what_needs_more_memory_is_refused_and_the_next_passes(
    inspector: Inspector, tmp_path: Path, name: str
) -> None:
    error = refused(inspector, written(tmp_path, bombs.MEMORY[name]()))
    assert (error.reason, error.lasting) == ("memory", True)
    assert "needs more than 512 MiB of memory while it " in error.detail
    assert "TRUEPROB_INSPECT_MEMORY" in error.detail
    inspector.check(written(tmp_path, bombs.content()))


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("endless_loop", "while it ran on one and two rows"),
        ("endless_for_many_rows", "while it ran on 64 rows"),
        ("endless_for_large_numbers", "while it ran on large numbers"),
    ],
)
def test_what_does_not_end_is_refused_and_the_next_passes(
    tmp_path: Path, name: str, step: str
) -> None:
    with Inspector(memory=MEMORY, seconds=2) as inspector:
        error = refused(inspector, written(tmp_path, bombs.TIME[name]()))
        assert (error.reason, error.lasting) == ("time", True)
        assert error.detail == (
            f"the network took longer than 2 s {step}: the limit is TRUEPROB_INSPECT_SECONDS"
        )
    with Inspector(memory=MEMORY) as inspector:
        network = written(tmp_path, bombs.TIME["endless_for_many_rows"]())
        inspector.check(replace(network, max_batch_rows=32))  # which is all that it will run


@pytest.mark.parametrize("name", bombs.NOT_LOADED)
def test_what_onnxruntime_does_not_load_is_said_so(
    inspector: Inspector, tmp_path: Path, name: str
) -> None:
    network = written(tmp_path, bombs.NOT_LOADED[name]())
    with pytest.raises(ModelUnavailable, match=r"model\.onnx cannot be loaded: Fail"):
        inspector.check(network)


@pytest.mark.parametrize(
    "content", [b"no network", bombs.content()[:-100], bombs.content() + b"\xff" * 9]
)
def test_what_is_no_network_fails_as_it_did(
    inspector: Inspector, tmp_path: Path, content: bytes
) -> None:
    with pytest.raises(ModelUnavailable, match=r"model\.onnx cannot be loaded: InvalidProtobuf"):
        inspector.check(written(tmp_path, content))


def test_on_another_provider_a_network_may_work_that_fails_here(
    inspector: Inspector, tmp_path: Path
) -> None:
    other = replace(written(tmp_path, bombs.content()), n_classes=7)
    with pytest.raises(InferenceFailed, match=r"the network gave \(1, 3\), expected \(1, 7\)"):
        inspector.check(other)
    inspector.check(other, providers=("cuda", "cpu"))
    bomb = written(tmp_path, bombs.constant_of_shape())
    with pytest.raises(NetworkRefused):
        inspector.check(bomb, providers=("cuda", "cpu"))


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("../weights.bin", "must be a relative path inside the folder of the network"),
        ("/etc/hostname", "must be a relative path inside the folder of the network"),
        ("*/_ORT_MEM_ADDR_/*", "is missing"),
        ("out", "is a link that leads out of the folder of the network"),
        ("pipe", "must be a regular file"),
        ("short.bin", "is cut off: it has 3 bytes"),
    ],
)
def test_no_file_from_elsewhere_is_read(
    inspector: Inspector, tmp_path: Path, location: str, words: str
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bombs.MATRIX.tobytes())
    (folder / "out").symlink_to(tmp_path / "weights.bin")
    (folder / "short.bin").write_bytes(b"abc")
    os.mkfifo(folder / "pipe")
    error = refused(inspector, written(folder, bombs.external(location, length="48")))
    assert (error.reason, error.lasting) == ("files", True)
    assert words in error.detail


def test_a_file_without_a_digest_is_not_read(inspector: Inspector, tmp_path: Path) -> None:
    network = written(tmp_path, bombs.external("weights.bin"))
    (tmp_path / "weights.bin").write_bytes(bombs.MATRIX.tobytes())
    inspector.check(network, digests={"model.onnx": "d", "weights.bin": "d"})
    error = refused(inspector, network, digests={"model.onnx": "d"})
    assert error.detail == (
        "the network's file of weights 'weights.bin' has no digest in the manifest"
    )


def test_a_hole_declares_much_and_holds_nothing(tmp_path: Path) -> None:
    network = written(tmp_path, bombs.external("hole.bin", n=1 << 30))
    bombs.hole(tmp_path / "hole.bin", 1 << 32)
    with Inspector() as inspector:
        error = refused(inspector, network)
    assert error.reason == "memory"
    assert "needs more than 2.0 GiB of memory while it was loaded" in error.detail


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8])
def test_200_megabytes_of_honest_weights_pass(tmp_path: Path, dtype: type) -> None:
    side = int(np.sqrt(200e6 / np.dtype(dtype).itemsize))
    path = bombs.large_network(tmp_path / "model.onnx", side, np.dtype(dtype))
    with Inspector() as inspector:
        inspector.check(TryNetwork(path, (ROWS,), "logits", "logits", 3, max_batch_rows=64))


def test_a_session_in_the_child_answers_as_one_here(inspector: Inspector, tmp_path: Path) -> None:
    network = written(tmp_path, bombs.content())
    session = inspector.session(network.network)
    [given], [output] = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("x", "tensor(float)", ["n", 4])
    assert (output.name, output.shape) == ("logits", ["n", 3])
    rows = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    [logits] = session.run(["logits"], {"x": rows})
    here = OnnxModel(network.network, inputs=(ROWS,), output_name="logits", n_classes=3)
    np.testing.assert_array_equal(logits, here.run(NamedTensors({"x": rows})))
    with pytest.raises(ModelUnavailable, match="INVALID_ARGUMENT"):
        session.run(["logits"], {"x": rows[:, :2]})
    [again] = session.run(["logits"], {"x": rows[:0]})
    assert again.shape == (0, 3)


# ----- What a machine does to an inspection -----


def test_a_child_that_the_system_ends_condemns_nobody(tmp_path: Path) -> None:
    counted: list[str] = []
    verdicts = Verdicts(tmp_path / "verdicts")
    network = written(tmp_path, bombs.endless_loop())
    caught: list[NetworkRefused] = []
    with Inspector(verdicts=verdicts, count=counted.append) as inspector:
        check = threading.Thread(
            target=lambda: caught.append(
                refused(inspector, network, digests={"model.onnx": "bomb"})
            )
        )
        check.start()
        wait_until(lambda: inspector.pid is not None, "the child")
        assert inspector.pid is not None
        os.kill(inspector.pid, signal.SIGKILL)
        check.join()
        [error] = caught
        assert (error.reason, error.lasting) == ("machine", False)
        assert "could not be inspected, and is not loaded before it is" in error.detail
        assert not list((tmp_path / "verdicts").glob("*.json"))
        inspector.check(written(tmp_path, bombs.content()), digests={"model.onnx": "good"})
    assert counted == ["machine", "passed"]


def test_an_idle_child_ends_and_the_next_check_starts_another(tmp_path: Path) -> None:
    network = written(tmp_path, bombs.content())
    with Inspector(idle_seconds=0.01) as inspector:
        for _ in range(3):
            inspector.check(network)


def test_closing_ends_a_running_inspection(tmp_path: Path) -> None:
    inspector = Inspector()
    caught: list[NetworkRefused] = []
    network = written(tmp_path, bombs.endless_loop())
    check = threading.Thread(target=lambda: caught.append(refused(inspector, network)))
    check.start()
    wait_until(lambda: inspector.pid is not None, "the child")
    inspector.close()
    check.join()
    assert caught[0].reason == STOPPING
    assert refused(inspector, network).detail.endswith("the service is stopping")


# ----- Verdicts -----


def test_what_is_known_is_not_looked_at_again(tmp_path: Path) -> None:
    counted: list[str] = []
    now = [1000.0]
    verdicts = Verdicts(tmp_path / "verdicts", clock=lambda: now[0])
    good, bomb = {"model.onnx": "good"}, {"model.onnx": "bomb"}
    network = written(tmp_path, bombs.content())

    def another(memory: int = MEMORY) -> Inspector:
        return Inspector(memory=memory, verdicts=verdicts, count=counted.append)

    with another() as first:
        first.check(network, digests=good)
        said = refused(first, written(tmp_path, bombs.constant_of_shape()), digests=bomb)
    network.network.unlink()  # whoever looked would not find it
    with another() as second:
        second.check(network, digests=good)
        assert refused(second, network, digests=bomb).detail == said.detail
        assert second.pid is None
    assert counted == ["passed", "memory"] * 2
    for inspector, digests in (
        (another(), {"model.onnx": "changed"}),
        (another(memory=2 * MEMORY), bomb),  # a limit that was raised counts at once
        (another(), bomb),  # an hour later
    ):
        with inspector:
            error = refused(inspector, network, digests=digests)
            assert (error.reason, error.lasting) == ("machine", False)
            assert "a file cannot be read: No such file" in error.detail
        now[0] += 1800
    with another() as last:
        last.check(network, digests=good)


def test_two_processes_share_one_look(tmp_path: Path) -> None:
    counted: Counter[str] = Counter()
    network = written(tmp_path, bombs.content())
    inspectors = [Inspector(verdicts=Verdicts(tmp_path / "verdicts")) for _ in range(3)]
    started = threading.Barrier(len(inspectors))

    def check(inspector: Inspector) -> None:
        started.wait()
        inspector.check(network, digests={"model.onnx": "good"})
        counted["passed"] += 1

    threads = [threading.Thread(target=check, args=(each,)) for each in inspectors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted["passed"] == 3
    assert sum(each.pid is not None for each in inspectors) == 1
    for each in inspectors:
        each.close()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"outcome": "passed"}', b"\xff"])
def test_a_damaged_verdict_is_none(tmp_path: Path, content: bytes) -> None:
    verdicts = Verdicts(tmp_path)
    (tmp_path / "key.json").write_bytes(content)
    assert verdicts.get("key") is None


def test_without_a_folder_every_process_looks_for_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    network = written(tmp_path, bombs.content())
    with Inspector(verdicts=Verdicts(tmp_path / "file")) as inspector:
        inspector.check(network, digests={"model.onnx": "good"})
        inspector.check(network, digests={"model.onnx": "good"})
