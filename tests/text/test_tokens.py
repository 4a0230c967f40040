"""Token ids are those that transformers gives for the same folder, for every kind of tokenizer and row."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer
from transformers.models.auto import tokenization_auto

from support.data_files import rows_summary
from support.tiny_models import tiny_model, tiny_tokenizer
from support.tokenizer_folders import KINDS, folder_of
from tuning.data import encode_pairs, encode_set
from tuning.data.preview.preview import preview
from tuning.data.row_counts import RowCounts
from tuning.settings.schema import DataSettings
from tuning.text import EncodedRow, Row, TextTokenizer, TokenizedRow, encode_row, tokenize_rows
from tuning.text.prompts import prompt_ids, question_ids
from tuning.text.tokenizer import MODEL_TYPES_WITH_OWN_CLASS

TEXTS = (
    "the old mill",
    "The old\nmill  by\n\n the river: yes",
    "  lead and trail ",
    "<s>who</s>",
    "中文é ß",
    "",
    "a</s>b <pad> c",
)
RELAXED = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LETTERS = st.text(alphabet="theyswol :\n中é.", min_size=1, max_size=14)
CLASSES = [
    ("PreTrainedTokenizerFast", "llama"),
    ("PreTrainedTokenizerFast", "qwen2"),
    ("TokenizersBackend", "bert"),
    ("LlamaTokenizerFast", "llama"),
    ("GPT2Tokenizer", "gpt2"),
    ("BertTokenizerFast", "bert"),
    (None, "gpt_neox"),
    ("NoSuchTokenizer", "llama"),
]


def plain(row: Row, tokenizer: TextTokenizer, **changes: Any) -> TokenizedRow:
    how = {"loss_on": "auto", "task": "causal_lm", "system_prompt": None} | changes
    return tokenize_rows([row], tokenizer, **how)[0]


def learned(row: TokenizedRow | EncodedRow) -> list[int]:
    return [token for token, trained in zip(row.ids, row.trained, strict=True) if trained]


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, TextTokenizer]:
    folder = folder_of(tmp_path_factory.mktemp("kind"), request.param)
    return AutoTokenizer.from_pretrained(folder), TextTokenizer(folder)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "model"), CLASSES)
def test_a_folder_is_read_as_transformers_reads_it(tmp_path: Path, kind: str, name: str | None, model: str) -> None:
    folder = folder_of(tmp_path, kind, name, model)
    try:
        reference = AutoTokenizer.from_pretrained(folder)
    except Exception:
        pytest.skip("transformers does not open this pair of class and tokenizer")
    tokenizer = TextTokenizer(folder)
    for text in TEXTS:
        assert tokenizer.encode_with_specials(text) == reference(text).input_ids, text
        assert tokenizer.encode(text) == reference(text, add_special_tokens=False).input_ids, text
    assert (tokenizer.bos_id, tokenizer.eos_id) == (reference.bos_token_id, reference.eos_token_id)
    assert tokenizer.size == len(reference) and tokenizer.largest_id == max(reference.get_vocab().values())


ADDED = {"content": "<|x|>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}
FILES: dict[str, dict[str, Any]] = {
    "tokens listed in the config": {"config": {"added_tokens_decoder": {"900": {**ADDED, "special": True}}}},
    "plain tokens listed in the config": {"config": {"added_tokens_decoder": {"900": {**ADDED, "special": False}}}},
    "tokens in added_tokens.json": {
        "added_tokens.json": {"<|x|>": 900, "<|y|>": 901},
        "config": {"eos_token": "<|y|>"},
    },
    "tokens in special_tokens_map.json": {"special_tokens_map.json": {"eos_token": "<|x|>", "bos_token": ADDED}},
    "a map beside listed tokens": {
        "special_tokens_map.json": {"eos_token": "<|x|>"},
        "config": {"added_tokens_decoder": {"900": {**ADDED, "special": True}}},
    },
    "no end named": {"config": {"eos_token": None}},
    "no begin named": {"config": {"bos_token": None}},
    "further special tokens": {"config": {"additional_special_tokens": ["<|x|>", "mill"]}},
    "further special tokens by name": {"config": {"extra_special_tokens": {"image_token": "<|x|>"}}},
    "a token of the model's own": {"config": {"image_token": "<|x|>"}},
    "begin and end asked for beside tokenizer.json": {"config": {"add_bos_token": True, "add_eos_token": True}},
    "special tokens split": {"config": {"split_special_tokens": True}},
    "a pad token of its own": {"config": {"pad_token": "[PAD]"}},
}


@pytest.mark.parametrize("kind", ["byte-level", "spaces", "word pieces"])
@pytest.mark.parametrize("what", FILES)
def test_special_tokens_come_from_all_files_of_the_folder(tmp_path: Path, kind: str, what: str) -> None:
    files = dict(FILES[what])
    folder = folder_of(tmp_path, kind, **files.pop("config", {}))
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    reference, tokenizer = AutoTokenizer.from_pretrained(folder), TextTokenizer(folder)
    for text in (*TEXTS, "a<|x|> b<|y|>mill [PAD]"):
        assert tokenizer.encode_with_specials(text) == reference(text).input_ids, text
    ids = (reference.bos_token_id, reference.eos_token_id)
    assert (tokenizer.bos_id, tokenizer.eos_id) == ids
    assert reference.pad_token_id is None or tokenizer.pad_id == reference.pad_token_id
    assert set(reference.all_special_ids) <= tokenizer.special_ids and tokenizer.size == len(reference)


def test_the_kinds_that_transformers_opens_with_their_own_class_are_known() -> None:
    general = {"TokenizersBackend", "PythonBackend", "PreTrainedTokenizer", "MistralCommonBackend", ""}
    names = tokenization_auto.TOKENIZER_MAPPING_NAMES
    wrong = tokenization_auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS
    own = {kind for kind in wrong if (names.get(kind) or "").removesuffix("Fast") not in general}
    assert own == set(MODEL_TYPES_WITH_OWN_CLASS)


def test_a_changed_folder_is_opened_again(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "byte-level")
    assert TextTokenizer(folder).eos_id == 1
    (folder / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<pad>"}))
    assert TextTokenizer(folder).eos_id == 3


def test_code_that_a_folder_brings_is_not_run_and_reported(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "byte-level", "OwnTokenizer", auto_map={"AutoTokenizer": ["own.Own", None]})
    (folder / "own.py").write_text("raise SystemExit('run')")
    tokenizer = TextTokenizer(folder)
    assert tokenizer.encode("the") == TextTokenizer(folder_of(tmp_path / "b", "byte-level")).encode("the")
    assert "never run" in tokenizer.notices[0].message


# -- texts and prompts ------------------------------------------------------------------------------------------------
def ended(ids: list[int], reference: Any) -> list[int]:
    end = [] if reference.eos_token_id is None or ids[-1:] == [reference.eos_token_id] else [reference.eos_token_id]
    return [*ids, *end]


@given(text=LETTERS)
@RELAXED
def test_a_text_is_what_the_tokenizer_gives_and_its_end(pair: tuple[Any, TextTokenizer], text: str) -> None:
    reference, tokenizer = pair
    tokens = plain(Row(text=text), tokenizer)
    assert tokens.ids == ended(reference(text).input_ids, reference)
    assert tokens.trained[-1] is bool(text.strip())


@given(prompt=LETTERS, completion=LETTERS.filter(str.strip))
@RELAXED
def test_a_prompt_with_its_answer_is_their_whole_text_where_no_token_holds_both(
    pair: tuple[Any, TextTokenizer], prompt: str, completion: str
) -> None:
    reference, tokenizer = pair
    tokens = plain(Row(prompt=prompt, completion=completion), tokenizer)
    whole = reference(prompt + completion, return_offsets_mapping=True)
    across = any(start < len(prompt) < stop for start, stop in whole["offset_mapping"])
    if not across:
        assert tokens.border in ("", "blanks") and tokens.ids == ended(whole["input_ids"], reference)
    if tokens.border == "letters":
        question = question_ids(prompt, tokenizer, None, chat=False)
        assert tokens.ids[: len(question)] == question, "apart, as it is asked"
    answer, expected = (
        re.sub(r"\s|##", "", tokenizer.decode(ids)) for ids in (learned(tokens), tokenizer.encode(completion))
    )
    assert answer == expected, "all of the answer, and nothing of the prompt"


@given(prompt=LETTERS)
@RELAXED
def test_a_question_is_what_training_reads_before_an_answer(pair: tuple[Any, TextTokenizer], prompt: str) -> None:
    reference, tokenizer = pair
    question = question_ids(prompt, tokenizer, None, chat=False)
    row = Row(prompt=prompt.rstrip(), completion=" yes")
    assert prompt_ids(row, tokenizer, None) == question_ids(prompt.rstrip(), tokenizer, None, chat=False)
    whole = reference(prompt).input_ids
    assert whole[: len(question)] == question and all(
        token in tokenizer.special_ids for token in whole[len(question) :]
    )


def test_one_token_answers_are_learned_where_a_line_end_is_a_space(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(folder_of(tmp_path, "unigram"))
    for prompt, answer in (("Who is it?\n", "nobody"), ("Who is it?", "\nnobody"), ("Who is it?", " no"), ("a", "b")):
        tokens = plain(Row(prompt=prompt, completion=answer), tokenizer)
        assert tokenizer.decode(learned(tokens)).strip() == answer.strip()
        assert tokens.ids[-1] == 1 and tokens.ids.count(1) == 1, "one end, the tokenizer's own"


def test_a_text_with_its_own_begin_and_end_gets_no_second_ones(tmp_path: Path) -> None:
    adds = TextTokenizer(folder_of(tmp_path / "a", "byte-level, begin"))
    assert plain(Row(text="<s>the</s>"), adds).ids == [0, *adds.encode("the"), 1]
    assert plain(Row(text="the"), adds).ids == [0, *adds.encode("the"), 1]
    assert plain(Row(prompt="<s>the", completion=" old</s>"), adds).ids == [0, *adds.encode("the old"), 1]
    assert question_ids("<s>the", adds, None, chat=False) == [0, *adds.encode("the")]
    ends = TextTokenizer(folder_of(tmp_path / "b", "unigram"))
    assert plain(Row(text="the</s>"), ends).ids == [*ends.encode("the"), 1]
    none = TextTokenizer(folder_of(tmp_path / "c", "byte-level"))
    assert plain(Row(text="<s>the</s>"), none).ids == [0, *none.encode("the"), 1]


def test_config_puts_the_tokens_of_config_json_as_version_1_did(tmp_path: Path) -> None:
    bare = {"bos_token": None, "eos_token": None}
    tokenizer = TextTokenizer(folder_of(tmp_path, "byte-level", **bare))
    assert plain(Row(text="the"), tokenizer).ids == tokenizer.encode("the")
    assert plain(Row(text="the"), tokenizer, special_tokens="config").ids == [7, *tokenizer.encode("the"), 8]
    assert question_ids("the", tokenizer, None, chat=False, special_tokens="config") == [7, *tokenizer.encode("the")]


def test_a_tokenizer_without_an_end_token_is_reported(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "byte-level", eos_token=None)
    (tmp_path / "a.txt").write_text("the old mill\nthe river is red\n" * 4)
    summary = rows_summary(DataSettings(source=str(tmp_path / "a.txt")), str(folder), "causal_lm", 0)
    assert [notice.count for notice in summary.notices if "no end token" in notice.message] == [8]


def test_letters_of_prompt_and_answer_in_one_token_are_reported(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "byte-level")
    tokenizer = TextTokenizer(folder)
    assert len(tokenizer.encode("hello")) < len(tokenizer.encode("hel")) + len(tokenizer.encode("lo")), (
        "it merges across the border"
    )
    tokens = plain(Row(prompt="hel", completion="lo"), tokenizer)
    assert tokens.border == "letters" and learned(tokens) == [*tokenizer.encode("lo"), 1]
    blank = plain(Row(prompt="who: ", completion="yes"), tokenizer)
    assert blank.border == "blanks" and blank.ids == [*tokenizer.encode("who: yes"), 1]
    assert tokenizer.decode(learned(blank)) == " yes"
    counts = RowCounts(DataSettings())
    for tokenized, row in (
        (tokens, Row(prompt="hel", completion="lo")),
        (blank, Row(prompt="who: ", completion="yes")),
    ):
        counts.add(row, tokenized, tokenized.parts(64), tokenizer)
    apart, behind = counts.notices(tokenizer, sampled=False)
    assert (apart.field, apart.count) == (behind.field, behind.count) == ("data.separator", 1)
    assert "tokenized apart" in apart.message and "without that blank" in behind.message


def test_system_prompt_and_earlier_turns_stand_before_a_plain_prompt(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(folder_of(tmp_path, "byte-level"))
    row = Row(prompt="c:", completion=" d", system="be old", history=(("a", "b"),))
    assert plain(row, tokenizer, system_prompt="never").ids == [*tokenizer.encode("be old\na\nb\n\nc: d"), 1]
    assert plain(Row(prompt="c:", completion=" d"), tokenizer, system_prompt="hi").ids == [
        *tokenizer.encode("hi\nc: d"),
        1,
    ]
    assert learned(plain(row, tokenizer)) == [*tokenizer.encode(" d"), 1]


# -- classes ----------------------------------------------------------------------------------------------------------
@given(first=LETTERS, second=st.none() | LETTERS, limit=st.integers(8, 24))
@RELAXED
def test_a_text_with_a_class_is_cut_as_its_tokenizer_cuts(
    pair: tuple[Any, TextTokenizer], first: str, second: str | None, limit: int
) -> None:
    reference, tokenizer = pair
    row = Row(text=first, text_pair=second, label=1)
    tokens = encode_row(
        row, tokenizer, max_seq_length=limit, loss_on="auto", task="sequence_classification", system_prompt=None
    )
    expected = reference(first, second, truncation=True, max_length=limit)
    assert tokens.ids == expected["input_ids"] and tokens.label == 1
    if limit > 8:
        left = TextTokenizer.__new__(TextTokenizer)
        left.__dict__.update(tokenizer.__dict__)
        reference.truncation_side = "left"
        try:
            cut = reference(first, second, truncation=True, max_length=limit)["input_ids"]
        finally:
            reference.truncation_side = "right"
        left._opened = tokenizer._opened.__class__(
            **{name: getattr(tokenizer._opened, name) for name in tokenizer._opened.__slots__} | {"cut_left": True}
        )
        assert (
            encode_row(
                row, left, max_seq_length=limit, loss_on="auto", task="sequence_classification", system_prompt=None
            ).ids
            == cut
        )


def test_a_model_reads_which_text_of_a_pair_a_token_belongs_to(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "word pieces", "BertTokenizer", "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"type_vocab_size": 2}))
    tokenizer, rows = (
        TextTokenizer(folder),
        [Row(text="the mill", text_pair="the old river", label=0), Row(text="a", label=1)],
    )
    encoded = encode_set(rows, tokenizer, DataSettings(max_seq_length=8), "sequence_classification")
    expected = AutoTokenizer.from_pretrained(folder)("the mill", "the old river", truncation=True, max_length=8)
    assert encoded[0].ids == expected["input_ids"] and encoded[0].types == expected["token_type_ids"]
    assert encoded[1].types is None


def test_two_texts_of_a_pair_reach_the_model_apart() -> None:
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from tuning.training.batches import collate
    from tuning.training.loss import batch_logits

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = BertForSequenceClassification(BertConfig(vocab_size=20, **sizes)).eval()
    pair = EncodedRow(ids=[2, 5, 3, 6, 3], trained=[False] * 5, label=0, cut=False, types=[0, 0, 0, 1, 1])
    example = EncodedRow(ids=[2, 7, 3], trained=[False] * 3, label=1, cut=False)
    batch = collate([pair, example], pad_id=0, classes=True, packing=False, device=torch.device("cpu"))
    with torch.no_grad():
        logits = batch_logits(model, batch, classes=True)
        first = model(input_ids=torch.tensor([pair.ids]), token_type_ids=torch.tensor([pair.types])).logits
        second = model(input_ids=torch.tensor([example.ids])).logits
        mixed = model(input_ids=torch.tensor([pair.ids])).logits
    torch.testing.assert_close(logits, torch.cat([first, second]))
    assert not torch.allclose(first, mixed)


# -- long texts -------------------------------------------------------------------------------------------------------
@given(words=st.integers(1, 60), limit=st.integers(8, 20))
@RELAXED
def test_blocks_hold_each_token_of_a_long_text_once(pair: tuple[Any, TextTokenizer], words: int, limit: int) -> None:
    _, tokenizer = pair
    whole = plain(Row(text="the old mill " * words), tokenizer)
    parts = whole.parts(limit, "split")
    assert sum((part.ids for part in parts), []) == whole.ids
    assert len(parts) == max(1, -(-len(whole.ids) // limit))
    assert all(len(part.ids) <= limit and not part.cut for part in parts)
    assert all(part.trained_tokens == len(part.ids) - 1 for part in parts[1:]), "but the first of each is learned"
    assert all(part.trained_tokens for part in parts), "no block without anything to learn"
    (cut,) = whole.parts(limit, "cut")
    assert cut.ids == whole.ids[:limit]


def test_long_texts_and_their_blocks_are_reported_and_line_up(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "byte-level")
    (tmp_path / "a.txt").write_text("\n".join(["the old mill " * 30, *["the river is red"] * 9]))
    settings = DataSettings(source=str(tmp_path / "a.txt"), max_seq_length=32, eval_fraction=0.0)
    tokenizer = TextTokenizer(folder)
    count = -(-len(plain(Row(text="the old mill " * 30), tokenizer).ids) // 32)
    summary = rows_summary(settings, str(folder), "causal_lm", 0)
    assert summary.train_rows == len(summary.lengths) == 9 + count and summary.cut_rows == 0
    (notices,) = [notice for notice in summary.notices if notice.field == "data.max_seq_length"]
    assert (
        notices.count == 1 and f"1 of 10 texts are longer than 32 tokens and become {count} blocks" in notices.message
    )
    pairs = list(encode_pairs([Row(text="the old mill " * 30)], tokenizer, settings, "causal_lm"))
    assert len(pairs) == count
    assert "".join(row.text or "" for row, _ in pairs) == "the old mill " * 30
    assert all(tokenizer.decode(part.ids) == row.text for row, part in pairs)
    shown = preview(settings, "causal_lm", 0, tokenizer, 8)
    assert shown["lengths"]["blocks"] == summary.train_rows and shown["lengths"]["cut_rows"] == 0


def test_what_a_cut_drops_is_reported_by_its_share(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "byte-level")
    (tmp_path / "a.txt").write_text("\n".join(["the old mill " * 30, *["the river is red"] * 9]))
    settings = DataSettings(source=str(tmp_path / "a.txt"), max_seq_length=32, eval_fraction=0.0, long_text="cut")
    tokenizer = TextTokenizer(folder)
    summary = rows_summary(settings, str(folder), "causal_lm", 0)
    long, short = (len(plain(Row(text=text), tokenizer).ids) for text in ("the old mill " * 30, "the river is red"))
    (notices,) = [notice for notice in summary.notices if notice.field == "data.max_seq_length"]
    share = f"{100 * (long - 32) / (long + 9 * short):.2g} %"
    assert summary.train_rows == 10 and share in notices.message and notices.count == 1


def test_answers_that_are_cut_are_reported_by_count(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "byte-level")
    rows = [{"prompt": "who:", "completion": " " + "yes " * length} for length in (1, 1, 1, 40, 50)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = DataSettings(source=str(tmp_path / "a.jsonl"), max_seq_length=16, eval_fraction=0.0)
    summary = rows_summary(settings, str(folder), "causal_lm", 0)
    (notices,) = [notice for notice in summary.notices if notice.field == "data.max_seq_length"]
    assert notices.count == 2 and "2 answers are cut, 0 of them whole" in notices.message


def test_rows_with_nothing_to_learn_are_reported_by_count(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "byte-level")
    rows = [{"prompt": "who:", "completion": text} for text in (" yes", "", " no", "  ", " yes")]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    summary = rows_summary(
        DataSettings(source=str(tmp_path / "a.jsonl"), eval_fraction=0.0), str(folder), "causal_lm", 0
    )
    assert summary.train_rows == 3
    assert [notice.count for notice in summary.notices if "nothing to learn" in notice.message] == [2]


def test_unknown_tokens_and_rows_without_any_are_counted(tmp_path: Path) -> None:
    """A word tokenizer knows some words; without an unknown token it leaves out what it does not know."""
    folder = tiny_model("llama", tmp_path / "model")
    tiny_tokenizer(folder)
    texts = ["the cat sees", "the mill", "das Haus", "the"]
    rows = [{"text": text, "label": ("a", "b")[n % 2]} for n, text in enumerate(texts * 4)]
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = DataSettings(source=str(source), eval_fraction=0.0, max_seq_length=16)
    unknown = AutoTokenizer.from_pretrained(folder).unk_token_id
    theirs = [AutoTokenizer.from_pretrained(folder)(row["text"])["input_ids"].count(unknown) for row in rows]
    assert sum(theirs) == 12
    summary = rows_summary(data, str(folder), "sequence_classification", 0)
    assert [notice.count for notice in summary.notices if "are the unknown token" in notice.message] == [12]
    plain = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    plain["model"] = {"type": "BPE", "vocab": plain["model"]["vocab"], "merges": [], "unk_token": None}
    (folder / "tokenizer.json").write_text(json.dumps(plain), "utf-8")  # "a" is its only word of one letter
    summary = rows_summary(data.replace(max_seq_length=17), str(folder), "sequence_classification", 0)
    bare = sum("a" not in row["text"] for row in rows)
    assert [entry.count for entry in summary.notices if "become no token at all" in entry.message] == [bare]
    assert summary.train_rows == len(rows) - bare and not any("unknown" in notice.message for notice in summary.notices)


def test_rows_are_counted_again_where_the_tokenizer_of_the_same_folder_has_changed(tmp_path: Path) -> None:
    folder = tiny_model("llama", tmp_path / "model")
    tiny_tokenizer(folder)
    (tmp_path / "rows.jsonl").write_text('{"text": "the cat sees"}\n{"text": "the dog"}\n', encoding="utf-8")
    data = DataSettings(source=str(tmp_path / "rows.jsonl"), eval_fraction=0.0, max_seq_length=16)
    before = rows_summary(data, str(folder), "causal_lm", 0)
    tiny_tokenizer(folder, frame=True)
    after = rows_summary(data, str(folder), "causal_lm", 0)
    assert [n + 2 for n in before.lengths] == list(after.lengths)
