"""Conversations as people have them: whose turn it is, what is learned, what calls tools, and what is told of it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.core.errors import DataError
from tuning.data import DataSet, open_data
from tuning.data.conversations import turns_of
from tuning.data.notices import NoticeCounts
from tuning.data.values import RowError
from tuning.settings.schema import DataSettings
from tuning.text import Row, Turn

ASKED = {"role": "user", "content": "Two plus two?"}
SAID = {"role": "assistant", "content": "Four."}
CALL = {"id": "a1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "CET"}'}}
CLOCK = {"type": "function", "function": {"name": "clock", "parameters": {"type": "object", "properties": {}}}}


def file_of(folder: Path, *rows: Any) -> str:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / "rows.jsonl")


def opened(folder: Path, *rows: Any, **more: Any) -> DataSet:
    """Of JSON Lines, also where one row alone looks like a document."""
    chosen = DataSettings(source=file_of(folder, *rows), format="jsonl", eval_fraction=0.0, **more)
    return open_data(chosen, "causal_lm", 0)


def only(folder: Path, row: dict[str, Any], **more: Any) -> Row:
    (found,) = opened(folder, row, **more).train
    return found


def said_of(data: DataSet) -> dict[str, int | None]:
    return {one.message: one.count for one in data.notices}


def learned(row: Row) -> list[str]:
    return [turn.content for turn in row.messages or () if turn.role == "assistant" and turn.learned]


# -- which turns ------------------------------------------------------------------------------------------------------
def test_of_a_prompt_and_a_completion_as_turns_the_completion_is_learned(tmp_path: Path) -> None:
    asked_again = {"role": "user", "content": "Plus one?"}
    row = {"prompt": [ASKED, SAID, asked_again], "completion": [{"role": "assistant", "content": "Five."}]}
    data = opened(tmp_path, row, row)
    first = data.train[0]
    assert data.shape == "conversation" and data.columns == {"prompt": "prompt", "completion": "completion"}
    assert [turn.content for turn in first.messages or ()] == ["Two plus two?", "Four.", "Plus one?", "Five."]
    assert learned(first) == ["Five."]
    assert said_of(data)["2 earlier answers stand in prompts and are only read; completions are learned."] == 2
    one_turn = only(tmp_path, {"prompt": [ASKED], "completion": [SAID]})
    assert one_turn.messages == (Turn("user", "Two plus two?"), Turn("assistant", "Four."))


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Two plus two?", "completion": [SAID]},
        {"prompt": [ASKED], "completion": "Four."},
        {"prompt": [ASKED], "response": [SAID]},
        {"prompt": [ASKED], "rejected": [{"role": "assistant", "content": "Five."}], "chosen": [SAID]},
        {"question": "Two plus two?", "rejected": [{"role": "assistant", "content": "Five."}], "chosen": [SAID]},
    ],
)
def test_a_prompt_or_a_completion_may_be_a_text_beside_turns(tmp_path: Path, row: dict[str, Any]) -> None:
    assert only(tmp_path, row).messages == (Turn("user", "Two plus two?"), Turn("assistant", "Four."))


def test_of_a_wanted_and_an_unwanted_conversation_the_wanted_is_learned_wherever_it_stands(tmp_path: Path) -> None:
    bad = {"role": "assistant", "content": "No idea, go away."}
    for row in (
        {"rejected": [ASKED, bad], "chosen": [ASKED, SAID]},
        {"prompt": "Two plus two?", "chosen": [ASKED, SAID], "rejected": [ASKED, bad]},
        {"messages": [ASKED, SAID], "rejected": [ASKED, bad], "chosen": [ASKED, SAID]},
    ):
        data = opened(tmp_path, row)
        assert data.columns == {"messages": "chosen"} and learned(data.train[0]) == ["Four."]
        assert any("not used" in message and "'rejected'" in message for message in said_of(data))


def test_two_columns_of_conversations_are_asked_about(tmp_path: Path) -> None:
    other = [ASKED, {"role": "assistant", "content": "4"}]
    for row in ({"conversation_a": [ASKED, SAID], "conversation_b": other}, {"rejected": [ASKED, SAID], "n": 1}):
        with pytest.raises(DataError, match="conversations are in .*say which with data.columns") as caught:
            opened(tmp_path, row)
        assert caught.value.problems[0].field == "data.columns"
    row = {"conversation_a": [ASKED, SAID], "conversation_b": other}
    assert learned(only(tmp_path, row, columns={"messages": "conversation_b"})) == ["4"]
    with pytest.raises(DataError, match="conversations are in messages, chosen"):
        opened(tmp_path, {"messages": other, "chosen": [ASKED, SAID], "rejected": [ASKED, SAID]})


# -- whose turn -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("user", "assistant"),
    [
        ("User", "Assistant"),
        ("HUMAN", "GPT"),
        ("human", "gpt"),
        ("prompter", "bot"),
        (" user", "AI"),
        ("user", "model"),
    ],
)
def test_roles_are_known_in_any_case_and_in_other_words_and_are_told(tmp_path: Path, user: str, assistant: str) -> None:
    row = {"messages": [ASKED | {"role": user}, SAID | {"role": assistant}]}
    data = opened(tmp_path, row, {"messages": [ASKED, SAID]})
    assert [row.messages for row in data.train] == [(Turn("user", "Two plus two?"), Turn("assistant", "Four."))] * 2
    (message,) = (message for message in said_of(data) if "in another word" in message)
    assert f"{assistant!r} read as assistant (1)" in message


def test_an_unknown_role_is_named_and_counted(tmp_path: Path) -> None:
    strange = {"messages": [ASKED, {"role": "Narrator", "content": "Silence."}]}
    rows = [{"messages": [ASKED, SAID]}, strange, strange]
    with pytest.raises(DataError, match="2 rows .* line 2 turn 2 of messages has the unknown role 'Narrator'"):
        opened(tmp_path, *rows)
    data = opened(tmp_path, *rows, bad_rows="skip")
    assert len(data.train) == 1
    (bad,) = (one for one in data.notices if one.field == "data.bad_rows")
    assert bad.count == 2 and "a turn of messages has the unknown role 'Narrator'; known are" in bad.message


def test_system_turns_where_none_is_expected_are_told(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be kind."}
    rows = [[system, ASKED, SAID], [system, system, ASKED, SAID], [ASKED, system, SAID]]
    data = opened(tmp_path, *({"messages": turns} for turns in rows))
    told = said_of(data)
    assert told["1 conversations have more than one system turn; all stay where they are."] == 1
    assert told["1 conversations have a system turn that is not the first turn; it stays there."] == 1
    assert told["2 conversations begin with a system turn of their own, read in place of data.system_prompt."] == 2


def test_a_system_column_is_the_rows_own_prompt_and_gives_way_to_a_system_turn(tmp_path: Path) -> None:
    share = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Arr"}]
    own = [{"from": "system", "value": "Be kind."}, *share]
    rows = [(share, "You are a pirate."), (share, None), (own, "You are a pirate.")]
    data = opened(tmp_path, *({"conversations": turns, "system": system} for turns, system in rows))
    assert data.columns == {"messages": "conversations", "system": "system"}
    assert [row.system for row in data.train] == ["You are a pirate.", None, None]
    told = said_of(data)
    assert told["1 rows have a system prompt of their own, read in place of data.system_prompt."] == 1
    assert any("have a system column too; the turn is read" in message for message in told)
    named = opened(tmp_path, {"conversations": share, "system": "x"}, columns={"messages": "conversations"})
    assert named.train[0].system is None and "1 column is not used: 'system'." in said_of(named)


# -- what is learned --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "mark", [{"weight": 0}, {"weight": 0.0}, {"loss_weight": 0}, {"train": False}, {"loss": False}, {"weight": "0"}]
)
def test_an_answer_that_is_marked_so_is_not_learned(tmp_path: Path, mark: dict[str, Any]) -> None:
    on = {key: 1 for key in mark}
    turns = [ASKED, {"role": "assistant", "content": "Green."} | mark, ASKED, SAID | on]
    data = opened(tmp_path, {"messages": turns}, {"messages": turns})
    assert learned(data.train[0]) == ["Four."]
    ((message, count),) = (
        (message, count) for message, count in said_of(data).items() if "not to be learned" in message
    )
    assert count == 2 and message.startswith("2 answers are marked as not to be learned")


@pytest.mark.parametrize(("name", "mask"), [("loss_mask", [0, 0, 0, 1]), ("masks", [0, 1]), ("mask", "[0, 0, 0, 1]")])
def test_a_rows_own_marks_say_what_is_learned(tmp_path: Path, name: str, mask: Any) -> None:
    row = {"messages": [ASKED, {"role": "assistant", "content": "Green."}, ASKED, SAID], name: mask}
    assert learned(only(tmp_path, row)) == ["Four."]
    with pytest.raises(DataError, match="has 3 marks for 4 turns"):
        opened(tmp_path, row, row | {name: [1, 1, 1]})
    assert learned(only(tmp_path, row | {name: 0})) == [] or name == "masks"


def test_other_weights_other_marks_and_unknown_keys_are_told(tmp_path: Path) -> None:
    turns = [
        ASKED | {"weight": 1, "id": 7},
        SAID | {"weight": 0.5, "mood": "dry"},
        ASKED | {"weight": 0},
        SAID | {"loss": "low"},
    ]
    data = opened(tmp_path, {"messages": turns})
    told = said_of(data)
    assert learned(data.train[0]) == ["Four.", "Four."]
    assert told["1 answers have a weight that is neither 0 nor 1 (0.5 (1)); it is read as 1."] == 1
    assert any(message.startswith("1 turns that are no answers are marked as to be learned") for message in told)
    assert told["Turns carry keys that are not used: 'id' (1), 'mood' (1)."] == 2
    assert any("neither a number nor true or false: 'low' (1)" in message for message in told)


def test_empty_answers_are_told(tmp_path: Path) -> None:
    data = opened(tmp_path, {"messages": [ASKED, SAID | {"content": " "}, ASKED, SAID]})
    assert said_of(data)["1 answers in conversations are empty and are not learned."] == 1


# -- tools ------------------------------------------------------------------------------------------------------------
def test_tool_calls_and_tools_are_kept_as_chat_templates_take_them(tmp_path: Path) -> None:
    result = {"role": "tool", "tool_call_id": "a1", "content": "9:30"}
    calling = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    data = opened(tmp_path, {"messages": [ASKED, calling, result, SAID], "tools": [CLOCK]})
    row = data.train[0]
    assert [turn.message() for turn in row.messages or ()] == [
        ASKED,
        calling | {"tool_calls": [CALL | {"function": {"name": "clock", "arguments": {"zone": "CET"}}}]},
        result,
        SAID,
    ]
    assert json.loads(row.tools or "") == [CLOCK] and hash(row) is not None
    told = said_of(data)
    assert told["1 tool calls have their arguments as JSON text; they are read as objects."] == 1
    assert any(message.startswith("1 answers call tools") for message in told)
    assert any(message.startswith("1 conversations bring tools") for message in told)
    assert not any("empty" in message for message in told)


@pytest.mark.parametrize(
    "calling",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": [CALL]},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": "", "function_call": CALL["function"]},
        {"from": "function_call", "value": '{"name": "clock", "arguments": {"zone": "CET"}}'},
        {"from": "function_call", "value": '[{"name": "clock", "parameters": {"zone": "CET"}}]'},
        {"role": "tool_call", "content": '{"name": "clock", "arguments": "{\\"zone\\": \\"CET\\"}"}'},
    ],
)
def test_a_call_in_any_spelling_is_an_answer_that_calls(tmp_path: Path, calling: dict[str, Any]) -> None:
    turns = [ASKED, calling, {"from": "observation", "value": "9:30"}, {"from": "gpt", "value": "Half past nine."}]
    row = only(tmp_path, {"conversations": turns})
    assert [turn.role for turn in row.messages or ()] == ["user", "assistant", "tool", "assistant"]
    call = (row.messages or ())[1].message()
    assert call["content"] == "" and (row.messages or ())[1].learned
    assert [one["function"] for one in call["tool_calls"]] == [{"name": "clock", "arguments": {"zone": "CET"}}]


def test_what_is_called_a_call_and_is_none_is_learned_as_written_and_told(tmp_path: Path) -> None:
    turns = [{"from": "human", "value": "Time?"}, {"from": "function_call", "value": "clock(CET)"}]
    data = opened(tmp_path, {"conversations": turns})
    assert learned(data.train[0]) == ["clock(CET)"]
    assert any(message.startswith("1 turns are calls of tools by their role, but no JSON") for message in said_of(data))


@pytest.mark.parametrize("tools", [[{"name": "clock"}], '[{"name": "clock"}]', {"name": "clock"}])
def test_tools_are_read_from_lists_objects_and_json_text(tmp_path: Path, tools: Any) -> None:
    data = opened(tmp_path, {"messages": [ASKED, SAID], "tools": tools})
    assert json.loads(data.train[0].tools or "") == [{"type": "function", "function": {"name": "clock"}}]
    assert any(message.startswith("1 tools are no more than a function") for message in said_of(data))


def test_rows_without_tools_have_none_and_broken_ones_are_bad(tmp_path: Path) -> None:
    row = {"messages": [ASKED, SAID]}
    rows = [row | {"tools": tools} for tools in ([CLOCK], [], None, "", "[]")]
    assert [one.tools is None for one in opened(tmp_path, *rows).train] == [False, True, True, True, True]
    with pytest.raises(DataError, match="column 'tools' is no list of tools"):
        opened(tmp_path, *rows, row | {"tools": "clock"})


@pytest.mark.parametrize("key", ["reasoning_content", "thinking", "reasoning"])
def test_reasoning_stays_with_its_answer(tmp_path: Path, key: str) -> None:
    data = opened(tmp_path, {"messages": [ASKED, SAID | {key: "Count."}]})
    message = (data.train[0].messages or ())[1].message()
    assert message == SAID | {"reasoning_content" if key == "reasoning" else key: "Count."}
    assert any(message.startswith("1 answers carry their reasoning") for message in said_of(data))


# -- forms ------------------------------------------------------------------------------------------------------------
def test_texts_of_content_parts_are_joined_and_pictures_are_left_out_by_count(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "Two plus "}, {"type": "text", "text": "two?"}]
    answer = SAID | {"content": [{"type": "text", "text": "Four."}]}
    data = opened(tmp_path, {"messages": [ASKED | {"content": parts}, answer]})
    assert data.train[0].messages == (Turn("user", "Two plus two?"), Turn("assistant", "Four."))
    assert said_of(data)["2 turns are lists of parts; the texts of the parts are joined."] == 2
    parts = [{"type": "image"}, *parts, {"type": "image_url", "image_url": {"url": "a.png"}}, {"type": "image"}]
    data = opened(tmp_path, {"messages": [ASKED | {"content": parts}, answer]})
    assert data.train[0].messages == (Turn("user", "Two plus two?"), Turn("assistant", "Four."))
    left = "3 content parts are no texts and are left out of their turns: 'image' (2), 'image_url' (1)."
    assert said_of(data)[left] == 3


@pytest.mark.parametrize(
    "parts, reason",
    [
        ([{"type": "image"}], "has no content part with a text, only 'image'"),
        ([{"type": "image"}, {"type": "text", "text": " "}], "has no content part with a text, only 'image'"),
        ([{"type": "text"}], "has a content part of type 'text' without a text"),
        ([{"type": "text", "text": 3}], "has a content part of type 'text' without a text"),
        ([3], "has a content part of type 'int' without a text"),
    ],
)
def test_a_turn_without_any_text_makes_a_bad_row(tmp_path: Path, parts: list[Any], reason: str) -> None:
    with pytest.raises(DataError, match=f"line 2 turn 1 of messages {reason}"):
        opened(tmp_path, {"messages": [ASKED, SAID]}, {"messages": [ASKED | {"content": parts}, SAID]})


def test_turns_are_read_from_structs_of_lists_and_from_json_text(tmp_path: Path) -> None:
    turns = (Turn("user", "hi"), Turn("assistant", "yo"))
    assert only(tmp_path, {"conversations": {"from": ["human", "gpt"], "value": ["hi", "yo"]}}).messages == turns
    with open(tmp_path / "rows.csv", "w", newline="") as out:
        cells = csv.writer(out)
        cells.writerow(["messages", "id"])
        for number in range(4):
            cells.writerow(
                [json.dumps([{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]), number]
            )
    data = open_data(DataSettings(source=str(tmp_path / "rows.csv"), eval_fraction=0.0), "causal_lm", 0)
    assert data.columns == {"messages": "messages"} and [row.messages for row in data.train] == [turns] * 4


def test_keys_that_parquet_fills_with_nothing_are_no_keys(tmp_path: Path) -> None:
    from pyarrow import parquet, table

    turns = [ASKED | {"tool_calls": None, "name": None, "weight": None}, SAID | {"tool_calls": [], "name": None}]
    calls = [{"id": "a", "function": {"name": "clock", "arguments": "{}"}}]
    calling = {"role": "assistant", "content": "", "tool_calls": calls, "name": None}
    parquet.write_table(table({"messages": [turns, [*turns, ASKED, calling]]}), tmp_path / "rows.parquet")
    data = open_data(DataSettings(source=str(tmp_path / "rows.parquet"), eval_fraction=0.0), "causal_lm", 0)
    assert data.train[0].messages == (Turn("user", "Two plus two?"), Turn("assistant", "Four."))
    assert not any("keys" in message for message in said_of(data))


@pytest.mark.parametrize(
    "history",
    [
        [["Weather in summer?", "Sun."]],
        '[["Weather in summer?", "Sun."]]',
        [{"question": "Weather in summer?", "answer": "Sun."}],
        [{"role": "user", "content": "Weather in summer?"}, {"role": "assistant", "content": "Sun."}],
    ],
)
def test_history_is_earlier_questions_with_their_answers(tmp_path: Path, history: Any) -> None:
    row = {"instruction": "And in winter?", "output": "Snow.", "history": history}
    assert only(tmp_path, row).history == (("Weather in summer?", "Sun."),)
    with pytest.raises(DataError, match="column 'history' is no list of questions with their answers"):
        opened(tmp_path, row, row | {"history": [["one"]]})


PLAIN = st.sampled_from([None, True, 0, 0.5, float("nan"), "", "user", "gpt", "[]", '{"name": "f"}', "\ud800"])
OBJECTS = st.dictionaries(st.sampled_from(["type", "text", "function", "name", "arguments"]), PLAIN, max_size=3)
VALUES = PLAIN | OBJECTS | st.lists(PLAIN | OBJECTS, max_size=2)
KEYS = st.sampled_from(
    ["role", "from", "content", "value", "tool_calls", "function_call", "weight", "train", "name", "thinking", "mood"]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=6), max_size=4))
def test_any_turns_are_read_or_are_a_fault_in_words(turns: list[Any]) -> None:
    try:
        found = turns_of(turns, "messages", NoticeCounts())
    except RowError as fault:
        assert str(fault)
        return
    assert len(found) == len(turns)
    for turn in found:
        turn.message(), hash(turn)
        assert turn.role in ("user", "assistant", "system", "tool")


def test_json_in_a_cell_with_a_key_twice_is_a_bad_row(tmp_path: Path) -> None:
    """The last of the two was kept, and nothing said."""
    import csv

    good = '[{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "There."}]'
    twice = good.replace('"content": "There."', '"content": "There.", "content": "Nowhere."')
    with open(tmp_path / "talks.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["messages"], *[[good]] * 9, [twice]])
    with pytest.raises(DataError, match="has the key 'content' twice"):
        open_data(DataSettings(source=str(tmp_path / "talks.csv"), eval_fraction=0.0), "causal_lm", 0)
