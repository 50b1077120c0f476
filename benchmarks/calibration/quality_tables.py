"""The tables of the quality part."""

from __future__ import annotations

import numpy as np

from benchmarks.calibration.paired import Difference, by_family, holm, worse_than
from benchmarks.calibration.peers import Method
from benchmarks.calibration.quality import BASELINE, REFERENCE, Results
from benchmarks.calibration.report import nats, percent, table
from benchmarks.calibration.scoring import HIGHER_IS_BETTER

COMPARED = ("nll", "top_ce", "ece", "adaptive_ece", "brier", "auroc")
TITLES = {
    "nll": "NLL",
    "top_ce": "top-label CE",
    "ece": "ECE %",
    "adaptive_ece": "adaptive ECE %",
    "brier": "Brier",
    "auroc": "AUROC",
}
MEANS_NOTE = (
    "NLL and Brier leave out sets whose tail was rebuilt. Medians in brackets. `keeps` says "
    "whether predictions stay (with three and more classes)."
)
PAIRED_NOTE = (
    "Mean over sets ± standard error, and the 95 % interval, of a bootstrap by data set family. "
    f"**Ahead**: the whole interval is on the side where the method beats `{REFERENCE}`; "
    "behind: on the other."
)


def quality_report(results: Results, methods: list[Method]) -> str:
    """All tables of the quality part."""
    parts = [
        ("### Means over all sets", means_table(results, methods), MEANS_NOTE),
        (f"### Each method less `{REFERENCE}`", differences_table(results, methods), PAIRED_NOTE),
        (f"### Where `{REFERENCE}` is beaten", lost_table(results, methods)),
        ("### Never worse than uncalibrated", never_worse_table(results)),
        ("### ECE in percent, each set", each_set_table(results, methods, "ece")),
        ("### NLL in nats, each set", each_set_table(results, methods, "nll")),
        ("### Not compared", not_compared(results)),
    ]
    return "\n\n".join(text for part in parts for text in part)


def means_table(results: Results, methods: list[Method]) -> str:
    """One row per method that finished on every set, so that all means are comparable."""
    done = set(results.finished(m.name for m in methods))
    rows = []
    for method in (m for m in methods if m.name in done):
        row = [_label(method), "yes" if method.keeps_prediction else "no"]
        for score in COMPARED:
            values = results.values(method.name, score, results.sets_for(score))
            mean, median = np.nanmean(values), np.nanmedian(values)
            if score.endswith("ece"):
                row.append(f"{percent(mean)} ({percent(median)})")
            else:
                row.append(nats(mean))
        row.append(percent(float(results.values(method.name, "accuracy").mean()), 1))
        row.append(f"{np.median(results.values(method.name, 'seconds')):.3f}")
        rows.append(row)
    floor = results.values(BASELINE, "ece_floor")
    header = ["method", "keeps", *(TITLES[s] for s in COMPARED), "accuracy %", "fit s (median)"]
    text = table(header, rows)
    return text + (
        f"\n\nA perfectly calibrated model with the uncalibrated confidences would show an ECE of "
        f"{percent(float(np.mean(floor)))} % in the mean."
    )


def difference(results: Results, method: str, score: str) -> Difference | None:
    """Difference of a method to `smart` over the sets where both finished."""
    names = results.sets_for(score)
    values = results.values(method, score, names) - results.values(REFERENCE, score, names)
    kept = ~np.isnan(values)
    if not kept.any():
        return None
    families = [results.families[s] for s, keep in zip(names, kept, strict=True) if keep]
    return by_family(values[kept], families)


def differences_table(results: Results, methods: list[Method]) -> str:
    rows = []
    for method in methods:
        if method.name == REFERENCE or method.name in results.missing:
            continue
        row = [_label(method)]
        for score in COMPARED:
            found = difference(results, method.name, score)
            row.append("–" if found is None else _interval(found, score))
        rows.append(row)
    return table(["method", *(TITLES[s] for s in COMPARED)], rows)


