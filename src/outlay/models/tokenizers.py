"""Tokenizers that need no download, behind transformers' interface, and any other by path or name."""

from __future__ import annotations

import os
import platform
import re
import string
from typing import Any

from outlay.errors import InputError, MissingExtra

PADDING, START, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
_SPECIAL = [PADDING, START, END, UNKNOWN]


def open_tokenizer(name: str) -> Any:
    """Return the tokenizer ``characters``, ``bytes``, ``bpe-<size>``, or the one at a local path or hub name.

    ``characters`` maps each printable ASCII character (and newline) to one token, anything else to ``<unk>``; ``bytes`` maps text to its
    UTF-8 bytes, so that nothing is unknown; ``bpe-1024`` merges bytes into 1024 tokens (any size from 300), learnt once from the corpus
    ``code`` and kept in the cache. All have ``<pad>``, ``<s>``, ``</s>`` and ``<unk>`` as tokens 0 to 3.

    Raises:
        MissingExtra: without transformers.
        InputError: when nothing can be loaded under that name.
    """
    try:
        from transformers import AutoTokenizer, PreTrainedTokenizerFast
    except ImportError:
        raise MissingExtra("transformers", "hf") from None
    pairs = re.fullmatch(r"bpe-(\d+)", name)
    if name not in ("characters", "bytes") and not pairs:
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise InputError(
                f"no tokenizer at {name!r}; accepted: characters, bytes, bpe-<size>, a folder or a hub name ({str(error).splitlines()[0]})"
            ) from error
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        return tokenizer
    core = _byte_pairs(int(pairs[1])) if pairs else _characters() if name == "characters" else _bytes()
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=PADDING, bos_token=START, eos_token=END, unk_token=UNKNOWN)


def _characters() -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    alphabet = "\n" + "".join(chr(code) for code in range(32, 127))
    assert set(string.ascii_letters) <= set(alphabet)
    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *alphabet])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    return core


def _byte_pairs(size: int) -> Any:
    """Learn merges from the first 2 million characters of the corpus ``code``; the corpus depends on the installed Python, so does its name."""
    from itertools import islice

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from outlay.context import cache_directory
    from outlay.tasks.corpora import documents

    if size < 300:
        raise InputError(f"bpe needs a size of at least 300 (256 bytes and 4 marks and some merges), found {size}")
    kept = cache_directory() / "tokenizers" / f"bpe-{size}-code-python{platform.python_version()}.json"
    if kept.is_file():
        return Tokenizer.from_file(str(kept))
    core = Tokenizer(models.BPE(unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=_SPECIAL, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    core.train_from_iterator(islice((document.text[:20_000] for document in documents("code")), 150), trainer)
    kept.parent.mkdir(parents=True, exist_ok=True)
    aside = kept.with_suffix(f".{os.getpid()}")
    core.save(str(aside))
    os.replace(aside, kept)
    return core


def _bytes() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {token: i for i, token in enumerate([*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocabulary, [], unk_token=UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    return core
