"""Folders with tokenizers of every kind that can be tokenizer by hand, to compare with what transformers makes of
them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

LETTERS = "".join(chr(code) for code in range(33, 127)) + "éß中文字"
WORDS = ("the", "old", "mill", "by", "river", "is", "red", "yes", "no", "who", "it", "was", "said", "nobody", "sam")
SPECIALS = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}


def byte_level(trim: bool = False, begin: bool = False) -> Tokenizer:
    """A tokenizer as those of GPT-2 and Llama 3: bytes, merged; `begin` is Llama 3's post-processor, which puts <s>
    before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: i for i, letter in enumerate([*SPECIALS.values(), *alphabet])}
    merges = [("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("l", "l"), ("Ġ", "y"), ("Ġy", "e"), ("Ġye", "s"), (":", "Ċ")]
    for first, second in merges:
        vocab[first + second] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    steps: list[Any] = [processors.ByteLevel(trim_offsets=True)] if trim else []
    if begin:
        steps.append(processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]))
    if steps:
        tokenizer.post_processor = steps[0] if len(steps) == 1 else processors.Sequence(steps)
    return named(tokenizer)


def spaces(legacy: bool = False) -> Tokenizer:
    """A tokenizer as those of Llama 2 and Mistral: a space before every text; `legacy` writes it by a normalizer."""
    vocab = {token: i for i, token in enumerate(SPECIALS.values())}
    for letter in [*(f"<0x{code:02X}>" for code in range(256)), "▁", *LETTERS, "▁t", "he", "▁the", "▁y", "es", "▁yes"]:
        vocab.setdefault(letter, len(vocab))
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "y"), ("e", "s"), ("▁y", "es")]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]
    )
    return named(tokenizer)


def unigram() -> Tokenizer:
    """A tokenizer as those of T5 and XLM-R: a newline is a space, many spaces are one, </s> behind each text."""
    pieces = [(token, 0.0) for token in SPECIALS.values()] + [("▁", -3.0)]
    pieces += [("▁" + word, -2.0) for word in WORDS] + [(letter, -6.0) for letter in LETTERS]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")]
    )
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    return named(tokenizer)


def word_pieces() -> Tokenizer:
    """A tokenizer as that of BERT: lower case, words in pieces, [CLS] and [SEP] around."""
    vocab = {token: i for i, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])}
    for piece in [*WORDS, *LETTERS.lower(), *(f"##{letter}" for letter in LETTERS.lower())]:
        vocab.setdefault(piece, len(vocab))
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return tokenizer


def named(tokenizer: Tokenizer) -> Tokenizer:
    """The tokenizer with its special tokens."""
    tokenizer.add_special_tokens(list(SPECIALS.values()))
    return tokenizer


BERT = {
    "unk_token": "[UNK]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
KINDS: dict[str, tuple[Callable[[], Tokenizer], dict[str, Any]]] = {
    "byte-level": (byte_level, SPECIALS),
    "byte-level, trimmed": (lambda: byte_level(trim=True), SPECIALS),
    "byte-level, begin": (lambda: byte_level(trim=True, begin=True), SPECIALS),
    "spaces": (spaces, SPECIALS),
    "spaces by a normalizer": (lambda: spaces(legacy=True), SPECIALS),
    "unigram": (unigram, SPECIALS),
    "word pieces": (word_pieces, BERT),
}


def folder_of(
    folder: Path,
    kind: str,
    tokenizer_class: str | None = "PreTrainedTokenizerFast",
    model: str = "llama",
    **config: Any,
) -> Path:
    """A folder with this kind's tokenizer.json, a tokenizer_config.json and a config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    make, specials = KINDS[kind]
    make().save(str(folder / "tokenizer.json"))
    own = {} if tokenizer_class is None else {"tokenizer_class": tokenizer_class}
    (folder / "tokenizer_config.json").write_text(json.dumps({**own, **specials, **config}))
    (folder / "config.json").write_text(json.dumps({"model_type": model, "bos_token_id": 7, "eos_token_id": 8}))
    return folder