def _interval(found: Difference, score: str) -> str:
    scale, digits = (100.0, 2) if score.endswith("ece") else (1.0, 4)
    text = f"{scale * found.mean:+.{digits}f} ± {scale * found.standard_error:.{digits}f} "
    text += f"[{scale * found.low:+.{digits}f}, {scale * found.high:+.{digits}f}]"
    better, worse = found.high < 0.0, found.low > 0.0
    if score in HIGHER_IS_BETTER:
        better, worse = worse, better
    return f"{text} **ahead**" if better else f"{text} behind" if worse else text


def lost_table(results: Results, methods: list[Method]) -> str:
    """For each set the best method that keeps predictions, if it is not `smart`."""
    keeping = [m.name for m in methods if m.keeps_prediction and m.name not in results.missing]
    rows = []
    for name, by_method in results.scores.items():
        row, lost = [name], False
        for score, show in (("ece", percent), ("adaptive_ece", percent), ("nll", nats)):
            present = {m: by_method[m][score] for m in keeping if m in by_method}
            mine = present[REFERENCE]
            best = min(present, key=lambda m: present[m])
            if np.isnan(mine) or best == REFERENCE:
                row.append("")
                continue
            lost = True
            row.append(f"{show(mine)} against {show(present[best])} ({best})")
        if lost:
            rows.append([*row, percent(by_method[REFERENCE]["ece_floor"])])
    header = ["set", "ECE %", "adaptive ECE %", "NLL", "noise floor of ECE %"]
    return table(header, rows) + (
        f"\n\nThe best of {len(keeping)} methods that keep predictions (of three and more "
        "classes), chosen after the fact for each column; an empty cell is a set that `smart` "
        "wins. A difference smaller than the noise floor says little."
    )


def never_worse_table(results: Results) -> str:
    """Holm over all sets and both scores."""
    tests = []
    for name, rows in results.rows.items():
        for score, (value, p) in worse_than(rows[REFERENCE], rows[BASELINE]).items():
            if score == "debiased_ece" or name in results.sets_for("nll"):
                tests.append((name, score, value, p))
    adjusted = holm([p for *_, p in tests])
    worse = [t for t, p in zip(tests, adjusted, strict=True) if p < 0.05]
    above = [
        [name, score, f"{value:+.4f}", f"{p:.3f}", f"{h:.3f}"]
        for (name, score, value, p), h in zip(tests, adjusted, strict=True)
        if value > 0.0
    ]
    sentence = (
        f"{len(tests)} one-sided tests (NLL, and the debiased calibration error) over "
        f"{len(results.rows)} sets; significantly worse after Holm at 5 %: {len(worse)}."
    )
    if not above:
        return sentence + " On none is the difference above zero."
    header = ["set", "score", "smart − uncalibrated", "p", "Holm"]
    return f"{sentence} Differences above zero:\n\n{table(header, above)}"


def each_set_table(results: Results, methods: list[Method], score: str) -> str:
    show = percent if score.endswith("ece") else nats
    names = [m.name for m in methods if m.name not in results.missing]
    rows = []
    for set_name in results.sets_for(score):
        by_method = results.scores[set_name]
        values = {m: by_method[m][score] for m in names if m in by_method}
        best = min(values, key=lambda m: values[m])
        cells = [f"**{show(v)}**" if m == best else show(v) for m, v in values.items()]
        missing = {m: "failed" if m in results.failures[set_name] else "–" for m in names}
        cells = [cells[list(values).index(m)] if m in values else missing[m] for m in names]
        n_val, n_test, k = results.shapes[set_name]
        rows.append([f"{set_name} ({n_val}/{n_test}, k = {k})", *cells])
    return table(["set (val/test rows)", *names], rows)


def not_compared(results: Results) -> str:
    lines = [f"- {name}: not installed." for name in results.missing]
    for set_name, failures in results.failures.items():
        lines += [f"- {m} on {set_name}: {reason[:160]}" for m, reason in failures.items()]
    return "\n".join(lines) if lines else "Every method finished on every set."


def _label(method: Method) -> str:
    return f"`{method.name}`" if method.ours else method.name
