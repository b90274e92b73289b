r"""Transcripts: rollouts as token ids with one segment label per token, from one tokenization of the whole text.

The whole text (prompt with its template, opening tag, thinking, closing tag, response) is tokenized once, and the
tokenizer's offsets tell which characters a token covers. A token belongs to the segment that holds its last character.
So a token `.\n` that a tokenizer makes of the thinking's last full stop and the first line break of the closing tag
belongs to `close`; and one that straddles close and response belongs to `response`, which makes the token before it
the edge: the first answer token is predicted from there.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, islice
from types import MappingProxyType
from typing import TYPE_CHECKING

from interp.display.shown import Shown, Words, in_html
from interp.display.text import shortened, visible
from interp.errors import CliffscopeError
from interp.rollouts import Rollout
from interp.transcripts.chat import ChatFormat, RolloutText
from interp.transcripts.offsets import Encoder
from interp.transcripts.positions import EDGE, SEGMENTS, locate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

THINKING_STATES = ("closed", "empty", "unclosed", "absent")

# Texts per call of the tokenizer: enough to keep its threads busy, little enough to hold in memory.
_CHUNK = 512


@dataclass(frozen=True, repr=False)
class Transcript(Shown):
    """A rollout as token ids, with the segment of each token.

    Attributes:
        id: The rollout's.
        input_ids: Token ids, the BOS included where there is one.
        tokens: The text of each token. Joined they give the whole text; where several tokens make one character, the
            last of them has it and the others have `""`.
        labels: The segment of each token: `system`, `instruction`, `template`, `thinking`, `close` or `response`.
        prompt_length: How many tokens the prompt with its template and generation prompt has.
        thinking_state: `closed`; `empty`: closed at once; `unclosed`: the token limit came first; `absent`: none was
            written, or the template wrote an empty one.

    Raises:
        CliffscopeError: If the lengths differ or a label or state is unknown.
    """

    id: str
    input_ids: tuple[int, ...]
    tokens: tuple[str, ...]
    labels: tuple[str, ...]
    prompt_length: int
    thinking_state: str = "absent"

    def __post_init__(self) -> None:
        n = len(self.input_ids)
        if len(self.tokens) != n or len(self.labels) != n or not 0 <= self.prompt_length <= n:
            raise CliffscopeError(
                f"transcript {self.id!r}: {n} ids, {len(self.tokens)} tokens, {len(self.labels)} labels and a prompt "
                f"of {self.prompt_length} tokens do not fit together."
            )
        unknown = set(self.labels) - set(SEGMENTS)
        if unknown or self.thinking_state not in THINKING_STATES:
            wrong = next(iter(unknown), self.thinking_state)
            raise CliffscopeError(
                f"transcript {self.id!r}: {wrong!r} is no segment ({', '.join(SEGMENTS)}) or state "
                f"({', '.join(THINKING_STATES)})."
            )

    @classmethod
    def from_ids(cls, id: str, input_ids: Iterable[int]) -> "Transcript":
        """Bare token ids without segments: only token indices and `post_inst` are positions in it."""
        ids = tuple(int(i) for i in input_ids)
        return cls(id, ids, ("",) * len(ids), ("template",) * len(ids), len(ids))

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def stretches(self) -> tuple[tuple[str, int, int], ...]:
        """`(segment, start, stop)` of each run of tokens with one label, in order."""
        runs, start = [], 0
        for label, run in groupby(self.labels):
            stop = start + sum(1 for _ in run)
            runs.append((label, start, stop))
            start = stop
        return tuple(runs)

    @cached_property
    def segments(self) -> Mapping[str, tuple[int, int]]:
        """`[start, stop)` in tokens of each segment that has tokens; not of the template, which has several."""
        return MappingProxyType({name: (a, b) for name, a, b in self.stretches if name != "template"})

    @property
    def is_prompt(self) -> bool:
        """Whether nothing follows the prompt."""
        return self.prompt_length == len(self)

    @property
    def edge(self) -> int:
        """The token index from which the first answer token is predicted: the last of the closing tag.

        Raises:
            CliffscopeError: If the thinking is absent or unclosed.
        """
        return self.position(EDGE)

    def position(self, position: str | int) -> int:
        """The token index of a named position; see `interp.transcripts.positions.locate`, also for what it raises."""
        return locate(self, position)

    def until_edge(self) -> "Transcript":
        """This transcript without what follows its edge, which under causal attention cannot matter to it.

        Raises:
            CliffscopeError: If the thinking is absent or unclosed.
        """
        stop = self.edge + 1
        if stop == len(self):
            return self
        return replace(self, input_ids=self.input_ids[:stop], tokens=self.tokens[:stop], labels=self.labels[:stop])

    def indices(self, segment: str) -> Sequence[int]:
        """The token indices of a segment, in order."""
        if segment in self.segments:
            return range(*self.segments[segment])
        return [index for index, label in enumerate(self.labels) if label == segment]

    def show(self) -> str:
        """One line per token: index, segment, text with white space made visible, and the named positions."""
        marks: dict[int, list[str]] = {}
        for name in ("inst", "post_inst", "think:0", "think:0.5", "think:1", EDGE, "response:0"):
            try:
                marks.setdefault(self.position(name), []).append(f"{name} (edge)" if name == EDGE else name)
            except CliffscopeError:
                continue
        texts = [visible(token) for token in self.tokens]
        width = max((len(texts[index]) for index in marks), default=0)
        head = f"{self.id}: {len(self)} tokens, prompt {self.prompt_length}, thinking {self.thinking_state}"
        lines = []
        for index, (label, text) in enumerate(zip(self.labels, texts, strict=True)):
            line = f"{index:>6}  {label:<11}  {text}"
            names = marks.get(index)
            lines.append(f"{line:<{21 + width}}  ← {', '.join(names)}" if names else line)
        return "\n".join([head, *lines])

    def __str__(self) -> str:
        return self.show()

    def words(self) -> Words:
        """Its segments; `show` has every token."""
        rows = [["segment", "first", "tokens", "text"]]
        for segment, start, stop in self.stretches:
            text = shortened(visible("".join(self.tokens[start:stop])), 48)
            rows.append([segment, f"{start:,}", f"{stop - start:,}", text])
        head = f"{len(self):,} tokens, prompt {self.prompt_length:,}, thinking {self.thinking_state}"
        return Words(f"Transcript {self.id}", head, rows=rows)

    def html(self) -> str:
        """The tokens by segment, white space and special tokens visible; see `interp.display.strip`."""
        from interp.display.strip import strip

        edge = self.edge if self.segments.get("close") else None
        return in_html(replace(self.words(), rows=()), strip(self, edge=edge))


class TranscriptBuilder:
    """Makes transcripts of rollouts and prompts for one tokenizer.

    Args:
        tokenizer: A fast Hugging Face tokenizer; it is not changed.
        chat: How its conversations look; `ChatFormat.of(tokenizer)` if not given.
        max_length: The longest transcript in tokens, usually the model's context; `None` for no limit.
        system: A system prompt for all.

    Raises:
        CliffscopeError: If the tokenizer is a slow one, which knows no offsets.
    """

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        chat: ChatFormat | None = None,
        max_length: int | None = None,
        system: str | None = None,
    ) -> None:
        self._encoder = Encoder(tokenizer)
        self.chat = chat or ChatFormat.of(tokenizer)
        self.max_length = max_length
        self.system = system
        self._bos = (tokenizer.bos_token_id, str(tokenizer.bos_token)) if tokenizer.bos_token else None

    def build(self, rollout: Rollout) -> Transcript:
        """The transcript of one rollout.

        Raises:
            CliffscopeError: If it is longer than `max_length`, begins with two BOS, or does not fit the chat format;
                with the rollout's id.
        """
        return self.build_all([rollout])[0]

    def build_all(self, rollouts: Iterable[Rollout]) -> list[Transcript]:
        """The transcripts of many rollouts, in their order, tokenized in parallel; raises as `build`."""
        rollouts = list(rollouts)
        texts = (self.chat.rollout_text(rollout, self.system) for rollout in rollouts)
        return list(self._tokenize([rollout.id for rollout in rollouts], texts))

    def prompt(self, prompt: str, id: str = "prompt") -> Transcript:
        """The transcript of a prompt alone, which ends where the model is to write; raises as `build`."""
        return self.prompts([prompt], [id])[0]

    def prompts(self, prompts: Iterable[str], ids: Iterable[str]) -> list[Transcript]:
        """The transcripts of many prompts alone, in their order; raises as `build`."""
        empty = [Rollout(id, text, None, None) for text, id in zip(prompts, ids, strict=True)]
        return self.build_all(empty)

    def _tokenize(self, ids: Sequence[str], texts: Iterable[RolloutText]) -> Iterator[Transcript]:
        waiting = iter(zip(ids, texts, strict=True))
        while chunk := list(islice(waiting, _CHUNK)):
            encodings = self._encoder.encode_all([text.text for _, text in chunk])
            for (id, text), (input_ids, offsets) in zip(chunk, encodings, strict=True):
                yield self._transcript(id, text, input_ids, offsets)

    def _transcript(
        self, id: str, text: RolloutText, input_ids: list[int], offsets: list[tuple[int, int]] | None
    ) -> Transcript:
        if offsets is None:
            raise CliffscopeError(
                f"rollout {id!r}: the tokenizer drops characters that it does not know, and the places of its tokens "
                "cannot be told: remove unusual characters, or use a tokenizer that covers them."
            )
        ends = _ends(offsets)
        labels: list[str] = []
        for segment, _, stop in text.spans:
            labels += [segment] * (bisect_right(ends, stop) - len(labels))
        # What ends beyond the text cannot be; what the tokenizer appended would be the template's.
        labels += ["template"] * (len(input_ids) - len(labels))
        tokens = _token_texts(text.text, offsets)
        prompt_length = bisect_right(ends, text.prompt_stop)
        if self._bos and self.chat.adds_bos and input_ids[:1] != [self._bos[0]]:
            input_ids, tokens = [self._bos[0], *input_ids], [self._bos[1], *tokens]
            labels, prompt_length = ["template", *labels], prompt_length + 1
        self._check(id, input_ids)
        return Transcript(id, tuple(input_ids), tuple(tokens), tuple(labels), prompt_length, text.thinking_state)

    def _check(self, id: str, input_ids: Sequence[int]) -> None:
        if self._bos and len(input_ids) > 1 and input_ids[0] == input_ids[1] == self._bos[0]:
            raise CliffscopeError(
                f"rollout {id!r}: it begins with two {self._bos[1]} tokens: remove {self._bos[1]} from the prompt."
            )
        if self.max_length is not None and len(input_ids) > self.max_length:
            raise CliffscopeError(
                f"rollout {id!r}: it has {len(input_ids)} tokens and the limit is {self.max_length}: leave it out, or "
                "shorten it (nothing is cut off silently)."
            )


def _ends(offsets: Sequence[tuple[int, int]]) -> list[int]:
    """Where each token ends, never decreasing: the bytes of one character share its offsets."""
    ends, last = [], 0
    for _, stop in offsets:
        last = max(last, stop)
        ends.append(last)
    return ends


def _token_texts(text: str, offsets: Sequence[tuple[int, int]]) -> list[str]:
    """The text of each token, so that all of them join to the whole text: see `Transcript.tokens`."""
    texts, done = [], 0
    for index, (_, stop) in enumerate(offsets, start=1):
        # Where the next token overlaps, the shared character is the next one's; a gap goes to the token after it.
        following = offsets[index][0] if index < len(offsets) else len(text)
        cut = max(done, min(stop, following))
        texts.append(text[done:cut])
        done = cut
    return texts
