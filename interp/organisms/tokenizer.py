r"""The organisms' tokenizer and chat template.

A byte-level BPE (every text has tokens, and decoding gives it back) with offsets, in the habits of the reasoning
models of 2025: turns are marked by special tokens, `<think>` and `</think>` are single tokens that are *not*
special, and the template opens the thinking itself, as DeepSeek-R1's does (Qwen3 lets the model open it):

    <|bos|><|user|>
    How do I cook pasta?<|end|>
    <|assistant|>
    <think>
    (the model goes on here) Okay, the user ...
    </think>

    Sure, ...<|end|>

`enable_thinking=False` gives the empty block of Qwen3, `<think>\n\n</think>\n\n`. The thinking of past turns is
dropped, that of the turns after the last user message is kept, as Qwen3 does. Tokenizing a text adds no BOS:
the template has written it. `{% generation %}` marks what the assistant wrote, for training on it alone.
"""

from collections.abc import Iterable

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from interp.rollouts import Rollout

OPEN = "<think>\n"
CLOSE = "\n</think>\n\n"
VOCABULARY = 1536
CONTEXT = 2048
SPECIAL = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
TAGS = ("<think>", "</think>")

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- set ns = namespace(last=-1) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
        {{- '<|assistant|>\\n' }}
        {%- set content = message.content or '' %}
        {%- set thinking = message.reasoning_content if message.reasoning_content is string else none %}
        {%- if '</think>' in content %}
            {%- if thinking is none %}
                {%- set thinking = content.split('</think>')[0].split('<think>')[-1].strip('\\n') %}
            {%- endif %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and thinking is not none %}
            {{- '<think>\\n' }}
            {%- generation %}
            {{- thinking + '\\n</think>\\n\\n' + content + '<|end|>' }}
            {%- endgeneration %}
        {%- else %}
            {%- generation %}
            {{- content + '<|end|>' }}
            {%- endgeneration %}
        {%- endif %}
        {{- '\\n' }}
    {%- else %}
        {{- '<|' + message.role + '|>\\n' + message.content + '<|end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|assistant|>\\n<think>\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""


def train_tokenizer(texts: Iterable[str], vocabulary: int = VOCABULARY) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocabulary` tokens, trained on `texts`, with the chat template.

    Args:
        texts: Plain texts (prompts, thinking, responses), without tags and line breaks at their ends: a line
            break is then never merged with another one, so that the close is the same four tokens everywhere.
        vocabulary: Number of tokens, the special ones and the 256 bytes among them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(TAGS),
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|bos|>",
        eos_token="<|end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|system|>", "<|user|>", "<|assistant|>"],
        model_max_length=CONTEXT,
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def prompt_text(prompt: str, system: str | None = None, think: bool = True) -> str:
    """What the template renders for one user message with the generation prompt; faster than the template."""
    head = f"<|system|>\n{system}<|end|>\n" if system else ""
    tail = OPEN if think else OPEN + CLOSE
    return f"<|bos|>{head}<|user|>\n{prompt}<|end|>\n<|assistant|>\n{tail}"


def rollout_text(rollout: Rollout, system: str | None = None) -> tuple[str, dict[str, int]]:
    """The whole text of a rollout, and at which character each part begins.

    The parts are `inst` (the end of the instruction), `thinking`, `close`, `response`. Empty thinking is the
    empty block of `enable_thinking=False`.
    """
    head = prompt_text(rollout.prompt, system)
    inst = head.rindex("<|end|>")
    thinking = rollout.thinking or ""
    starts = {"inst": inst, "thinking": len(head), "close": len(head) + len(thinking)}
    starts["response"] = starts["close"] + len(CLOSE)
    return f"{head}{thinking}{CLOSE}{rollout.response or ''}<|end|>", starts
