"""What is learnt, token by token, on tokenizers and templates of many kinds, against their layout written by hand."""

import copy
from collections.abc import Sequence

import pytest
import torch
from tokenizers import AddedToken

from interp.errors import CliffscopeError
from interp.models.hooked_model import HookedModel
from selection.examples import TrainingExample
from selection.repair.dataset import IGNORED, end_of_turn, tokenize
from selection.repair.options import LossOn
from selection.repair.preflight import Preflight
from tests.interp.transcripts.chat_tokenizers import STYLES
from tests.selection.repair.material import RESPONSE, THINKING, examples, tiny

ENDS = {
    "r1": "<|end|>",
    "qwen3": "<|im_end|>",
    "gemma": "<end_of_turn>",
    "llama3": "<|eot|>",
    "default_system": "<|im_end|>",
    "channels": "<|return|>",
    "merged_system": "</s>",
}
LEARNT = {"response": ["response"], "close": ["close", "response"], "thinking": ["thinking", "close", "response"]}


@pytest.mark.parametrize("kind", ["byte_level", "wide", "llama2"])
@pytest.mark.parametrize("style", ENDS)
@pytest.mark.parametrize("loss_on", ["response", "close", "thinking"])
def test_the_learnt_tokens_spell_the_segments_and_the_end_of_turn(style: str, kind: str, loss_on: LossOn) -> None:
    model = tiny(style, kind)
    prompt = "How do I cook pasta?"
    [made] = tokenize(model, [TrainingExample("a", prompt, THINKING, RESPONSE)], loss_on)
    pieces = [*STYLES[style].pieces(prompt, THINKING, RESPONSE), ("response", ENDS[style])]
    text = "".join(piece for _, piece in pieces).replace(" ", "")
    bos = STYLES[style].bos or ""
    assert decoded(model, made.input_ids).removeprefix(bos) == text.removeprefix(bos)
    # A token that straddles two segments belongs to the one that holds its last character.
    start = next(i for i, label in enumerate(made.labels) if label != IGNORED)
    learnt = "".join(piece for name, piece in pieces if name in LEARNT[loss_on]).replace(" ", "")
    assert decoded(model, made.input_ids[start:]).endswith(learnt)
    if decoded(model, made.input_ids[start : start + 1]):  # not a space alone
        assert not decoded(model, made.input_ids[start + 1 :]).endswith(learnt)
    assert made.labels[start:] == made.input_ids[start:]  # from there on every token, the end of turn with them
    assert made.labels[-1] == model.tokenizer.convert_tokens_to_ids(ENDS[style])
    assert made.learnt.total() == len(made.labels) - start
    assert set(made.learnt) == set(LEARNT[loss_on])


def decoded(model: HookedModel, ids: Sequence[int]) -> str:
    """Without spaces: decoders of SentencePiece's kind put some beside special tokens."""
    text = model.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return str(text).replace(" ", "")


@pytest.mark.parametrize("style", ENDS)
def test_the_end_of_turn_is_what_the_template_writes_after_a_response(style: str) -> None:
    assert end_of_turn(tiny(style)) == ENDS[style]


def with_template(jinja: str, **tokenizer: object) -> HookedModel:
    model = copy.copy(tiny("qwen3"))
    model.hf = copy.deepcopy(model.hf)
    model.tokenizer = copy.deepcopy(model.tokenizer)
    model.tokenizer.chat_template = jinja
    model.__dict__.pop("chat", None)
    for name, value in tokenizer.items():
        setattr(model.tokenizer, name, value)
    return model


TURNS = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content + END }}{% endfor %}"
    "{{ '[assistant]' if add_generation_prompt else '' }}"
)


def test_white_space_before_the_end_is_learnt_with_it() -> None:
    """As Llama 2: the response, a space, and only then the end of the sequence."""
    model = with_template(TURNS.replace("END", "(' ' + eos_token if m.role == 'assistant' else '')"))
    assert end_of_turn(model) == " <|im_end|>"


def test_a_template_that_ends_no_turn_gets_the_eos_token() -> None:
    model = with_template(TURNS.replace("END", "'\\n'"))
    assert end_of_turn(model) == "<|im_end|>"


