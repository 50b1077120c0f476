"""The page of ``/`` in a real browser that reaches nothing but the service."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import numpy as np
import pytest

from tests.browser import listed, rendered, text_of
from tests.running_service import ROOT, running_service
from tests.trueprob_service.application import application
from trueprob_service.edge.keys import new_key


@pytest.mark.integration
def test_the_page_shows_the_verdict_evidence_change_and_the_alarm(tmp_path: Path) -> None:
    path = "/v1/models/digits"
    with running_service(tmp_path / "state", ROOT / "models") as service:
        logits = np.random.default_rng(0).normal(0, 3, (400, 10))
        answer = service.client.post(
            f"{path}/probabilities?receipts=true", json={"logits": logits.tolist()}
        ).json()
        wrong = [(prediction + 1) % 10 for prediction in answer["prediction"]]
        labels = {"prediction_ids": answer["prediction_ids"], "labels": wrong}
        assert service.client.post(f"{path}/labels", json=labels).json()["accepted"] == 400
        now = service.client.get(f"{path}/calibration").json()
        page = rendered(service, tmp_path / "profile")
    assert text_of(page, "model") == "digits"
    assert text_of(page, "state") == now["verdict"]["state"] == "off"
    assert 'id="state" data-state="off"' in page
    assert text_of(page, "sentence") == now["verdict"]["sentence"]
    assert text_of(page, "advice") == now["advice"]
    low, high = (100 * now["verdict"][end] for end in ("error_low", "error_high"))
    assert list(listed(page).items()) == [
        ("digits", ["off", f"{low:.1f} to {high:.1f} %", "400"]),
        ("cifar10", ["unknown", "0.0 to 100.0 %", "0"]),
    ]
    assert page.count('aria-current="true"') == 1
    assert text_of(page, "ece") == f"{now['ece']:.4f}"
    assert text_of(page, "floor") == f"{now['ece_floor']:.4f} is its noise floor"
    assert text_of(page, "pair").endswith("revision 1")
    assert text_of(page, "evidence") == f"10^{now['evidence_log10']:.1f} of 10^2.0"
    assert text_of(page, "change") == f"10^{now['change_log10']:.1f} of 10^5.0"
    assert text_of(page, "alarm-text").startswith(f"Alarm {now['alarm']['id']}: change reached")
    assert text_of(page, "labels").endswith("400 labels in 24h")
    assert 'id="binary" hidden' in page
    assert page.count("<circle") == sum(each["count"] > 0 for each in now["bins"])
    assert text_of(page, "problem") == ""


@pytest.mark.integration
def test_the_page_shows_which_class_is_off(tmp_path: Path) -> None:
    path = "/v1/models/answers"
    generator = np.random.default_rng(0)
    logits = generator.normal(0, 2, (1200, 2))
    labels = (logits + generator.gumbel(size=(1200, 2))).argmax(axis=1)
    logits[:, 1] += 1.0
    with running_service(tmp_path / "state", ROOT / "models") as service:
        service.client.put(path, json={"class_names": ["<b>no", "yes"]})
        answer = service.client.post(
            f"{path}/probabilities?receipts=true", json={"logits": logits.tolist()}
        ).json()
        sent = {"prediction_ids": answer["prediction_ids"], "labels": labels.tolist()}
        assert service.client.post(f"{path}/labels", json=sent).json()["accepted"] == 1200
        now = service.client.get(f"{path}/calibration").json()
        page = rendered(service, tmp_path / "profile", "answers")
    said = now["alarm"]["worst_class"]["sentence"]
    assert re.search(r'id="alarm-text">(.*?)</p>', page)[1].endswith(f": {said}.")  # type: ignore[index]
    body = re.search(r'<tbody id="classes">(.*?)</tbody>', page)
    assert body is not None
    cells = [re.findall("<td>(.*?)</td>", row) for row in body[1].split("</tr>")[:-1]]
    assert [row[0] for row in cells] == [each["class_name"] for each in now["classes"]]
    how = {"<b>no": "not confident enough", "yes": "too confident"}
    for row, each in zip(cells, now["classes"], strict=True):
        gap = 100 * abs(each["confidence"] - each["frequency"])
        assert row[1:] == [
            f"{each['labels']:.0f}",
            *(f"{100 * each[name]:.1f} %" for name in ("share", "confidence", "frequency")),
            f"{gap:.1f} {how[each['class_name']]}",
            f"{100 * each['low']:.1f} to {100 * each['high']:.1f}",
        ]
    binary = now["binary"]
    diagram = re.search(r'id="binary-reliability".*?</svg>', page, re.S)
    assert diagram is not None
    assert diagram[0].count("<circle") == sum(each["count"] > 0 for each in binary["bins"]) > 10
    text = text_of(page, "binary-text")
    assert text.startswith("P(yes) of the labels in the window against how often it is true")
    assert f"ECE {binary['ece']:.4f}, {binary['ece_floor']:.4f} is its noise floor" in text


def test_its_files_are_open_and_take_nothing_from_elsewhere(tmp_path: Path) -> None:
    _, line = new_key("someone", ["predict"])
    keys = tmp_path / "keys.jsonl"
    keys.write_text(line)

    async def scenario() -> None:
        async with application(tmp_path / "state", api_keys_file=keys) as client:
            page = await client.get("/")
            assert page.headers["content-security-policy"].startswith("default-src 'self'")
            files = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
            assert files == ["page/page.css", "page/page.js"]
            for name in files:
                answer = await client.get(f"/{name}")
                assert answer.status_code == 200
                assert "://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
            assert (await client.get("/page/%2e%2e/app.py")).status_code == 401
            assert (await client.get("/v1/models")).status_code == 401

    asyncio.run(scenario())
