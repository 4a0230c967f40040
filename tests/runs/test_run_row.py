"""Rows as tokens: what is trained on, what is cut, what a file may look like, what is told about a broken one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.data_files import rows_summary
from tuning.core.errors import DataError, TuningError
from tuning.core.paths import asset_path
from tuning.data import data_catalogue, open_data
from tuning.settings.schema import DataSettings
from tuning.text import Row, TextTokenizer, Turn, encode_row, tokenize_rows

MODEL = asset_path("models", "tiny-town")
TOKENIZER = TextTokenizer(MODEL)


def encode(row: Row, limit: int = 512, loss_on: str = "auto", task: str = "causal_lm", system: str | None = None):
    return encode_row(row, TOKENIZER, max_seq_length=limit, loss_on=loss_on, task=task, system_prompt=system)


def trained_text(row: Row, **options: object) -> str:
    encoded = encode(row, **options)  # type: ignore[arg-type]
    return TOKENIZER.decode([token for token, counts in zip(encoded.ids, encoded.trained) if counts])


def file_of(folder: Path, *rows: object) -> str:
    file = folder / "rows.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return str(file)


def opened(source: str, task: str = "causal_lm", **more: object):
    return open_data(DataSettings(source=source, **more), task, 0)  # type: ignore[arg-type]


@given(prompt=st.text(max_size=60), completion=st.text(min_size=1, max_size=60).filter(str.strip))
@example(prompt="who: ", completion="yes")
@settings(max_examples=150, deadline=None)
def test_the_mask_covers_exactly_the_response(prompt: str, completion: str) -> None:
    """With the blanks at the end of the prompt, where the answer's first word begins in their token."""
    row = Row(prompt=prompt, completion=completion)
    text, learned = TOKENIZER.decode(TOKENIZER.encode(completion)), trained_text(row)
    assert learned.endswith(text)
    (tokenized,) = tokenize_rows([row], TOKENIZER, loss_on="auto", task="causal_lm", system_prompt=None)
    before = learned.removesuffix(text)
    assert prompt[len(prompt.rstrip()) :].endswith(before) and (tokenized.border == "blanks") == bool(before)
    assert trained_text(row, loss_on="all") == TOKENIZER.decode(TOKENIZER.encode(prompt) + TOKENIZER.encode(completion))


def test_conversations_train_on_answers_and_last_turn_on_the_last_one_only() -> None:
    turns = (
        Turn("user", "Where is the mill?"),
        Turn("assistant", "By the river."),
        Turn("user", "And?"),
        Turn("assistant", "Old."),
    )
    row = Row(messages=turns)
    assert "By the river." in trained_text(row) and "Old." in trained_text(row)
    assert "mill" not in trained_text(row)
    last = trained_text(row, loss_on="last_turn")
    assert "Old." in last and "river" not in last
    assert "mill" in trained_text(row, loss_on="all")
    whole = TOKENIZER.decode(encode(row).ids)
    parts = [{"role": role, "content": content} for role, content in ((turn.role, turn.content) for turn in turns)]
    assert whole == TOKENIZER.decode(TOKENIZER.encode(TOKENIZER.render_chat(parts, False)))


def test_a_long_prompt_never_cuts_its_answer_away() -> None:
    encoded = encode(Row(prompt="The old mill stands by the river. " * 40, completion=" Yes."), limit=32)
    assert encoded.cut and len(encoded.ids) <= 32
    assert "Yes" in TOKENIZER.decode([token for token, counts in zip(encoded.ids, encoded.trained) if counts])
    assert not encode(Row(prompt="Short", completion=" Yes."), limit=32).cut


def test_every_bundled_set_opens_and_has_something_to_learn() -> None:
    cards = data_catalogue()
    assert {card["name"] for card in cards} >= {"reviews", "topics", "pirate", "passages", "chats", "retention"}
    for card in cards:
        summary = rows_summary(DataSettings(source=card["name"], max_seq_length=512), str(MODEL), "causal_lm", 0)
        assert summary.train_rows >= 20 and min(summary.trained_tokens) >= 1
        assert len(set(summary.lengths)) > 3, "equal rows would hide accumulation mistakes"


def test_the_split_is_made_by_the_seed_and_label_by_label(tmp_path: Path) -> None:
    rows = [{"text": f"row {n}", "label": "a" if n % 4 else "b"} for n in range(100)]
    data = opened(file_of(tmp_path, *rows), eval_fraction=0.2)
    assert len(data.train) == 80 and len(data.eval) == 20
    assert sum(row.label == 1 for row in data.eval) == 5
    assert not {row.prompt for row in data.train} & {row.prompt for row in data.eval}
    assert list(opened(file_of(tmp_path, *rows), eval_fraction=0.2).eval) == list(data.eval)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (['{"text"'], "not JSON"),
        (['{"text": "a"}', "[1]"], "line 2"),
        ([{"n": 1, "m": 2, "k": 3}], "data.columns"),
        ([{"text": "a"}, {"text": None}], "line 2"),
        ([{"messages": []}], "line 1"),
        ([{"text": "a", "label": "x"}, {"text": "b", "label": "x"}], "one value only"),
        ([""], "no rows"),
    ],
)
def test_broken_files_are_reported_with_the_place(tmp_path: Path, rows: list[object], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        opened(file_of(tmp_path, *rows))
    assert caught.value.problems[0].field.startswith("data.")


def test_byte_order_mark_windows_lines_and_numbers_as_labels(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + b'{"text": "good", "label": 1}\r\n\r\n{"text": "bad", "label": 0}\r\n' * 5)
    data = opened(str(file), task="sequence_classification", eval_fraction=0.0)
    assert data.label_names == ("0", "1") and len(data.train) == 10
    file.write_bytes('{"text": "caf\u00e9"}'.encode("latin-1"))
    with pytest.raises(DataError, match="UTF-8"):
        opened(str(file))


def test_a_changed_file_is_counted_anew(tmp_path: Path) -> None:
    source = file_of(tmp_path, *({"text": f"row {n}"} for n in range(10)))
    first = rows_summary(DataSettings(source=source), str(MODEL), "causal_lm", 0)
    file_of(tmp_path, *({"text": f"row {n}"} for n in range(30)))
    assert rows_summary(DataSettings(source=source), str(MODEL), "causal_lm", 0).train_rows > first.train_rows


def test_columns_and_template_are_the_persons_choice(tmp_path: Path) -> None:
    source = file_of(tmp_path, *({"q": f"What is {n}?", "a": str(n)} for n in range(10)))
    data = opened(source, columns={"prompt": "q", "completion": "a"})
    assert data.train[0].prompt == "What is 0?" and data.train[0].completion == "0", "joined as written"
    with pytest.raises(DataError, match="cannot be column"):
        opened(source, columns={"prompt": "question", "completion": "a"})
    rated = file_of(tmp_path, *({"text": f"meal {n}", "label": "good" if n % 2 else "bad"} for n in range(10)))
    data = opened(rated, text_template="Review: {text}\nVerdict:")
    assert data.train[0].prompt.startswith("Review: meal") and data.train[0].completion in (" good", " bad")
    with pytest.raises(DataError, match="placeholders"):
        opened(rated, text_template="{body}")


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["text", "label", "prompt", "completion", "messages"]),
            st.none() | st.text() | st.integers() | st.lists(st.text()),
        ),
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_rows_give_data_or_the_documented_error(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:
    source = file_of(tmp_path_factory.mktemp("rows"), *rows)
    try:
        rows_summary(DataSettings(source=source), str(MODEL), "causal_lm", 0)
    except TuningError as error:
        assert error.problems and error.problems[0].message
