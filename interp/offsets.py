"""Token ids with the characters that each token covers, as a tokenizer's own call gives the ids."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from interp.errors import CliffscopeError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Encoded = tuple[list[int], list[tuple[int, int]]]


class Encoder:
    """Encodes text without adding special tokens, with exact offsets.

    A copy of the fast tokenizer is used, without its post-processor: in some families (Llama 3, RoBERTa, GPT-2) that
    one takes white space out of the offsets, and it does nothing else when no special tokens are added. The copy also
    has no truncation or padding, whatever the user's tokenizer is set to; the user's tokenizer stays as it is.

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

    def encode_all(self, texts: Sequence[str]) -> list[Encoded]:
        """`(ids, offsets)` of each text; offsets are characters `[start, stop)`."""
        encodings = self._backend.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]
