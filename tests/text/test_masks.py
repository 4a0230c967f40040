"""Which tokens are learned, for every shape of row, chat template and kind of tokenizer: the response and its end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tuning.core.errors import DataError
from tuning.core.paths import asset_path
from tuning.text import EncodedRow, Row, TextTokenizer, Turn, encode_row, tokenize_rows

SPECIALS = (
    "<s>",
    "</s>",
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<start_of_turn>",
    "<end_of_turn>",
    "[INST]",
    "[/INST]",
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m['role'] }}<|end_header_id|>\n\n"
    "{{ m['content'] | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
MISTRAL = (  # the system prompt stands before the last question, so earlier turns change as the talk goes on
    "{% set system = messages[0]['content'] if messages[0]['role'] == 'system' else '' %}"
    "{% set talk = messages[1:] if system else messages %}{{ bos_token }}"
    "{% for m in talk %}{% if m['role'] == 'user' %}[INST] "
    "{% if system and (loop.last or loop.index == loop.length - 1) %}{{ system }}\n\n{% endif %}"
    "{{ m['content'] }} [/INST]{% else %} {{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
PLAIN = (
    "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
BUNDLED = TextTokenizer(asset_path("models", "tiny-town")).chat_template or ""
TEMPLATES = {"chatml": CHATML, "llama3": LLAMA3, "gemma": GEMMA, "mistral": MISTRAL, "bundled": BUNDLED}
ENDS = {"chatml": "<|im_end|>", "llama3": "<|eot_id|>", "gemma": "<end_of_turn>", "mistral": "</s>", "bundled": "</s>"}
LETTERS = "".join(chr(code) for code in range(32, 127)) + "\n"


def byte_level() -> Tokenizer:
    """A byte-level vocabulary, as GPT-2 and Llama 3 have."""
    alphabet = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    alphabet |= {"\u0120t": 256, "he": 257}
    tokenizer = Tokenizer(models.BPE(vocab=alphabet, merges=[("\u0120", "t"), ("h", "e")]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return tokenizer


def spaces_first() -> Tokenizer:
    """A vocabulary that writes a space before every text, as Llama 2 and Mistral do."""
    vocab = {f"<0x{code:02X}>": code for code in range(256)}
    for letter in ["\u2581", *LETTERS.strip(), "\u2581t", "he"]:
        vocab.setdefault(letter, len(vocab))
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("\u2581", "t"), ("h", "e")], byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


MADE = {"byte-level": byte_level, "spaces-first": spaces_first}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], TextTokenizer]:
    by_kind_and_template = {}
    for kind, make in MADE.items():
        tokenizer = make()
        tokenizer.add_special_tokens(list(SPECIALS))
        for name, template in {**TEMPLATES, "plain": PLAIN}.items():
            folder: Path = tmp_path_factory.mktemp("tokenizer")
            tokenizer.save(str(folder / "tokenizer.json"))
            config = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>", "chat_template": template}
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
            by_kind_and_template[kind, name] = TextTokenizer(folder)
    return by_kind_and_template


def written(tokenizer: TextTokenizer, tokens: list[int]) -> str:
    """The tokens' text, special ones too."""
    return tokenizer._tokenizer.decode(tokens, skip_special_tokens=False)


def runs(tokenizer: TextTokenizer, encoded: EncodedRow) -> list[str]:
    """The texts of the unbroken stretches that are learned."""
    stretches: list[list[int]] = []
    before = False
    for token, trained in zip(encoded.ids, encoded.trained, strict=True):
        if trained and not before:
            stretches.append([])
        if trained:
            stretches[-1].append(token)
        before = trained
    return [written(tokenizer, tokens) for tokens in stretches]


def encode(
    row: Row, tokenizer: TextTokenizer, loss_on: str = "auto", system: str | None = None, limit: int = 10**6
) -> EncodedRow:
    return encode_row(row, tokenizer, max_seq_length=limit, loss_on=loss_on, task="causal_lm", system_prompt=system)


words = st.text(alphabet=LETTERS + "\u00e9\u4e2d\U0001f600", min_size=1, max_size=24).filter(
    lambda text: text.strip() == text and not any(mark in text for mark in ("INST", "<", ">"))
)
talks = st.lists(st.tuples(words, words), min_size=1, max_size=3)
KINDS = [(kind, name) for kind in MADE for name in TEMPLATES]
RELAXED = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize(("kind", "name"), KINDS)
@given(talk=talks, system=st.none() | words)
@RELAXED
def test_conversations_learn_exactly_the_answers_and_their_end(
    tokenizers: dict[tuple[str, str], TextTokenizer],
    kind: str,
    name: str,
    talk: list[tuple[str, str]],
    system: str | None,
) -> None:
    tokenizer = tokenizers[kind, name]
    row = Row(
        messages=tuple(turn for question, reply in talk for turn in (Turn("user", question), Turn("assistant", reply)))
    )
    system = None if name == "gemma" else system
    answers = [answer + ENDS[name] for _, answer in talk]
    tokens = encode(row, tokenizer, system=system)
    assert [text.lstrip(" ") for text in runs(tokenizer, tokens)] == answers
    assert [text.lstrip(" ") for text in runs(tokenizer, encode(row, tokenizer, "last_turn", system))] == answers[-1:]
    assert all(encode(row, tokenizer, "all", system).trained)
    messages = [turn.message() for turn in row.messages or ()]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    whole = tokenizer.render_chat(messages, add_generation_prompt=False)
    assert written(tokenizer, tokens.ids).strip(" ") == whole.strip(" "), (
        "no letter is lost or added between the pieces"
    )


