"""What `OnnxModel` does on a GPU, on a session that says it is one."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from tests.trueprob_service.inference.network.test_onnx_model import flatten_network, images
from trueprob_service.errors import InferenceFailed, ProviderUnavailable
from trueprob_service.inference.network.onnx_model import OnnxModel
from trueprob_service.inference.network.tensors import TensorSpec

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class Buffer:
    """Memory of a device: only what was copied there is known."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, device: str, device_id: int) -> None:
        self.shape, self.device, self.content = tuple(shape), device, np.empty(shape, dtype)

    def update_inplace(self, data: np.ndarray) -> None:
        assert data.shape == self.shape
        self.content[...] = data


@dataclass
class Binding:
    input: Buffer | None = None
    output_device: str = ""
    result: Any = None

    def bind_ortvalue_input(self, name: str, buffer: Buffer) -> None:
        assert name == "image"
        self.input = buffer

    def bind_output(self, name: str, device: str) -> None:
        assert name == "logits"
        self.output_device = device

    def copy_outputs_to_cpu(self) -> list[np.ndarray]:
        return [self.result]


@dataclass
class DeviceSession:
    """Logits are the pixels; every batch that is run is written down."""

    rows: int | str = "batch"
    providers: tuple[str, ...] = (CUDA, CPU)
    dtype: Any = np.float32
    batches: list[int] = field(default_factory=list)
    bindings: list[Binding] = field(default_factory=list)

    def __call__(self, model: object, **options: object) -> "DeviceSession":
        return self

    def get_providers(self) -> list[str]:
        return list(self.providers)

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="image", shape=[self.rows, 2, 2, 1])]

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(name="logits")]

    def run(
        self, outputs: list[str], feed: dict[str, np.ndarray], options: Any = None
    ) -> list[np.ndarray]:
        self.batches.append(len(feed["image"]))
        return [feed["image"].reshape(-1, 4).astype(self.dtype)]

    def io_binding(self) -> Binding:
        self.bindings.append(Binding())
        return self.bindings[-1]

    def run_with_iobinding(self, binding: Binding, options: Any = None) -> None:
        assert binding.input is not None
        assert (binding.input.device, binding.output_device) == ("cuda", "cuda")
        (binding.result,) = self.run(["logits"], {"image": binding.input.content})


def load(session: DeviceSession, **changed: Any) -> OnnxModel:
    arguments: dict[str, Any] = {
        "inputs": [TensorSpec("image", "uint8", (2, 2, 1))],
        "output_name": "logits",
        "n_classes": 4,
        "providers": ("cuda", "cpu"),
        "max_batch_rows": 12,
        "open_session": session,
        "new_buffer": Buffer,
        **changed,
    }
    return OnnxModel(b"", **arguments)


def test_every_shape_that_will_come_is_run_once_at_the_start() -> None:
    session = DeviceSession()
    model = load(session)
    assert model.provider == CUDA
    assert session.batches == [1, 2, 4, 8, 12, 2, 2], "the last two must agree"
    for n in range(1, 31):
        np.testing.assert_array_equal(model.run(images(n)), images(n).reshape(n, 4))
    assert set(session.batches) == {1, 2, 4, 8, 12}
    assert len(session.bindings) == 5, "buffers are made once a shape"


def test_a_fixed_batch_size_is_padded_on_a_device_too() -> None:
    session = DeviceSession(rows=3)
    model = load(session)
    np.testing.assert_array_equal(model.run(images(7)), images(7).reshape(7, 4))
    assert session.batches == [3] * 6, "three at the start"
    assert len(session.bindings) == 1


def test_half_precision_comes_out_as_float32() -> None:
    logits = load(DeviceSession(dtype=np.float16)).run(images(3))
    assert logits.dtype == np.float32


def test_a_silent_fall_back_to_the_cpu_is_refused_unless_auto_allows_it() -> None:
    fell_back = DeviceSession(providers=(CPU,))
    for asked in (("cuda", "cpu"), ("tensorrt", "cuda", "cpu")):
        with pytest.raises(ProviderUnavailable, match="first, onnxruntime took CPUExecution"):
            load(fell_back, providers=asked)
    with pytest.raises(ProviderUnavailable, match="asks for TensorrtExecutionProvider first"):
        load(DeviceSession(), providers=("tensorrt", "cuda", "cpu"))
    fell_back.batches.clear()
    model = load(fell_back, providers=("auto",))
    assert model.provider == CPU
    assert fell_back.batches == [1, 2, 2, 2], "no device, no shapes to prepare"
    assert fell_back.bindings == []


def test_a_device_that_fails_is_a_failed_inference() -> None:
    session = DeviceSession()
    model = load(session)
    session.run_with_iobinding = lambda *_: 1 / 0  # type: ignore[assignment, method-assign]
    with pytest.raises(InferenceFailed, match="onnxruntime: division by zero"):
        model.run(images(2))


def test_bound_buffers_give_what_a_plain_run_gives(tmp_path: Any) -> None:
    """The same calls on onnxruntime itself, with the CPU's memory for a device's."""
    real = onnxruntime.InferenceSession(flatten_network(tmp_path / "model.onnx"), providers=[CPU])

    class CpuAsDevice:
        get_inputs, get_outputs, run = real.get_inputs, real.get_outputs, real.run

        def get_providers(self) -> list[str]:
            return [CUDA]

        def io_binding(self) -> Any:
            binding = real.io_binding()
            return SimpleNamespace(
                bind_ortvalue_input=binding.bind_ortvalue_input,
                bind_output=lambda name, device: binding.bind_output(name, "cpu"),
                copy_outputs_to_cpu=binding.copy_outputs_to_cpu,
                real=binding,
            )

        def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
            real.run_with_iobinding(binding.real, options)

    def buffer(shape: Any, dtype: Any, device: str, device_id: int) -> Any:
        return onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, "cpu", 0)

    model = load(DeviceSession(), open_session=lambda *a, **k: CpuAsDevice(), new_buffer=buffer)
    first = model.run(images(5))
    np.testing.assert_array_equal(model.run(images(8)), images(8).reshape(8, 4))
    np.testing.assert_array_equal(first, images(5).reshape(5, 4))
