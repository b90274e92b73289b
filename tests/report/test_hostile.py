"""Prompts, ids, categories and model names that try to be more than text change nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from interp.rollouts import write_rollouts
from report import page as page_module
from report.page import SCRIPTS, write_report
from report.text import clean, data_block, plotly_text, shown
from tests.report.material import Page, cliff_table, formatted, heads_table, rollout, token_scores, write_run

HOSTILE = (
    "<script>window.pwned = 1</script>",
    "</script><script>window.pwned = 2</script>",
    "<!--<script>",
    "--><img src=x onerror=window.pwned=3>",
    '"><svg onload=window.pwned=4>',
    "' onmouseover='window.pwned=5",
    "{{ 7 * 191 }} {% raw %} ${7 * 191}",
    "]]></textarea></title></style>",
    "\u202eright to left\u2066isolated",
    "nul\x00bell\x07line\u2028paragraph\u2029",
    "<b>bold</b><a href='javascript:window.pwned=6'>link</a>",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which everything that comes from a user or a model is hostile."""
    made = [rollout(n, prompt=text, thinking=f"thinking {text} of it") for n, text in enumerate(HOSTILE)]
    made += [rollout(n) for n in range(len(HOSTILE), 18)]
    made = [
        replace(r, id=f"{r.id} {r.prompt}"[:60], response=f"{r.response} {r.prompt}", category=r.prompt) for r in made
    ]
    folder = write_run(tmp_path_factory.mktemp("hostile"), made)
    for name in ("summary.json", "run.json", "cliff.json"):
        content = json.loads((folder / name).read_text(encoding="utf-8"))
        told = {"model": HOSTILE[1], "evidence": HOSTILE[3], "command": HOSTILE[0], HOSTILE[4]: HOSTILE[5]}
        (folder / name).write_text(json.dumps({**content, **told}), encoding="utf-8")
    formatted("heads", heads_table(), folder / "heads-x.parquet", method=HOSTILE[3], facts={"nothing": HOSTILE[1]})
    (folder / "rollouts-masked.jsonl").rename(folder / "rollouts-<img src=x onerror=1>.jsonl")
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    told = write_report(folder, folder / "report.html")
    assert told["broken"] == []
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def dangers(page: Page) -> list[str]:
    """What only a successful attack puts into the page."""
    found = [f"<{tag}>" for tag, _ in page.elements if tag in ("img", "svg", "iframe", "object", "embed", "b", "base")]
    found += [f"{tag} {name}" for tag, attributes in page.elements for name in attributes if name.startswith("on")]
    found += [str(a["href"]) for _, a in page.elements if not (a.get("href") or "#").startswith("#")]
    found += [str(attributes["src"]) for _, attributes in page.elements if "src" in attributes]
    types = [attributes.get("type", "program") for attributes, _ in page.scripts]
    if types.count("program") != 1 or set(types) - {"program", "application/json", "text/plain"}:
        found.append(f"scripts: {types}")
    return found + page.comments


def test_there_is_no_element_and_no_handler_but_the_pages_own(page: Page) -> None:
    assert dangers(page) == []


def test_the_same_check_fails_without_escaping(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jinja2 import Environment, PackageLoader

    loose = Environment(loader=PackageLoader("report", "templates"), autoescape=False)
    monkeypatch.setattr(page_module, "_template", lambda: loose.get_template("report.html.jinja"))
    write_report(folder, folder / "loose.html")
    assert dangers(Page((folder / "loose.html").read_text(encoding="utf-8")))


def test_the_same_check_fails_where_data_is_plain_json(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "data_block", lambda value: json.dumps(clean(value)))
    write_report(folder, folder / "loose.html")
    assert dangers(Page((folder / "loose.html").read_text(encoding="utf-8")))


def test_the_texts_arrive_as_they_are(page: Page) -> None:
    prompts = {row["prompt"] for row in page.data("explorer")["rollouts"]}
    assert {shown(text) for text in HOSTILE} <= prompts
    assert "1337" not in page.words and "{{ 7 * 191 }}" in json.dumps(page.data("explorer"))
    assert HOSTILE[3] in page.words and HOSTILE[0] in page.words  # evidence and command


def test_what_is_invisible_is_written_out(folder: Path, page: Page) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert not [char for char in "\u202e\u2066\x00\x07\u2028\u2029" if char in text]
    assert "⟦U+202E⟧right to left⟦U+2066⟧isolated" in json.dumps(page.data("explorer"), ensure_ascii=False)
    assert shown("a\ud800b\ufeff") == "a⟦U+D800⟧b⟦U+FEFF⟧" and shown("tab\t line\n é 👩‍👩 ") == "tab\t line\n é 👩‍👩 "


def test_a_lone_surrogate_in_a_file_of_rollouts(tmp_path: Path) -> None:
    made = [rollout(n) for n in range(6)]
    write_rollouts(tmp_path / "rollouts.jsonl", made)
    path = tmp_path / "rollouts.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("Question 3", r"Question \ud800"), encoding="utf-8")
    told = write_report(tmp_path, tmp_path / "report.html")
    assert told["broken"] == [] and told["rollouts"] == 6
    assert "⟦U+D800⟧" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_data_cannot_end_its_element() -> None:
    value = {"</script>": ["<!--", "&lt;", "\u2028", float("nan"), 1.5, None, True]}
    text = data_block(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == {"</script>": ["<!--", "&lt;", "⟦U+2028⟧", None, 1.5, None, True]}


def test_figures_get_no_markup(page: Page) -> None:
    figures = json.dumps(list(page.data("figures").values()))
    assert "<img" not in figures and "<script" not in figures
    assert plotly_text("<a href='x'>$x$</a>\n") == "&lt;a href=&#x27;x&#x27;&gt;&#36;x&#36;&lt;/a&gt;⏎"


def test_the_scripts_set_text_only_as_text() -> None:
    for name in SCRIPTS:
        source = page_module._asset(name)
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert way not in source, (name, way)


def test_ids_that_are_names_of_objects(tmp_path: Path) -> None:
    names = ("__proto__", "constructor", "toString")
    made = [replace(rollout(n), id=name, category="constructor") for n, name in enumerate(names)]
    write_rollouts(tmp_path / "rollouts.jsonl", made)
    token_scores(made).to_parquet(tmp_path / "scores.parquet", index=False)
    cliff_table(made).to_parquet(tmp_path / "cliff.parquet", index=False)
    write_report(tmp_path, tmp_path / "report.html")
    data = Page((tmp_path / "report.html").read_text(encoding="utf-8")).data("explorer")
    assert set(data["index"]["base"]) == set(names)
