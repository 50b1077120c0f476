import io
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from trueprob import InvalidInput, softmax
from trueprob.diagram import Panel, png, svg

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def panels(overconfident):
    logits, labels = overconfident(600)
    return [
        Panel.of("before", softmax(logits), labels),
        Panel.of("after", softmax(logits / 2.5), labels),
    ]


def texts(document):
    return [element.text for element in document.iter(f"{SVG}text")]


def test_the_numbers_of_a_bin_by_hand():
    # Two rows at 0.9 (one right) and two at 0.6 (both right).
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    panel = Panel.of("x", p, [0, 1, 0, 0])
    low, high = panel.bins
    assert (low.confidence, low.accuracy, low.share) == pytest.approx((0.6, 1.0, 0.5))
    assert (high.lower, high.upper) == pytest.approx((13 / 15, 14 / 15))
    assert high.accuracy == pytest.approx(0.5)
    reach = 1.96 * np.sqrt(2 * 0.9 * 0.1) / 2
    assert high.band_low == pytest.approx(0.9 - reach)
    assert high.band_high == 1.0  # clipped
    assert high.inside
    assert panel.mean_confidence == pytest.approx(0.75)


def test_a_calibrated_model_is_in_the_band_nineteen_times_in_twenty(overconfident):
    inside, outside = 0, 0
    for seed in range(20):
        logits, labels = overconfident(3000, seed=seed, factor=1.0)
        panel = Panel.of("x", softmax(logits), labels)
        filled = [b for b in panel.bins if b.share > 0.01]
        inside += sum(b.inside for b in filled)
        outside += sum(not b.inside for b in filled)
    assert 0.91 < inside / (inside + outside) < 0.985


def test_overconfidence_leaves_the_band(panels):
    before, after = panels
    assert before.n_outside > 5
    assert after.n_outside <= 2


def test_every_bin_is_a_marker_whose_shape_says_where_it_is(panels):
    document = ET.fromstring(svg(panels))
    n_bins = sum(len(panel.bins) for panel in panels)
    n_outside = sum(panel.n_outside for panel in panels)
    # One more of each in the legend.
    assert len(list(document.iter(f"{SVG}polygon"))) == n_outside + 1
    assert len(list(document.iter(f"{SVG}circle"))) == n_bins - n_outside + 1


def test_markers_lie_where_the_numbers_say(panels):
    document = ET.fromstring(svg(panels[1:]))
    drawn = [(float(c.get("cx")), float(c.get("cy"))) for c in document.iter(f"{SVG}circle")]
    b = next(b for b in panels[1].bins if b.inside)
    # The plot is 300 pixels a side; its left edge is at 58, its lower one at 370.
    assert drawn[0] == pytest.approx((58 + 300 * b.confidence, 370 - 300 * b.accuracy), abs=0.01)


def test_the_scores_are_printed(panels):
    written = texts(ET.fromstring(svg(panels, title="Both")))
    assert "Both" in written
    for panel in panels:
        for name, value in panel.score_lines():
            assert name in written
            assert value in written
        assert f"{100 * panel.scores.ece:.2f} %" in " ".join(written)


def test_it_says_what_it_shows_to_those_who_do_not_see_it(panels):
    document = ET.fromstring(svg(panels, title="Both"))
    assert document.get("role") == "img"
    assert document[0].tag == f"{SVG}title"
    assert document[0].text == "Both"
    assert f"{panels[0].n_outside} of {len(panels[0].bins)} bins lie outside" in document[1].text


@pytest.mark.parametrize(
    "hostile", ["<script>alert(1)</script>", "a & \"b\" 'c'", "]]>", "é 猫 🐈"]
)
def test_names_are_text_and_nothing_else(panels, hostile):
    named = Panel(hostile, panels[0].bins, panels[0].scores, 0.5)
    document = ET.fromstring(svg([named], title=hostile))
    assert texts(document).count(hostile) == 2
    assert "script" not in "".join(element.tag for element in document.iter())


def test_characters_that_xml_cannot_hold_are_replaced(panels):
    document = ET.fromstring(svg(panels, title="a\0b\x1b\ud800c\ufffe"))
    assert texts(document)[0] == "a\ufffdb\ufffd\ufffdc\ufffd"
    assert png(panels, title="a\0b\x1b\ud800").startswith(b"\x89PNG")


def test_long_names_are_cut(panels):
    document = ET.fromstring(svg(panels[:1], title="x" * 500))
    assert texts(document)[0] == "x" * 35 + "…"
    assert document[0].text == "x" * 500


def test_the_same_numbers_are_the_same_bytes(panels):
    assert svg(panels) == svg(list(panels))
    assert png(panels) == png(list(panels))


def test_a_png_is_one_with_room_for_each_panel(panels):
    image = pytest.importorskip("PIL.Image")
    both = image.open(io.BytesIO(png(panels, title="costs $5 and $6")))
    one = image.open(io.BytesIO(png(panels[:1])))
    assert both.format == "PNG"
    assert both.width == 2 * one.width
    assert np.asarray(both.convert("L")).std() > 10  # something is drawn


def test_one_row_and_no_panel(panels):
    single = Panel.of("one", np.array([[1.0, 0.0]]), [0])
    assert ET.fromstring(svg([single])) is not None
    assert dict(single.score_lines())["AUROC"] == "undefined"
    for draw in (svg, png):
        with pytest.raises(InvalidInput, match="at least one panel"):
            draw([])


def test_a_given_prediction_and_weights_count():
    p = np.array([[0.5, 0.5], [0.8, 0.2]])
    panel = Panel.of("x", p, [1, 0], prediction=[1, 0], weights=[3.0, 1.0])
    assert panel.scores.accuracy == 1.0
    assert [b.share for b in panel.bins] == [0.75, 0.25]
