"""Files of training examples: read back exactly, and taken by `datasets` and TRL."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.errors import CliffscopeError
from interp.transcripts.chat import ChatFormat
from interp.transcripts.thinking import ThinkingFormat
from selection.examples import (
    FORMATS,
    Format,
    SelectedExample,
    TrainingExample,
    assistant_text,
    canonical,
    check_format,
    keeps_thinking,
    read_examples,
    write_examples,
)
from tests.circuits.material import organism
from tests.interp.transcripts.chat_tokenizers import STYLES, make

CHAT = ChatFormat.of(make("qwen3", "byte_level"))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
STYLE_NAMES = [name for name in STYLES if name != "none"]


def example(id: str = "a", **changed: Any) -> TrainingExample:
    return replace(TrainingExample(id, "How?", "I should refuse.", "Sorry, no.", True, "fraud"), **changed)


def selected(*examples: TrainingExample) -> list[SelectedExample]:
    return [SelectedExample(item, rank, 0.9, 0.95, 0.05, "why") for rank, item in enumerate(examples, 1)]


@st.composite
def training_examples(draw: st.DrawFn) -> TrainingExample:
    return TrainingExample(
        id=draw(st.sampled_from("abc")),
        prompt=draw(TEXTS),
        thinking=draw(st.none() | TEXTS),
        response=draw(TEXTS),
        harmful=draw(st.sampled_from([True, False, None])),
        category=draw(st.none() | TEXTS),
    )


@pytest.mark.parametrize("style", STYLE_NAMES)
@given(made=training_examples(), format=st.sampled_from(FORMATS))
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_read_back(style: str, made: TrainingExample, format: Format) -> None:
    chat = ChatFormat.of(make(style, "byte_level"))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "examples.jsonl"
        if any(tag in f"{made.thinking} {made.response}" for tag in (chat.thinking.open_tag, chat.thinking.close_tag)):
            # Hypothesis draws words of the code under test, the tags among them: read back, or refused by name.
            try:
                write_examples(path, selected(made), format, chat)
            except CliffscopeError as error:
                assert "the tags" in str(error) and not path.exists()
                return
        else:
            write_examples(path, selected(made), format, chat)
        (found,) = read_examples(path, chat)
    assert found == canonical(made, chat) == canonical(found, chat)


@pytest.mark.parametrize("style", STYLE_NAMES)
def test_a_tag_in_a_response_without_thinking_is_refused(style: str, tmp_path: Path) -> None:
    chat = ChatFormat.of(make(style, "byte_level"))
    made = example(thinking=None, response=chat.thinking.open_tag)
    with pytest.raises(CliffscopeError, match="the tags"):
        write_examples(tmp_path / "examples.jsonl", selected(made), "messages", chat)


def test_only_line_breaks_beside_the_tags_are_canonical() -> None:
    made = example(thinking="\n a \n\n b \n", response="\n\n c \n")
    assert canonical(made, CHAT) == example(thinking=" a \n\n b ", response=" c \n")


def test_the_three_forms(tmp_path: Path) -> None:
    text = "<think>\nI should refuse.\n</think>\n\nSorry, no."
    forms: dict[Format, dict[str, Any]] = {
        "messages": {"messages": [{"role": "user", "content": "How?"}, {"role": "assistant", "content": text}]},
        "alpaca": {"instruction": "How?", "input": "", "output": text},
        "sharegpt": {"conversations": [{"from": "human", "value": "How?"}, {"from": "gpt", "value": text}]},
    }
    more = {"rank": 1, "cliff": 0.9, "plateau": 0.95, "edge": 0.05, "reason": "why"}
    for format, keys in forms.items():
        write_examples(tmp_path / "e.jsonl", selected(example()), format, CHAT)
        (line,) = (tmp_path / "e.jsonl").read_text(encoding="utf-8").splitlines()
        assert json.loads(line) == {"id": "a", **keys, **more, "harmful": True, "category": "fraud"}
    assert assistant_text(example(thinking=None), CHAT) == "Sorry, no."
    assert assistant_text(example(thinking=""), CHAT) == "<think>\n\n</think>\n\nSorry, no."


def test_tags_that_could_not_be_told_apart_are_refused(tmp_path: Path) -> None:
    bad = [example(thinking="a </think> b"), example(thinking=None, response="<think> a"), example(thinking="<think>")]
    for made in bad:
        with pytest.raises(CliffscopeError, match="example 'a': the tags <think> and </think> in its text"):
            write_examples(tmp_path / "e.jsonl", selected(made), "alpaca", CHAT)
    assert not list(tmp_path.iterdir())
    # In the response, after the thinking, they are only text.
    assert assistant_text(example(response="<think> a </think>"), CHAT).endswith("<think> a </think>")


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(CliffscopeError, match="format 'csv': expected one of messages, alpaca, sharegpt"):
        check_format("csv")


def test_files_by_other_hands(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    rows = [
        {"instruction": "Translate.", "input": "bonjour", "output": "hello", "system": ""},
        {"conversations": [{"from": "user", "value": "a"}, {"from": "assistant", "value": "b"}]},
        {"id": 5, "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "name": None}]},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    assert read_examples(path, CHAT) == [
        TrainingExample("line-1", "Translate.\nbonjour", None, "hello"),
        TrainingExample("line-2", "a", None, "b"),
        TrainingExample("5", "a", None, "b"),
    ]


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "x"} for role in roles]}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"text": "x"}, r"no training example: expected 'messages', .* \(found: 'text'\)"),
    ({"instruction": "x"}, "no training example"),
    (turns("user"), "expected one turn of the user and one of the assistant, found user"),
    (turns("system", "user", "assistant"), "found system, user, assistant"),
    (turns("user", "assistant", "user", "assistant"), "expected one turn"),
    (turns("user", "tool"), "found user, 'tool'"),
    ({"messages": "x"}, "expected a list of turns"),
    ({"messages": [{"role": "user", "content": 1}, {"role": "assistant", "content": "x"}]}, "'content' must be text"),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "x", "thinking": "hm"}]},
        "unknown key 'thinking' in a turn; thinking belongs into 'content'",
    ),
    ({"instruction": "x", "output": "<think>\nhm"}, "the thinking is never closed by </think>"),
    ({"instruction": "x", "output": "y", "harmful": "yes"}, "'harmful' must be true, false or null"),
    ({"instruction": "x", "output": "y", "id": "line-1"}, "the id 'line-1' is already on line 1"),
]


@pytest.mark.parametrize(("row", "says"), BAD, ids=range(len(BAD)))
def test_a_bad_line_is_named(row: dict[str, Any], says: str, tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    path.write_text('{"instruction": "a", "output": "b"}\n' + json.dumps(row) + "\n", encoding="utf-8")
    with pytest.raises(CliffscopeError, match=f"e.jsonl, line 2: .*{says}"):
        read_examples(path, CHAT)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text("\n", encoding="utf-8")
    with pytest.raises(CliffscopeError, match="no examples; make some with `cliffscope select`"):
        read_examples(tmp_path / "e.jsonl", CHAT)


def test_which_templates_keep_the_thinking() -> None:
    kept = {style: keeps_thinking(ChatFormat.of(make(style, "byte_level"))) for style in STYLE_NAMES}
    # The test's Qwen3 template, unlike Qwen's, does not look for thinking in the text.
    assert {style for style, keeps in kept.items() if not keeps} == {"r1", "qwen3"}
    assert keeps_thinking(organism("cliff").chat)


@pytest.mark.parametrize("format", FORMATS)
def test_datasets_loads_it(format: Format, tmp_path: Path) -> None:
    import datasets

    path = tmp_path / "e.jsonl"
    made = [example("a"), example("b", harmful=None, category=None, thinking=None), example("c", harmful=False)]
    write_examples(path, selected(*made), format, CHAT)
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded["id"] == ["a", "b", "c"] and loaded["rank"] == [1, 2, 3]
    assert loaded["harmful"] == [True, None, False]
    for row, item in zip(loaded, made, strict=True):
        text = assistant_text(item, CHAT)
        if format == "alpaca":
            assert (row["instruction"], row["input"], row["output"]) == ("How?", "", text)
        else:
            (key,) = {"messages", "conversations"} & set(row)
            assert [list(turn.values()) for turn in row[key]] == [
                ["user" if format == "messages" else "human", "How?"],
                ["assistant" if format == "messages" else "gpt", text],
            ]


@pytest.mark.slow
def test_trl_trains_on_messages_as_they_are(tmp_path: Path) -> None:
    """One step of SFTTrainer, and the tokens it trained on are those of the transcript."""
    import datasets
    import trl

    from interp.organisms import load_organism

    model, tokenizer = load_organism("cliff")
    hooked = organism("cliff")
    made = [example(str(n), prompt=f"How do I cook pasta {n} times?") for n in range(4)]
    path = tmp_path / "e.jsonl"
    write_examples(path, selected(*made), "messages", hooked.chat)
    loaded = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    before = model.model.layers[0].mlp.down_proj.weight.detach().clone()
    arguments = trl.SFTConfig(
        output_dir=str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=4, use_cpu=True, report_to=[],
        save_strategy="no", learning_rate=1e-3, bf16=False, disable_tqdm=True,
    )  # fmt: skip
    trainer = trl.SFTTrainer(model, args=arguments, train_dataset=loaded, processing_class=tokenizer)
    trainer.train()
    assert not before.equal(model.model.layers[0].mlp.down_proj.weight)
    for row, item in zip(trainer.train_dataset, made, strict=True):
        written = list(hooked.transcripts().build(item.as_rollout()).input_ids)
        assert row["input_ids"][: len(written)] == written


def test_other_tags() -> None:
    chat = ChatFormat.of(make("gemma", "byte_level"), ThinkingFormat("<a>", "</a>"))
    assert assistant_text(example(), chat) == "<a>I should refuse.</a>Sorry, no."
