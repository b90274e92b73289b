"""Objects in a notebook and on a terminal: what a bundle holds, and that names cannot do anything in it."""

import base64
import io
import json
import re
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import rich.console

import interp.display
from interp.display.palette import COLORS, INK
from interp.display.shown import PLOTLY, Drawn, Words, in_html, in_lines
from interp.errors import CliffscopeError
from tests.interp.display.material import DRAWN, HOSTILE, NAMED, cliff, sweep, trajectory
from tests.interp.display.test_strip import Seen

PLANTED = {
    "Trajectory": INK,
    "Cliff": COLORS["complied"],
    "ProbeSweep": COLORS["refused"],
    "HeadScores": COLORS["complied"],
    "HeadMask": COLORS["complied"],
    "Selection": COLORS["complied"],
    "Evaluation": COLORS["benign"],
    "AblationCurve": COLORS["refused"],
    "DoseResponse": COLORS["complied"],
    "Comparison": INK,
}
"""A colour that the picture of each must have."""
TAGS = {"div", "p", "b", "i", "img", "table", "tbody", "tr", "th", "td", "small", "br", "bdi", "sub", "wbr"}


@pytest.fixture(scope="module")
def bundles() -> dict[str, dict[str, object]]:
    return {name: make()._repr_mimebundle_() for name, make in DRAWN.items()}


def pictures(html: str) -> list[dict[str, str | None]]:
    return [attributes for tag, attributes in Seen(html).tags if tag == "img"]


@pytest.mark.parametrize("name", DRAWN)
def test_a_bundle_has_words_and_a_static_picture(name: str, bundles: dict[str, dict[str, str]]) -> None:
    bundle = bundles[name]
    assert set(bundle) == {"text/plain", "text/html"}
    assert len(json.dumps(bundle)) < 150_000
    seen = Seen(bundle["text/html"])
    assert {tag for tag, _ in seen.tags} <= TAGS and "\n" not in seen.text.strip("\n")
    (image,) = pictures(bundle["text/html"])
    assert image["alt"] and len(image["alt"]) > 20 and image["width"] == "860"
    source = image["src"] or ""
    assert source.startswith("data:image/png;base64,")
    picture = matplotlib.image.imread(io.BytesIO(base64.b64decode(source.split(",")[1])))
    picture = np.ascontiguousarray((picture * 255).round().astype(np.uint8))
    assert len(np.unique(picture.view(np.uint32))) > 30 and (picture[..., 3] == 0).mean() > 0.2
    wanted = [int(PLANTED[name][i : i + 2], 16) for i in (1, 3, 5)]
    assert ((np.abs(picture[..., :3].astype(int) - wanted).max(-1) <= 4) & (picture[..., 3] > 250)).sum() > 40


@pytest.mark.parametrize("name", DRAWN)
def test_a_terminal_gets_a_few_lines(name: str, bundles: dict[str, dict[str, str]]) -> None:
    made = DRAWN[name]()
    lines = bundles[name]["text/plain"].split("\n")
    assert 2 <= len(lines) <= 24 and all(len(line) <= 100 for line in lines)
    assert str(made) == bundles[name]["text/plain"]
    assert repr(made).startswith("<") and "\n" not in repr(made) and len(repr(made)) < 200
    for dumped in ("array(", "tensor(", "DataFrame", "Columns:"):
        assert dumped not in repr(made) + str(made)
    console = rich.console.Console(file=io.StringIO(), width=120)
    console.print(made)
    assert lines[0] in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_notebook_that_is_run_anew_does_not_change(bundles: dict[str, dict[str, str]]) -> None:
    assert {name: DRAWN[name]()._repr_mimebundle_() for name in ("Cliff", "HeadMask")} == {
        name: bundles[name] for name in ("Cliff", "HeadMask")
    }


@pytest.mark.parametrize("name", NAMED)
def test_a_hostile_name_does_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Its texts are pixels, and take the longest to make.
    monkeypatch.setattr("interp.display.static.png", lambda figure: b"")
    plain, hostile = DRAWN[name]("plain")._repr_mimebundle_(), DRAWN[name](HOSTILE)._repr_mimebundle_()
    seen = Seen(hostile["text/html"])
    assert "\u202e" not in hostile["text/html"] + hostile["text/plain"] + repr(DRAWN[name](HOSTILE))
    assert [tag for tag, _ in seen.tags] == [tag for tag, _ in Seen(plain["text/html"]).tags]
    assert "<script>alert(1)</script>" in seen.text
    # Plotly reads markup in titles and labels of ticks.
    figure = DRAWN[name](HOSTILE).figure().to_json()
    assert "<script" not in figure and "\\u003cscript" not in figure and "<b>" not in figure.replace("<b>1.2</b>", "")


def test_a_transcript_shows_its_segments_and_tokens() -> None:
    made = trajectory("a").transcript
    bundle = made._repr_mimebundle_()
    assert repr(made) == "<Transcript a: 29 tokens, prompt 2, thinking closed>"
    assert bundle["text/plain"].count("\n") == 6 and "thinking" in bundle["text/plain"]
    # `print` shows every token, as it always did.
    assert str(made) == made.show() and str(made).count("\n") == 29
    assert "← edge" in Seen(bundle["text/html"]).text and not pictures(bundle["text/html"])
    hostile = trajectory(HOSTILE).transcript._repr_mimebundle_()["text/html"]
    assert "<script" not in hostile and "\u202e" not in hostile


