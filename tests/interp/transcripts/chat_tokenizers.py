"""Tokenizers and chat templates of the kinds that exist, made here, with their layout written down independently."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

TEXTS = [
    "How do I cook pasta at home? How do I sharpen a knife for the kitchen?",
    "The user asks how to cook pasta. That is harmless, so I should help. I will list the steps.",
    "Sure! Boil water, add salt.\n\nThen add the pasta.\n1. Stir\n2. Wait",
    "<think>\nOkay.\n</think>\n\nI'm sorry, I can't help with that.\n\n\n  - no\n",
    "user\n a\n b\n c\n d\n e",
    "user\nassistant\nsystem\nmodel\nYou are a helpful assistant. Be brief. analysis final",
] * 4


def _trained(tokenizer: Tokenizer, trainer: object) -> Tokenizer:
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _quiet(kind: type, **options: object) -> object:
    return kind(show_progress=False, **options)


def byte_level() -> Tokenizer:
    """As GPT-2, Llama 3 and Qwen: merges across punctuation and line breaks, trims its offsets."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            # As Qwen's pattern does: a full stop and the line breaks after it come into one piece.
            pre_tokenizers.Split(Regex(r" ?[^\s\w]+[\r\n]*| ?\w+|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained = _trained(tokenizer, _quiet(trainers.BpeTrainer, vocab_size=420, initial_alphabet=alphabet))
    trained.post_processor = processors.ByteLevel(trim_offsets=True)
    return trained


def wide() -> Tokenizer:
    """As tokenizers with merges across words: tokens that end with spaces, which its offsets leave out."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained = _trained(tokenizer, _quiet(trainers.BpeTrainer, vocab_size=420, initial_alphabet=alphabet))
    trained.post_processor = processors.ByteLevel(trim_offsets=True)
    return trained


def unigram() -> Tokenizer:
    """As T5 and older SentencePiece models: a dummy space before every stretch of text, unknown characters."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="always")
    return _trained(
        tokenizer,
        _quiet(trainers.UnigramTrainer, vocab_size=200, special_tokens=["<unk>"], unk_token="<unk>"),
    )


def _metaspace_bpe(**options: object) -> Tokenizer:
    bare = Tokenizer(models.BPE())
    bare.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
    model = json.loads(_trained(bare, _quiet(trainers.BpeTrainer, vocab_size=300)).to_str())["model"]
    vocab = dict(model["vocab"])
    if options.get("byte_fallback"):
        for byte in range(256):
            vocab.setdefault(f"<0x{byte:02X}>", len(vocab))
    merges = [tuple(pair) for pair in model["merges"]]
    return Tokenizer(models.BPE(vocab=vocab, merges=merges, **options))


def llama2() -> Tokenizer:
    """As Llama 2 and Mistral: spaces replaced by the normalizer, unknown characters as byte tokens."""
    tokenizer = _metaspace_bpe(byte_fallback=True)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def dropping() -> Tokenizer:
    """A BPE without byte or unknown tokens: it drops what it does not know, and misplaces what comes after."""
    tokenizer = _metaspace_bpe()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": byte_level,
    "wide": wide,
    "unigram": unigram,
    "llama2": llama2,
    "dropping": dropping,
}


@dataclass(frozen=True)
class Style:
    """A kind of chat template, and by hand what it should write."""

    jinja: str | None
    specials: tuple[str, ...]
    header: Callable[[str], list[tuple[str, str]]]
    tail: str
    bos: str | None = None
    adds_bos: bool = False
    system: str | None = None
    open: str = "<think>\n"
    close: str = "\n</think>\n\n"
    opened: str = ""
    trims: bool = False
    options: dict[str, object] = field(default_factory=dict)

    def pieces(self, prompt: str, thinking: str | None, response: str | None) -> list[tuple[str, str]]:
        """`(segment, text)` of a rollout, whose thinking and response have no line breaks around them."""
        prompt = prompt.strip() if self.trims else prompt
        pieces = [*self.header(prompt), ("instruction", prompt), ("template", self.tail + self.opened)]
        if thinking is not None:
            pieces += [("template", self.open[len(self.opened) :]), ("thinking", thinking)]
            pieces += [("close", self.close)] if response is not None else []
        return [*pieces, ("response", response or "")]


R1 = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ m['content'] }}{% elif m['role'] == 'user' %}"
    "{{ '<|User|>' + m['content'] }}{% else %}{% set content = m['content'].split('</think>')[-1] %}"
    "{{ '<|Assistant|>' + content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|Assistant|><think>\\n' }}{% endif %}"
)
QWEN3 = (
    "{% if messages[0].role == 'system' %}"
    "{{ '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>user\n' + m.content + '<|im_end|>\n' }}"
    "{% elif m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{% if loop.last %}{{ '<think>\n' + (m.reasoning_content or '').strip('\n') + '\n</think>\n\n' }}{% endif %}"
    "{{ m.content.split('</think>')[-1].lstrip('\n') + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' "
    "+ m.content | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}{{ '<|head|>' + m.role + '<|/head|>\n\n' + m.content | trim + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant<|/head|>\n\n' }}{% endif %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{% if m.thinking and loop.last %}{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}"
    "{% endif %}{{ '<|start|>assistant<|channel|>final<|message|>' + m.content + '<|return|>' }}"
    "{% else %}{{ '<|start|>' + m.role + '<|message|>' + m.content + '<|end|>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}"
)
MERGED_SYSTEM = (
    "{{ bos_token }}{% set offset = 1 if messages[0].role == 'system' else 0 %}"
    "{% for m in messages[offset:] %}{{ '[INST] ' if m.role == 'user' else '' }}"
    "{{ messages[0].content + '\n\n' if offset and loop.first else '' }}{{ m.content }}"
    "{{ ' [/INST]' if m.role == 'user' else '</s>' }}{% endfor %}"
)

