"""Triton's own client, unmodified, against a real service: what users of the protocol bring."""

import asyncio
from collections.abc import Iterator

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from PIL import Image
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

from tests.running_service import ROOT, RunningService, running_service

pytestmark = pytest.mark.integration
LOGITS = np.random.default_rng(11).normal(0, 3, (5, 10)).astype(np.float32)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    state = tmp_path_factory.mktemp("triton") / "state"
    with running_service(state, ROOT / "models") as running:
        yield running


@pytest.fixture
def client(service: RunningService) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as connected:
        yield connected


def tensor(name: str, values: np.ndarray, datatype: str, *, binary: bool) -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), datatype)
    return made.set_data_from_numpy(values, binary_data=binary)


def own_answer(service: RunningService, logits: np.ndarray) -> dict:
    answer = service.client.post(
        "/v1/models/digits/probabilities", json={"logits": logits.astype(float).tolist()}
    )
    return answer.json()


def test_the_server_and_its_models_introduce_themselves(
    client: triton.InferenceServerClient,
) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    server = client.get_server_metadata()
    assert (server["name"], server["extensions"]) == ("trueprob", ["binary_tensor_data"])
    assert client.is_model_ready("digits")
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "2")
    assert not client.is_model_ready("nobody")
    model = client.get_model_metadata("digits")
    assert model == client.get_model_metadata("digits", "1")
    assert (model["name"], model["versions"]) == ("digits", ["1"])
    assert model["inputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    assert {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]} in model["outputs"]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_logits_in_either_form_give_the_same_numbers(
    service: RunningService,
    client: triton.InferenceServerClient,
    binary_in: bool,
    binary_out: bool,
) -> None:
    expected = own_answer(service, LOGITS)
    names = ("prediction", "probabilities", "confidence", "temperature")
    result = client.infer(
        "digits",
        [tensor("logits", LOGITS, "FP32", binary=binary_in)],
        model_version="1",
        request_id="run-7",
        outputs=[triton.InferRequestedOutput(name, binary_data=binary_out) for name in names],
    )
    response = result.get_response()
    assert (response["id"], response["model_version"]) == ("run-7", "1")
    assert response["parameters"]["calibrator"] == expected["calibrator"]
    assert [output["name"] for output in response["outputs"]] == list(names)
    for name in names:
        got = result.as_numpy(name)
        assert got.dtype == (np.int64 if name == "prediction" else np.float32)
        np.testing.assert_array_equal(got, np.asarray(expected[name], got.dtype))


@pytest.mark.parametrize(("datatype", "dtype"), [("FP16", np.float16), ("FP64", np.float64)])
def test_other_float_types_are_the_same_numbers(
    service: RunningService, client: triton.InferenceServerClient, datatype: str, dtype: type
) -> None:
    values = LOGITS.astype(dtype)
    result = client.infer("digits", [tensor("logits", values, datatype, binary=True)])
    expected = own_answer(service, values)["probabilities"]
    np.testing.assert_array_equal(result.as_numpy("probabilities"), np.float32(expected))


