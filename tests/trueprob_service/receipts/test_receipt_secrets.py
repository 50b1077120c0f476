"""The secrets of receipts: how they are set, made, put in front of others and removed."""

from __future__ import annotations

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trueprob_service.__main__ import main
from trueprob_service.errors import InvalidSettings
from trueprob_service.receipts.receipt import ForgedReceipt, Receipts
from trueprob_service.receipts.secrets import (
    HOW_TO_MAKE_ONE,
    ReceiptKey,
    open_receipt_keys,
    read_receipt_secrets,
)
from trueprob_service.settings import Settings, load_settings

ROOT = Path(__file__).parents[3]
OLD, NEW = "the older secret of 2025", "the newer secret of 2026"
POSTGRES = {"TRUEPROB_DATABASE_URL": "postgresql://trueprob@db/trueprob"}
START_WHEN_TOLD = """
import sys
from pathlib import Path
from trueprob_service.receipts.secrets import open_receipt_keys
from trueprob_service.settings import Settings
settings = Settings(state_dir=Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
print(open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file)[0].secret.decode())
"""


def receipts_of(text: str) -> Receipts:
    return Receipts(read_receipt_secrets(text), clock=lambda: 0.0)


def issue(receipts: Receipts) -> str:
    (prediction_id,) = receipts.issue(
        model=bytes(8),
        version=1,
        revision=1,
        class_list=bytes(8),
        prediction=np.array([0]),
        confidence=np.array([0.5]),
    )
    return prediction_id


def key_id_in(prediction_id: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(prediction_id + "==")[4:8], "big")


def test_a_new_secret_in_front_signs_and_the_older_one_still_verifies() -> None:
    before, after = receipts_of(OLD), receipts_of(f"{NEW}, {OLD}")
    older, newer = issue(before), issue(after)
    assert key_id_in(older) == ReceiptKey.from_secret(OLD).key_id
    assert key_id_in(newer) == ReceiptKey.from_secret(NEW).key_id
    assert after.verify_all([older, newer]).genuine.all()
    # A process that has not been restarted yet does not know the new one.
    assert before.verify_all([older, newer]).genuine.tolist() == [True, False]


def test_what_a_removed_or_another_secret_signed_is_a_forgery() -> None:
    older = issue(receipts_of(OLD))
    for others in (NEW, OLD + "!", OLD.upper()):
        with pytest.raises(ForgedReceipt):
            receipts_of(others).verify(older)


def test_a_receipt_with_the_id_of_a_secret_and_the_tag_of_another_is_a_forgery() -> None:
    impostor = ReceiptKey(ReceiptKey.from_secret(OLD).key_id, b"any other secret of 16 bytes")
    text = issue(Receipts([impostor], clock=lambda: 0.0))
    assert key_id_in(text) == ReceiptKey.from_secret(OLD).key_id
    assert receipts_of(f"{NEW},{OLD}").verify_all([text]).genuine.tolist() == [False]


def test_a_key_shows_neither_its_secret_nor_the_same_id_for_another() -> None:
    assert OLD not in repr(ReceiptKey.from_secret(OLD))
    assert len({ReceiptKey.from_secret(f"secret number {i:8}").key_id for i in range(1000)}) == 1000
    # Kept: receipts name their secret by it, before and after an upgrade.
    assert ReceiptKey.from_secret(OLD).key_id == 3851559878


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("short", "secret 1 has 5 bytes, expected at least 16"),
        (f"{OLD},fifteen bytes..", "secret 2 has 15 bytes"),
        (f"{OLD},", "secret 2 has 0 bytes"),
        (f"{OLD}, {OLD}", "secret 2 repeats an earlier one"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_and_not_repeated(text: str, words: str) -> None:
    with pytest.raises(InvalidSettings, match=words) as error:
        load_settings([], {"TRUEPROB_RECEIPT_SECRETS": text})
    assert str(error.value).startswith("receipt_secrets: ")
    assert "\n" not in str(error.value)
    assert not any(part.strip() in str(error.value) for part in text.split(",") if part.strip())


def test_sixteen_bytes_are_enough_and_none_means_not_set() -> None:
    assert len(read_receipt_secrets("0123456789abcdef, ééééééééé")) == 2
    assert read_receipt_secrets("") == read_receipt_secrets(" ") == ()


def test_without_a_secret_sqlite_gets_one_that_stays(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "a" / "state")
    mask = os.umask(0)  # whatever the process lets others read
    try:
        (made,) = open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file)
    finally:
        os.umask(mask)
    file = settings.receipt_secret_file
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert len(bytes.fromhex(file.read_text())) == 32
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file) == (made,)
    other = Settings(state_dir=tmp_path / "b")
    (elsewhere,) = open_receipt_keys("", other.receipt_secret_file)
    assert elsewhere != made


