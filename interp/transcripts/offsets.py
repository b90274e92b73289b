"""Token ids with the characters that each token covers, the ids as the tokenizer's own call gives them."""

import copy
import json
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Offsets = list[tuple[int, int]]


class Encoder:
    """Encodes text without adding special tokens, with exact offsets.

    A copy of the fast tokenizer is used, without its post-processor: in some families (Llama 3, RoBERTa, GPT-2) that
    one takes white space out of the offsets, and it does nothing else when no special tokens are added. The copy also
    has no truncation or padding, whatever the user's tokenizer is set to; the user's tokenizer stays as it is.

    A BPE tokenizer with neither byte tokens nor an unknown token drops characters that it does not know, and then
    reports all later offsets too early. For such a one the offsets are taken from the text without these characters,
    provided that it gives the same ids.

    Args:
        tokenizer: A fast Hugging Face tokenizer.

    Raises:
        CliffscopeError: If it is a slow one, which knows no offsets.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase") -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not getattr(tokenizer, "is_fast", False) or backend is None:
            name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
            raise CliffscopeError(
                f"{name}: a slow tokenizer, which cannot tell where its tokens are in the text: load it with "
                "AutoTokenizer.from_pretrained(..., use_fast=True)."
            )
        self._backend = copy.deepcopy(backend)
        self._backend.post_processor = None
        self._backend.no_truncation()
        self._backend.no_padding()
        self._backend.encode_special_tokens = bool(getattr(tokenizer, "split_special_tokens", False))
        self._vocabulary = self._backend.get_vocab()
        self._drops = self._drops_unknown()
        self._known: dict[str, bool] = {}

    def encode_all(self, texts: Sequence[str]) -> list[tuple[list[int], Offsets | None]]:
        """`(ids, offsets)` of each text; offsets are characters `[start, stop)`, `None` if they cannot be told."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        if not self._drops:
            return [(encoding.ids, encoding.offsets) for encoding in encodings]
        return [
            (
                encoding.ids,
                self._offsets_without_unknown(text, encoding.ids) if self._has_unknown(text) else encoding.offsets,
            )
            for text, encoding in zip(texts, encodings, strict=True)
        ]

    def _drops_unknown(self) -> bool:
        settings = json.loads(self._backend.to_str())
        model = settings["model"]
        # Byte-level pre-tokenizers leave nothing unknown.
        by_bytes = '"ByteLevel"' in json.dumps(settings["pre_tokenizer"])
        if model["type"] != "BPE" or model.get("unk_token") or by_bytes:
            return False
        self._byte_fallback = bool(model.get("byte_fallback"))
        return not (self._byte_fallback and all(_byte_token(byte) in self._vocabulary for byte in range(256)))

    def _offsets_without_unknown(self, text: str, ids: list[int]) -> Offsets | None:
        kept = list(self._known_characters(text))
        encoding = self._backend.encode("".join(text[index] for index in kept), add_special_tokens=False)
        if encoding.ids != ids:
            return None
        places = [*kept, len(text)]
        return [
            (places[start], places[stop - 1] + 1 if stop > start else places[start]) for start, stop in encoding.offsets
        ]

    def _has_unknown(self, text: str) -> bool:
        return not all(map(self._is_known, set(text)))

    def _known_characters(self, text: str) -> Iterator[int]:
        """The indices of the characters that the tokenizer does not drop."""
        added = [token.content for token in self._backend.get_added_tokens_decoder().values()]
        literal = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True))) or r"(?!)")
        stop = 0
        for match in [*literal.finditer(text), None]:
            start = match.start() if match else len(text)
            yield from (index for index in range(stop, start) if self._is_known(text[index]))
            if match:
                yield from range(*match.span())
                stop = match.end()

    def _is_known(self, character: str) -> bool:
        if character not in self._known:
            normalizer, splitter = self._backend.normalizer, self._backend.pre_tokenizer
            shown = normalizer.normalize_str(character) if normalizer else character
            pieces = [piece for piece, _ in splitter.pre_tokenize_str(shown)] if splitter else [shown]
            self._known[character] = all(
                part in self._vocabulary
                or (self._byte_fallback and all(_byte_token(byte) in self._vocabulary for byte in part.encode()))
                for part in "".join(pieces)
            )
        return self._known[character]


def _byte_token(byte: int) -> str:
    return f"<0x{byte:02X}>"