def test_forms_mix_in_one_request(client: triton.InferenceServerClient) -> None:
    result = client.infer(
        "digits",
        [tensor("logits", LOGITS, "FP32", binary=True)],
        outputs=[
            triton.InferRequestedOutput("logit_gap", binary_data=False),
            triton.InferRequestedOutput("logits"),
            triton.InferRequestedOutput("prediction_id", binary_data=False),
            triton.InferRequestedOutput("prediction"),
        ],
        # Asked to compress, a server may answer as it is.
        response_compression_algorithm="gzip",
    )
    np.testing.assert_array_equal(result.as_numpy("logits"), LOGITS)
    ordered = np.sort(LOGITS, axis=1)
    np.testing.assert_array_equal(result.as_numpy("logit_gap"), ordered[:, -1] - ordered[:, -2])
    np.testing.assert_array_equal(result.as_numpy("prediction"), LOGITS.argmax(axis=1))
    assert result.as_numpy("prediction_id").shape == (5,)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests_are_the_same_requests(
    client: triton.InferenceServerClient, algorithm: str, binary: bool
) -> None:
    many = np.tile(LOGITS, (2000, 1))  # as JSON more than a megabyte
    plain = client.infer("digits", [tensor("logits", many, "FP32", binary=True)])
    result = client.infer(
        "digits",
        [tensor("logits", many, "FP32", binary=binary)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_array_equal(result.as_numpy("probabilities"), plain.as_numpy("probabilities"))


def test_ids_come_when_asked_for_and_take_labels(
    service: RunningService, client: triton.InferenceServerClient
) -> None:
    many = np.tile(LOGITS, (60, 1))
    result = client.infer(
        "digits",
        [tensor("logits", many, "FP32", binary=True)],
        outputs=[triton.InferRequestedOutput("prediction_id")],
    )
    ids = [value.decode() for value in result.as_numpy("prediction_id")]
    assert len(set(ids)) == len(many) == 300
    labels = {"prediction_ids": ids, "labels": many.argmax(axis=1).tolist()}
    counted = service.client.post("/v1/models/digits/labels", json=labels).json()
    assert (counted["accepted"], counted["rejected"]) == (300, 0)
    default = client.infer("digits", [tensor("logits", LOGITS, "FP32", binary=True)])
    assert default.as_numpy("prediction_id") is None


@pytest.mark.parametrize("binary", [True, False])
def test_images_go_through_the_network(
    service: RunningService, client: triton.InferenceServerClient, binary: bool
) -> None:
    picture = ROOT / "examples/seven.png"
    resized = Image.open(picture).convert("L").resize((8, 8), Image.Resampling.BOX)
    image = np.asarray(resized, np.uint8).reshape(1, 8, 8, 1)
    result = client.infer("digits", [tensor("image", image, "UINT8", binary=binary)])
    expected = service.client.post(
        "/v1/models/digits/probabilities",
        content=picture.read_bytes(),
        headers={"content-type": "image/png"},
    ).json()
    assert result.as_numpy("prediction").tolist() == expected["prediction"] == [7]
    np.testing.assert_array_equal(
        result.as_numpy("probabilities"), np.float32(expected["probabilities"])
    )


def test_errors_are_shown_in_the_server_s_words(client: triton.InferenceServerClient) -> None:
    nine = [tensor("logits", LOGITS[:, :9].copy(), "FP32", binary=True)]
    with pytest.raises(InferenceServerException, match=r"logits must have shape \(n, 10\)") as bad:
        client.infer("digits", nine)
    assert bad.value.status() == "422"
    assert bad.value.message().startswith("logits must have shape")
    with pytest.raises(InferenceServerException, match="no model named 'nobody'") as missing:
        client.get_model_metadata("nobody")
    assert missing.value.status() == "404"


def test_the_asyncio_client_reads_the_same_answers(service: RunningService) -> None:
    async def scenario() -> None:
        address = service.url.removeprefix("http://")
        async with triton_aio.InferenceServerClient(address) as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready("digits", "1")
            assert (await client.get_server_metadata())["name"] == "trueprob"
            assert (await client.get_model_metadata("digits"))["inputs"][0]["name"] == "image"
            expected = own_answer(service, LOGITS)["probabilities"]
            answers = await asyncio.gather(
                *(
                    client.infer("digits", [tensor("logits", LOGITS, "FP32", binary=binary)])
                    for binary in (True, False) * 4
                )
            )
            for answer in answers:
                got = answer.as_numpy("probabilities")
                np.testing.assert_array_equal(got, np.float32(expected))
            squeezed = await client.infer(
                "digits",
                [tensor("logits", LOGITS, "FP32", binary=True)],
                request_compression_algorithm="gzip",
                response_compression_algorithm="gzip",
            )
            np.testing.assert_array_equal(squeezed.as_numpy("probabilities"), np.float32(expected))
            with pytest.raises(InferenceServerException, match="must be one of probabilities"):
                await client.infer(
                    "digits",
                    [tensor("logits", LOGITS, "FP32", binary=True)],
                    outputs=[triton_aio.InferRequestedOutput("probability")],
                )

    asyncio.run(scenario())


def test_requests_side_by_side_in_greenlets(service: RunningService) -> None:
    address = service.url.removeprefix("http://")
    with triton.InferenceServerClient(address, concurrency=4) as client:
        handles = [
            client.async_infer(
                "digits",
                [tensor("logits", LOGITS[: i + 1], "FP32", binary=True)],
                request_id=str(i),
            )
            for i in range(5)
        ]
        for i, handle in enumerate(handles):
            result = handle.get_result()
            assert result.get_response()["id"] == str(i)
            assert result.as_numpy("probabilities").shape == (i + 1, 10)


@pytest.mark.parametrize("shape", [(5, 10), (1, 10), (0, 10)])
def test_bfloat16_is_the_upper_half_of_float32(
    service: RunningService, client: triton.InferenceServerClient, shape: tuple[int, int]
) -> None:
    logits = LOGITS[: shape[0]]
    kept = (logits.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
    sent = triton.InferInput("logits", list(shape), "BF16").set_data_from_numpy(logits)
    result = client.infer("digits", [sent])
    expected = np.float32(own_answer(service, kept)["probabilities"]).reshape(shape)
    np.testing.assert_array_equal(result.as_numpy("probabilities"), expected)


@pytest.mark.parametrize("name", ["INT8", "INT16", "INT32", "INT64", "UINT8", "UINT64"])
@pytest.mark.parametrize("binary", [True, False])
def test_whole_logits_may_be_integers(
    service: RunningService, client: triton.InferenceServerClient, name: str, binary: bool
) -> None:
    whole = np.abs(LOGITS).round().astype(triton_dtype(name))
    result = client.infer("digits", [tensor("logits", whole, name, binary=binary)])
    expected = np.float32(own_answer(service, whole)["probabilities"])
    np.testing.assert_array_equal(result.as_numpy("probabilities"), expected)


def triton_dtype(name: str) -> type:
    dtype: type = triton_to_np_dtype(name)
    return dtype


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize(
    ("name", "shape", "datatype"),
    [("logits", (0, 10), "FP32"), ("logits", (0, 10), "FP64"), ("image", (0, 8, 8, 1), "UINT8")],
)
def test_no_rows_are_answered_by_no_rows(
    client: triton.InferenceServerClient, name: str, shape: tuple[int, ...], datatype: str,
    binary_in: bool, binary_out: bool,
) -> None:  # fmt: skip
    empty = np.empty(shape, triton_dtype(datatype))
    names = ("probabilities", "prediction", "confidence", "prediction_id")
    result = client.infer(
        "digits",
        [tensor(name, empty, datatype, binary=binary_in)],
        outputs=[triton.InferRequestedOutput(each, binary_data=binary_out) for each in names],
    )
    assert [result.as_numpy(each).shape for each in names] == [(0, 10), (0,), (0,), (0,)]


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16", "BF16", "INT8"])
@pytest.mark.parametrize("shape", [(3, 1), (3,), (0, 1), (0,)])
def test_one_score_for_two_classes(
    service: RunningService,
    client: triton.InferenceServerClient,
    datatype: str,
    shape: tuple[int, ...],
) -> None:
    declared = service.client.put("/v1/models/judge", json={"class_names": ["no", "yes"]})
    assert declared.is_success
    z = np.array([-3.0, 0.0, 2.0][: shape[0]]).reshape(shape)
    dtype = np.float32 if datatype == "BF16" else triton_dtype(datatype)
    result = client.infer("judge", [tensor("logits", z.astype(dtype), datatype, binary=True)])
    p = 1 / (1 + np.exp(-z))
    assert result.as_numpy("probabilities").shape == shape
    np.testing.assert_allclose(result.as_numpy("probabilities"), p, rtol=1e-6)
    np.testing.assert_array_equal(
        result.as_numpy("p1"), result.as_numpy("probabilities").reshape(-1)
    )
    np.testing.assert_array_equal(result.as_numpy("prediction"), (z.reshape(-1) > 0).astype(int))
    two = np.stack([np.zeros(len(z)), z.reshape(-1)], axis=1).astype(np.float32)
    both = client.infer(
        "judge",
        [tensor("logits", two, "FP32", binary=True)],
        outputs=[triton.InferRequestedOutput(name) for name in ("p1", "probabilities")],
    )
    assert both.as_numpy("probabilities").shape == (len(z), 2)
    np.testing.assert_array_equal(both.as_numpy("p1"), both.as_numpy("probabilities")[:, 1])
    outputs = client.get_model_metadata("judge")["outputs"]
    assert {"name": "p1", "datatype": "FP32", "shape": [-1]} in outputs
    with pytest.raises(InferenceServerException, match="p1 is P"):
        client.infer(
            "digits",
            [tensor("logits", LOGITS, "FP32", binary=True)],
            outputs=[triton.InferRequestedOutput("p1")],
        )
