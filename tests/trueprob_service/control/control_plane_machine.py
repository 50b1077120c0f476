"""A control plane beside a simple model of it, as a Hypothesis state machine.

The model knows: the pair of each revision and the stack of promotions that are not undone; which
sets there are; which predictions were labelled, and of which pair they were; which rows came; and
what all of these were before the model was deleted.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis.strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
)

from tests.trueprob_service.control.harness import (
    NPZ,
    WAIT,
    Clock,
    World,
    npz,
    rows,
    settings_in,
    start,
)
from tests.trueprob_service.control.model_folders import add_version

MODEL = "blocks"
PATH = f"/v1/models/{MODEL}"
Pair = tuple[int, str]


class Fit(NamedTuple):
    """What a fit is recognised by when it is asked for again."""

    id: str
    judged_revision: int
    pair: Pair


class ControlPlaneMachine(RuleBasedStateMachine):
    """Upload, fit, promote, roll back, label, rows, new version, delete, new secret, restart."""

    database: Callable[[Path], str]
    predictions = Bundle("predictions")
    sets = Bundle("sets")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self._root = Path(self._folder.name)
        self._settings = settings_in(
            self._root, database_url=type(self).database(self._root), receipt_secrets="0" * 32
        )
        self._clock = Clock()
        self._pairs: list[Pair] = []  # of revisions since the model was deleted last
        self._undoable: list[list[int]] = []  # of each revision: promotions that are not undone
        self._calibrators: list[Pair] = []
        self._fits: dict[tuple[int, str, bool], Fit] = {}  # the last one of each kind
        self._parameters: dict[tuple[int, str], str] = {}  # by version and set, whatever for
        self._factory: list[Pair] = []  # by version
        self._stored: set[str] = set()
        self._issued: dict[str, Pair] = {}
        self._labelled: set[str] = set()
        self._rows: set[str] = set()  # ids, since the model was deleted last
        self._gone: set[str] = set()  # predictions of deleted models
        self._before = 0  # revisions of deleted models
        self._versions = 0
        self._deletions = 0
        self._world: World | None = None

    @property
    def world(self) -> World:
        assert self._world is not None
        return self._world

    @property
    def revision(self) -> int:
        return self._before + len(self._pairs)

    def teardown(self) -> None:
        if self._world is not None:
            self._world.plane.close()
        self._folder.cleanup()

    @initialize(target=predictions)
    def begin(self) -> Any:
        self._new_version()
        self._world = start(self._settings, self._clock)
        self._went_live(self._calibrators[0])
        return self._predicted(4)

    def _new_version(self) -> None:
        self._versions += 1
        root, temperature = self._root / "models", 1.0 + self._versions
        factory = add_version(root, version=self._versions, temperature=temperature)
        self._factory.append((self._versions, factory))
        self._calibrators.append(self._factory[-1])

    def _went_live(self, pair: Pair) -> None:
        before = self._undoable[-1] if self._undoable else []
        self._pairs.append(pair)
        self._undoable.append([*before, self.revision])

    def _restored(self, revision: int) -> None:
        self._pairs.append(self._pairs[revision - self._before - 1])
        self._undoable.append(self._undoable[revision - self._before - 1])

    @rule(target=sets, seed=st.integers(0, 5), always=st.booleans())
    def upload(self, seed: int, always: bool) -> str:
        logits, labels = rows(seed, 60, sharpness=1.0 + seed)
        answer = self.world.call(
            "POST",
            f"{PATH}/calibration-sets?method=temperature&promote={'always' if always else 'never'}",
            content=npz(logits=logits, labels=labels),
            headers={**NPZ, **WAIT},
        )
        return self._fitted(answer.json(), always)

    @rule(digest=sets, always=st.booleans())
    def fit_again(self, digest: str, always: bool) -> None:
        body = {"calibration_set": digest, "method": "temperature"}
        body["promote"] = "always" if always else "never"
        answer = self.world.call("POST", f"{PATH}/fits", json=body, headers=WAIT)
        assert (answer.status_code == 404) == (digest not in self._stored)
        if answer.status_code != 404:
            self._fitted(answer.json(), always)

    def _fitted(self, report: Any, always: bool) -> str:
        assert (report["state"], report["promoted"]) == ("done", always), report
        pair = (self._pairs[-1][0], report["calibrator"])
        assert report["version"] == pair[0]
        digest = report["calibration_set"]
        assert isinstance(digest, str)
        self._stored.add(digest)
        assert self._parameters.setdefault((pair[0], digest), pair[1]) == pair[1]
        if pair not in self._calibrators:
            self._calibrators.append(pair)
        last = self._fits.get((pair[0], digest, always))
        stands = last is not None and (
            last.judged_revision == self.revision or last.pair == self._pairs[-1]
        )
        assert stands == (last is not None and report["fit"] == last.id)
        if stands:
            return digest
        self._fits[pair[0], digest, always] = Fit(report["fit"], self.revision, pair)
        if always:
            self._went_live(pair)
            assert report["revision"] == self.revision
        return digest

    @rule(digest=sets)
    def delete(self, digest: str) -> None:
        answer = self.world.call("DELETE", f"{PATH}/calibration-sets/{digest}")
        assert answer.status_code == (204 if digest in self._stored else 404)
        self._stored.discard(digest)

    @rule(data=st.data(), behind=st.integers(0, 2))
    def promote(self, data: st.DataObject, behind: int) -> None:
        pair = data.draw(st.sampled_from(self._calibrators))
        query = f"?force=true&version={pair[0]}"
        seen = max(self.revision - behind, 0)
        answer = self.world.call(
            "POST",
            f"{PATH}/calibrators/{pair[1]}/promote{query}",
            headers={"if-match": f'"{seen}"'},
        )
        assert answer.status_code == (412 if behind else 200), answer.text
        if not behind:
            self._went_live(pair)

    @rule()
    def undo(self) -> None:
        answer = self.world.call(
            "POST", f"{PATH}/rollback", headers={"if-match": f'"{self.revision}"'}
        )
        undone = self._undoable[-1]
        assert answer.status_code == (200 if len(undone) > 1 else 409), answer.text
        if len(undone) > 1:
            self._restored(undone[-1] - 1)

    @rule(data=st.data())
    def go_back(self, data: st.DataObject) -> None:
        target = data.draw(st.integers(max(self._before, 1), self.revision + 1))
        answer = self.world.call(
            "POST",
            f"{PATH}/rollback",
            headers={"if-match": f'"{self.revision}"'},
            json={"revision": target},
        )
        there = self._before < target <= self.revision
        assert answer.status_code == (200 if there else 404), answer.text
        if there:
            self._restored(target)

    @rule(target=predictions, n=st.integers(1, 4))
    def predict(self, n: int) -> Any:
        return self._predicted(n)

    def _predicted(self, n: int) -> Any:
        *_, ids = self.world.predict(rows(n, n)[0], MODEL)
        self._issued |= dict.fromkeys(ids, self._pairs[-1])
        return multiple(*ids)

    @rule(ids=st.lists(predictions, min_size=1, max_size=6))
    def label(self, ids: list[str]) -> None:
        answer = self.world.label(ids, [0] * len(ids), MODEL).json()
        ours = [each for each in ids if each not in self._gone]
        fresh = set(ours) - self._labelled
        assert (answer["accepted"], answer["rejected"]) == (len(fresh), len(ids) - len(ours))
        assert answer["duplicate"] == len(ours) - len(fresh)
        told = [each["outcome"] for each in answer["outcomes"]]
        assert told.count("superseded") == len(ids) - len(ours)
        self._labelled |= fresh

    @rule(ids=st.lists(st.integers(0, 9).map(str), min_size=1, max_size=4))
    def label_rows(self, ids: list[str]) -> None:
        body = {"rows": [{"id": each, "logits": [1, 2, int(each)], "label": 1} for each in ids]}
        answer = self.world.call("POST", f"{PATH}/labels?version=1", json=body).json()
        assert answer["accepted"] == len(set(ids) - self._rows)
        self._rows |= set(ids)

    @rule()
    def put_a_new_secret_in_front(self) -> None:
        older = self._settings.receipt_secrets
        newer = f"{older.count(',') + 1:032},{older}"
        self._settings = self._settings.model_copy(update={"receipt_secrets": newer})
        self.restart()

    @precondition(lambda self: self._deletions < 2)
    @rule(behind=st.sampled_from([0, 0, 1]), folder=st.sampled_from([False, False, True]))
    def delete_model(self, behind: int, folder: bool) -> None:
        root = self._root / "models"
        if not folder:
            root.rename(self._root / "aside")
        seen = {"if-match": f'"{self.revision - behind}"'}
        answer = self.world.call("DELETE", PATH, headers=seen)
        expected = 412 if behind else 409 if folder else 204
        assert answer.status_code == expected, answer.text
        if not folder:
            (self._root / "aside").rename(root)
        if expected == 204:
            self._forget()
            self.restart()  # which finds the folder again

    def _forget(self) -> None:
        assert MODEL not in self.world.deployments.names()
        self._deletions += 1
        self._before, self._gone = self.revision, set(self._issued)
        self._pairs, self._undoable, self._stored = [], [], set()
        self._labelled, self._rows = set(), set()
        self._fits, self._parameters = {}, {}
        self._calibrators = self._factory[:]
        self._went_live(self._factory[-1])

    @precondition(lambda self: self._versions < 3)
    @rule()
    def new_version_on_disk(self) -> None:
        self._new_version()
        self.restart()

    @rule()
    def restart(self) -> None:
        self.world.plane.close()
        self._world = start(self._settings, self._clock)

    @invariant()
    def everything_stored_is_as_the_model_says(self) -> None:
        if self._world is None:
            return
        live = self.world.deployments.current(MODEL)
        assert (live.served.version, live.calibrator_id) == self._pairs[-1]
        assert live.revision == self.revision
        # Read below HTTP: an invariant is asked for after every step.
        with self.world.plane.services.store.read() as transaction:
            history = transaction.promotions.page(MODEL, before=None, limit=500)
            stored = transaction.calibration_sets.page(MODEL, before=None, limit=500)
            totals = transaction.bins.running()
            window = transaction.labelled_rows.counts()
        assert [(row.version, row.calibrator) for row in reversed(history)] == self._pairs
        assert {row.digest for row in stored} == self._stored
        assert window == ({(MODEL, 1): (len(self._rows),) * 2} if self._rows else {})
        counted = {(v, c): int(sums.labels.n) for (_, v, c), sums in totals.items()}
        assert counted == Counter(self._issued[each] for each in self._labelled)