IM = ("<|im_start|>", "<|im_end|>")
CHANNEL_TOKENS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>")

STYLES: dict[str, Style] = {
    "r1": Style(
        R1,
        ("<s>", "<|User|>", "<|Assistant|>", "<think>", "</think>", "<|end|>"),
        lambda prompt: [("template", "<s><|User|>")],
        "<|Assistant|>",
        bos="<s>",
        adds_bos=True,
        opened="<think>\n",
        system="<s>{}<|User|>",
    ),
    "qwen3": Style(
        QWEN3,
        IM,
        lambda prompt: [("template", "<|im_start|>user\n")],
        "<|im_end|>\n<|im_start|>assistant\n",
        system="<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n",
    ),
    "gemma": Style(
        GEMMA,
        ("<bos>", "<start_of_turn>", "<end_of_turn>"),
        lambda prompt: [("template", "<bos><start_of_turn>user\n")],
        "<end_of_turn>\n<start_of_turn>model\n",
        bos="<bos>",
        adds_bos=True,
        trims=True,
    ),
    "llama3": Style(
        LLAMA3,
        ("<s>", "<|head|>", "<|/head|>", "<|eot|>"),
        lambda prompt: [("template", "<s><|head|>user<|/head|>\n\n")],
        "<|eot|><|head|>assistant<|/head|>\n\n",
        bos="<s>",
        adds_bos=True,
        trims=True,
        system="<s><|head|>system<|/head|>\n\n{}<|eot|><|head|>user<|/head|>\n\n",
    ),
    "default_system": Style(
        DEFAULT_SYSTEM,
        ("<s>", *IM),
        lambda prompt: [
            ("template", "<|im_start|>system\n"),
            ("system", "Be brief."),
            ("template", "<|im_end|>\n<|im_start|>user\n"),
        ],
        "<|im_end|>\n<|im_start|>assistant\n",
        bos="<s>",
        adds_bos=True,
        system="<|im_start|>system\n{}<|im_end|>\n<|im_start|>user\n",
    ),
    "channels": Style(
        CHANNELS,
        CHANNEL_TOKENS,
        lambda prompt: [("template", "<|start|>user<|message|>")],
        "<|end|><|start|>assistant",
        open="<|channel|>analysis<|message|>",
        close="<|end|><|start|>assistant<|channel|>final<|message|>",
        system="<|start|>system<|message|>{}<|end|><|start|>user<|message|>",
    ),
    "merged_system": Style(
        MERGED_SYSTEM,
        ("<s>", "</s>"),
        lambda prompt: [("template", "<s>[INST] ")],
        " [/INST]",
        bos="<s>",
        system="<s>[INST] {}\n\n",
    ),
    "none": Style(None, ("<s>",), lambda prompt: [], "", bos="<s>", adds_bos=True),
}


@cache
def make(style: str, kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a kind with the template of a style."""
    spec = STYLES[style]
    raw = Tokenizer.from_str(_base(kind))
    raw.add_special_tokens(list(spec.specials))
    if spec.adds_bos and spec.bos:
        template = processors.TemplateProcessing(
            single=f"{spec.bos} $A", special_tokens=[(spec.bos, raw.token_to_id(spec.bos))]
        )
        before = [raw.post_processor] if raw.post_processor else []
        raw.post_processor = processors.Sequence([*before, template])
    extra = {"bos_token": spec.bos} if spec.bos else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=spec.specials[-1], **extra)
    tokenizer.chat_template = spec.jinja
    return tokenizer


@cache
def _base(kind: str) -> str:
    return KINDS[kind]().to_str()