def test_a_secret_that_is_set_is_used_and_no_file_is_made(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, receipt_secrets=f"{NEW},{OLD}")
    assert open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file) == (
        ReceiptKey.from_secret(NEW),
        ReceiptKey.from_secret(OLD),
    )
    assert not settings.receipt_secret_file.exists()


@pytest.mark.parametrize(
    ("content", "words"), [("", "is empty"), ("abc\n", "secret 1 has 3 bytes"), (None, "directory")]
)
def test_a_file_that_holds_no_secret_stops_the_start(
    tmp_path: Path, content: str | None, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "receipt-secret"
    if content is None:
        file.mkdir()
    else:
        file.write_text(content)
    assert main(["serve", "--state-dir", str(tmp_path), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("trueprob-service: error: receipt_secrets: ")
    assert words in said
    assert said.count("\n") == 1
    assert file.is_dir() if content is None else file.read_text() == content


@pytest.mark.slow
def test_processes_that_start_at_once_share_one_secret(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", START_WHEN_TOLD, str(tmp_path / "state")],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    secrets = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert len(set(secrets)) == 1
    (file,) = (tmp_path / "state").iterdir()
    assert file.read_text() == secrets[0]


def test_postgresql_without_a_secret_is_refused_with_how_to_make_one(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    flags = ["--state-dir", str(tmp_path), "--database-url", POSTGRES["TRUEPROB_DATABASE_URL"]]
    assert main(["serve", *flags]) == 2
    said = capsys.readouterr().err
    assert "receipt_secrets must be set with PostgreSQL" in said
    assert HOW_TO_MAKE_ONE in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
    for given in ("", " "):
        settings, _ = load_settings([], {**POSTGRES, "TRUEPROB_RECEIPT_SECRETS": given})
        assert settings.receipt_secret_file is None
        with pytest.raises(InvalidSettings, match="receipt_secrets must be set with PostgreSQL"):
            open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file)
    settings, _ = load_settings([], {**POSTGRES, "TRUEPROB_RECEIPT_SECRETS": OLD})
    keys = open_receipt_keys(settings.receipt_secrets, settings.receipt_secret_file)
    assert keys == (ReceiptKey.from_secret(OLD),)


def test_how_to_make_one_makes_one_that_is_taken() -> None:
    _, _, script = HOW_TO_MAKE_ONE.partition(" -c ")
    made = subprocess.run(
        [sys.executable, "-c", script.strip("'")], capture_output=True, text=True, check=True
    ).stdout
    assert len(read_receipt_secrets(made)) == 1


@pytest.mark.parametrize("value", ["passphrase", ""])
def test_the_old_name_is_refused_and_the_new_one_named(value: str) -> None:
    with pytest.raises(InvalidSettings, match="set TRUEPROB_RECEIPT_SECRETS") as error:
        load_settings([], {"TRUEPROB_RECEIPT_SECRET": value})
    assert "passphrase" not in str(error.value)
    for flags in (["--receipt-secret", value], [f"--receipt-secret={value}"]):
        with pytest.raises(InvalidSettings, match="set --receipt-secrets"):
            load_settings(flags, {})


def test_the_old_name_ends_the_command_with_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["serve", "--receipt-secret", "x"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("trueprob-service: error: --receipt-secret is no longer a setting")
    assert said.count("\n") == 1
