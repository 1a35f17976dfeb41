"""The tokenizer: a CLIP byte-pair encoding whose merges make each word of the world one token."""

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Final

from transformers import CLIPTokenizer

from models.demo.wording import vocabulary

MAX_TOKENS: Final = 48
_START: Final = "<|startoftext|>"
_END: Final = "<|endoftext|>"
_WORD_END: Final = "</w>"


def byte_alphabet() -> list[str]:
    """The printable stand-in of each byte, in the order of GPT-2's byte-level encoding."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in printable]
    return [chr(b) for b in printable] + [chr(256 + i) for i in range(len(hidden))]


def learn_merges(words: tuple[str, ...]) -> list[tuple[str, str]]:
    """Byte-pair merges, the most frequent pair first, until each of ``words`` is one token."""
    pieces = [[*word[:-1], word[-1] + _WORD_END] for word in words]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in pieces for pair in pairwise(word))
        if not pairs:
            return merges
        best = max(pairs, key=lambda pair: (pairs[pair], pair))
        merges.append(best)
        pieces = [_merged(word, best) for word in pieces]


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write the tokenizer's files into ``folder`` and load it from there.

    Raises ValueError when a word of the world is not one token.
    """
    words = tuple(word for word in vocabulary() if word.isalpha())
    merges = learn_merges(words)
    base = byte_alphabet()
    entries = [*base, *(b + _WORD_END for b in base), *("".join(m) for m in merges), _START, _END]
    folder.mkdir(parents=True, exist_ok=True)
    vocab = {entry: i for i, entry in enumerate(dict.fromkeys(entries))}
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    special = {"bos_token": _START, "eos_token": _END, "unk_token": _END, "pad_token": _END}
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=1))
    config = {
        **special,
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "do_lower_case": True,
        "errors": "replace",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    tokenizer = CLIPTokenizer.from_pretrained(folder)
    split = [word for word in words if len(tokenizer(word).input_ids) != 3]
    if split:
        raise ValueError(f"tokenizer: these words are not one token each: {split}")
    return tokenizer