def test_a_trajectory_shows_its_tokens_by_score() -> None:
    made = trajectory("a")
    assert str(made).split("\n")[1].strip() == f"thinking {'█' * 20} close ███▁"
    assert "plateau 0.98, edge 0.05, cliff 0.93" in repr(made)
    assert Seen(made.html()).text.count("← edge") == 1 and COLORS["refused"].lower() not in made.html()[:50]


def test_without_thinking_there_is_still_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interp.display.static.png", lambda figure: b"")
    from probes.trajectory import Trajectory
    from tests.probes.transcripts import transcript

    for made in (transcript("a", 0, n_close=0), transcript("b", 5, n_close=0), transcript("c", 0)):
        bundle = Trajectory(made, np.zeros(len(made), np.float32))._repr_mimebundle_()
        assert "without thinking that closes" in bundle["text/plain"] and "<img" in bundle["text/html"]


def test_only_a_live_setting_adds_the_interactive_figure() -> None:
    made = trajectory()
    static = made._repr_mimebundle_()
    try:
        interp.display.live()
        bundle = made._repr_mimebundle_()
    finally:
        interp.display.live(False)
    # GitHub, which knows no Plotly, still finds the HTML.
    assert set(bundle) == {"text/plain", "text/html", PLOTLY} and bundle["text/html"] == static["text/html"]
    assert [trace["type"] for trace in bundle[PLOTLY]["data"]] == [t.type for t in made.figure().data]
    assert made._repr_mimebundle_() == static


def test_a_terminal_draws_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    formatter = SimpleNamespace(active_types=["text/plain"])
    shell = SimpleNamespace(get_ipython=lambda: SimpleNamespace(display_formatter=formatter))
    monkeypatch.setitem(sys.modules, "IPython", shell)
    monkeypatch.setattr(Drawn, "html", lambda self: pytest.fail("drawn for nobody"))
    assert set(cliff()._repr_mimebundle_()) == {"text/plain"}


def test_what_cannot_be_drawn_says_why() -> None:
    class Nothing(Drawn):
        def words(self) -> Words:
            return Words("Nothing", "")

        def figure(self) -> object:  # type: ignore[override]
            raise CliffscopeError("there is <nothing> to draw.")

    html = Nothing()._repr_mimebundle_()["text/html"]
    assert "No picture: there is &lt;nothing&gt; to draw." in html and "<img" not in html
    interp.display.live()
    try:
        assert PLOTLY not in Nothing()._repr_mimebundle_()
    finally:
        interp.display.live(False)
    empty = sweep()
    assert "No picture" in type(empty)(empty.table.iloc[:0], {}).html()


def test_words_keep_their_form() -> None:
    words = Words("T", "h", ["one " * 40], [["name", "x", "y"], ["<a>", 0.5, None]])
    text = in_lines(words, width=40)
    assert text.startswith("T: h\n  one one") and max(map(len, text.split("\n"))) <= 40
    assert text.endswith("  name      x  y\n  <a>   0.500  –")
    html = in_html(words, "<i>inside</i>")
    assert (
        "&lt;a&gt;" in html and html.index("<i>inside") < html.index("<table") and re.search(r"<b>T</b>: h</p>", html)
    )


def test_what_has_no_picture_shows_its_words() -> None:
    import torch

    from interp.rollouts.prompts import Prompt, PromptSet
    from interventions.directions import Direction
    from probes.linear import LinearProbe

    site = {"site": "blocks.1.hook_resid_post", "position": "close:-1", "model": HOSTILE}
    facts = {"auroc": 0.9, "auroc_low": 0.8, "auroc_high": 1.0, "auroc_shuffled": 0.5}
    made = {
        "prompts": PromptSet(tuple(Prompt(f"p{n}", f"{HOSTILE} {n}", harmful=n < 5) for n in range(9)), "a.csv"),
        "probe": LinearProbe(torch.ones(8), 0.5, layer=1, training=facts, **site),
        "direction": Direction.of(torch.ones(8), kind="refusal", method="given", **site),
        "curve": cliff().curves["complied"],
    }
    for one in made.values():
        bundle = one._repr_mimebundle_()
        assert (
            set(bundle) == {"text/plain", "text/html"}
            and "tensor(" not in repr(one) + str(one)
            and "array" not in str(one)
        )
        assert "\n" not in repr(one) and "<script" not in bundle["text/html"] and "\u202e" not in bundle["text/html"]
    assert str(made["prompts"]).startswith("Prompts of a.csv: 5 harmful, 4 benign\n") and "… 3 more" in str(
        made["prompts"]
    )
    assert "auroc shuffled  0.500" in str(made["probe"]) and "[0.800, 1.000]" in str(made["probe"])
    assert "refusal by given" in repr(made["direction"]) and "9 rollouts" in repr(made["curve"])


def test_a_large_model_is_shown_in_as_little() -> None:
    import torch

    from interventions.masks import HeadMask

    scale = torch.ones(80, 64)
    scale[torch.rand(80, 64, generator=torch.Generator().manual_seed(0)) < 0.03] = 0.0
    bundle = HeadMask(scale, model="large")._repr_mimebundle_()
    assert len(json.dumps(bundle)) < 150_000 and bundle["text/plain"].count("\n") < 20


def test_a_notebook_asks_for_the_bundle() -> None:
    formatters = pytest.importorskip("IPython.core.formatters")
    data, _ = formatters.DisplayFormatter().format(trajectory().transcript)
    assert set(data) == {"text/plain", "text/html"} and "<bdi" in data["text/html"]