def test_the_template_goes_before_the_eos_token_where_generation_stops_at_both() -> None:
    """As Gemma and Llama 3: the EOS token ends documents, another one ends turns."""
    model = with_template(TURNS.replace("END", "'<turn>'"))
    model.tokenizer.add_tokens([AddedToken("<turn>", special=True)])
    turn = model.tokenizer.convert_tokens_to_ids("<turn>")
    assert end_of_turn(model) == "<|im_end|>"
    model.hf.generation_config.eos_token_id = [model.tokenizer.eos_token_id, turn]
    assert end_of_turn(model) == "<turn>"


def test_without_any_end_a_model_could_not_learn_to_stop() -> None:
    model = with_template(TURNS.replace("END", "''"), eos_token=None)
    model.hf.generation_config.eos_token_id = None
    with pytest.raises(CliffscopeError, match=r"could not learn to stop; set tokenizer\.eos_token"):
        end_of_turn(model)


def test_a_response_that_ends_its_turn_itself_ends_it_once() -> None:
    model = tiny()
    given = [TrainingExample("a", "Hi", "", RESPONSE), TrainingExample("b", "Hi", "", RESPONSE + "<|im_end|>")]
    once, twice = tokenize(model, given, "response")
    assert once.input_ids == twice.input_ids


@pytest.mark.parametrize("response", ["", " \n", "<|im_end|>"])
def test_an_empty_response_is_refused(response: str) -> None:
    with pytest.raises(CliffscopeError, match="example 'a': its response is empty"):
        tokenize(tiny(), [TrainingExample("a", "Hi", "", response)], "response")


def test_thinking_that_the_template_opens_must_be_there() -> None:
    with pytest.raises(CliffscopeError, match="rollout 'a': it has no thinking, but the chat template"):
        tokenize(tiny("r1"), [TrainingExample("a", "Hi", None, RESPONSE)], "response")


# ---- after the cut ----


def test_what_is_left_after_the_cut_is_counted() -> None:
    model = tiny()
    whole = tokenize(model, examples(4), "thinking")
    cut = tokenize(model, examples(4), "thinking", max_length=len(whole[3].input_ids) - 2)
    assert [len(a.input_ids) - len(b.input_ids) for a, b in zip(whole, cut, strict=True)] == [0, 0, 0, 2]
    assert cut[3].labels == whole[3].labels[:-2]
    table = Preflight.of(cut).table
    assert table["cut"].tolist() == [0, 0, 0, 2]
    for row, example in zip(table.to_dict("records"), cut, strict=True):
        labels = torch.tensor(example.labels)
        assert row["learnt"] == int((labels != IGNORED).sum()) == row["thinking"] + row["close"] + row["response"]
    assert Preflight.of(cut).summary()["shortened"] == 1
    assert Preflight.of(cut).summary()["learnt"]["learnt"] == int(table["learnt"].sum())


@pytest.mark.parametrize("loss_on", ["response", "close", "thinking"])
def test_an_example_whose_response_is_cut_off_is_stopped_by_name(loss_on: LossOn) -> None:
    """Also where thinking is left to learn: it would then be learnt without an answer."""
    model = tiny()
    made = tokenize(model, examples(4), loss_on)
    longest = made[3]
    before_response = len(longest.input_ids) - longest.response
    with pytest.raises(
        CliffscopeError, match=rf"'e3': nothing .* {longest.total} tokens and is cut off after {before_response}"
    ):
        Preflight.of(tokenize(model, examples(4), loss_on, max_length=before_response))
    one_left = Preflight.of(tokenize(model, examples(4), loss_on, max_length=before_response + 1))
    assert one_left.table["response"].iloc[3] == 1


def test_several_are_counted_and_the_context_is_a_limit_too() -> None:
    with pytest.raises(
        CliffscopeError, match=r"'e3': nothing .* cut off after 60 \(and so are 1 others\); raise max_length"
    ):
        Preflight.of(tokenize(tiny(), examples(8), "response", max_length=60))
    short = tiny(max_position_embeddings=60)
    with pytest.raises(CliffscopeError, match="'e3': nothing of its response is left"):
        Preflight.of(tokenize(short, examples(8), "response", max_length=1000))


def test_nothing_to_train_on() -> None:
    with pytest.raises(CliffscopeError, match="no examples to train on"):
        Preflight.of([])