@pytest.mark.parametrize("kind", MADE)
@given(prompt=words, answer=words, system=st.none() | words)
@RELAXED
def test_answers_to_prompts_are_learned_whole_and_nothing_else(
    tokenizers: dict[tuple[str, str], TextTokenizer], kind: str, prompt: str, answer: str, system: str | None
) -> None:
    tokenizer = tokenizers[kind, "plain"]
    row = Row(prompt=prompt, completion=" " + answer)
    tokens = encode(row, tokenizer, system=system)
    assert [text.lstrip(" ") for text in runs(tokenizer, tokens)] == [answer + "</s>"]
    shown = f"{system}\n{prompt}" if system else prompt
    assert written(tokenizer, tokens.ids).removeprefix(" ") == f"{shown} {answer}</s>", (
        "this tokenizer puts no begin token"
    )
    (text,) = runs(tokenizer, encode(Row(text=answer), tokenizer))
    assert text.lstrip(" ") == answer + "</s>"


@pytest.mark.parametrize("kind", MADE)
@given(talk=talks, limit=st.integers(8, 60))
@RELAXED
def test_cutting_keeps_a_part_of_the_answer_and_the_tokens_in_order(
    tokenizers: dict[tuple[str, str], TextTokenizer], kind: str, talk: list[tuple[str, str]], limit: int
) -> None:
    tokenizer = tokenizers[kind, "chatml"]
    row = Row(
        messages=tuple(
            turn for question, answer in talk for turn in (Turn("user", question), Turn("assistant", answer))
        )
    )
    whole, tokens = encode(row, tokenizer, "last_turn"), encode(row, tokenizer, "last_turn", limit=limit)
    assert len(tokens.ids) == min(limit, len(whole.ids)) or tokens.cut
    assert len(tokens.ids) <= limit and tokens.trained_tokens >= 1
    rest = iter(zip(whole.ids, whole.trained, strict=True))
    assert all(pair in rest for pair in zip(tokens.ids, tokens.trained, strict=True)), "a part of the row, in its order"


def test_nothing_is_learned_from_an_empty_answer(tokenizers: dict[tuple[str, str], TextTokenizer]) -> None:
    tokenizer = tokenizers["byte-level", "chatml"]
    assert encode(Row(prompt="Why?", completion=""), tokenizer).trained_tokens == 0
    assert encode(Row(messages=(Turn("user", "Why?"), Turn("assistant", " "))), tokenizer).trained_tokens == 0
    assert encode(Row(messages=(Turn("user", "Why?"),)), tokenizer).trained_tokens == 0
    assert encode(Row(text=" \n"), tokenizer).trained_tokens == 0


def test_a_template_without_special_tokens_learns_the_line_end(
    tokenizers: dict[tuple[str, str], TextTokenizer],
) -> None:
    tokenizer = tokenizers["byte-level", "plain"]
    row = Row(messages=(Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "Bye")))
    assert runs(tokenizer, encode(row, tokenizer)) == [" Hello.\n"]


def test_a_template_that_refuses_says_why(tokenizers: dict[tuple[str, str], TextTokenizer]) -> None:
    row = Row(messages=(Turn("system", "Be kind."), Turn("user", "Hi"), Turn("assistant", "Hello.")))
    with pytest.raises(DataError, match="System role not supported"):
        encode(row, tokenizers["byte-level", "gemma"])


def test_many_rows_at_once_are_the_same_as_one_by_one(tokenizers: dict[tuple[str, str], TextTokenizer]) -> None:
    rows = [
        Row(prompt="a b", completion=" c"),
        Row(text="x"),
        Row(messages=(Turn("user", "Hi"), Turn("assistant", "Yo"))),
    ]
    for tokenizer in tokenizers.values():
        together = tokenize_rows(rows, tokenizer, loss_on="auto", task="causal_lm", system_prompt=None)
        assert together == [
            tokenize_rows([row], tokenizer, loss_on="auto", task="causal_lm", system_prompt=None)[0] for row in rows
        ]
