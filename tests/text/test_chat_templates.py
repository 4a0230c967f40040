"""Conversations have the ids of `apply_chat_template`, and what is learned of them is what an assistant says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer
from transformers.utils.chat_template_utils import render_jinja_template

from support.chat_shapes import SHAPES, chat_folder, marked, plain
from support.data_files import rows_summary
from tuning.core.errors import DataError
from tuning.core.paths import asset_path
from tuning.data import open_data
from tuning.plan.plan import plan_for
from tuning.settings.schema import DataSettings
from tuning.text import ConversationError, Row, TextTokenizer, TokenizedRow, Turn, encode_row, tokenize_rows
from tuning.text.prompts import prompt_ids, question_ids

MODEL = asset_path("models", "tiny-town")
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Mill"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": {}}}]


def turns(*turns_by_role: tuple[str, str]) -> tuple[Turn, ...]:
    return tuple(Turn(role, content) for role, content in turns_by_role)


NEXT = ("<|user|>", "<|observation|>")
TALKS: dict[str, Row] = {
    "one turn": Row(messages=turns(("user", "2+2?"), ("assistant", "It is 4."))),
    "many turns": Row(
        messages=turns(
            ("user", "2+2?"),
            ("assistant", "4."),
            ("user", "3+3?"),
            ("assistant", "6."),
            ("user", "Ok"),
            ("assistant", "4."),
        )
    ),
    "a system prompt": Row(messages=turns(("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."))),
    "two system prompts": Row(
        messages=turns(("system", "Be brief."), ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello."))
    ),
    "the end is a question": Row(messages=turns(("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"))),
    "an empty answer": Row(
        messages=turns(("user", "Hi"), ("assistant", ""), ("user", "Well?"), ("assistant", "Hello."))
    ),
    "thinking in several turns": Row(
        messages=turns(
            ("user", "2+2?"),
            ("assistant", "<think>\nTwo and two.\n</think>\n\nIt is 4."),
            ("user", "3+3?"),
            ("assistant", "<think>\nThree and three.\n</think>\n\nIt is 6."),
        )
    ),
    "reasoning beside the content": Row(
        messages=(
            Turn("user", "2+2?"),
            Turn("assistant", "It is 4.", extra=json.dumps({"reasoning_content": "Two and two."})),
            Turn("user", "3+3?"),
            Turn("assistant", "It is 6.", extra=json.dumps({"reasoning_content": "Three and three."})),
        )
    ),
    "a tool call and its result": Row(
        messages=(
            Turn("user", "Weather?"),
            Turn("assistant", "", extra=json.dumps({"tool_calls": [CALL]})),
            Turn("tool", "sunny", extra=json.dumps({"name": "weather", "tool_call_id": "1"})),
            Turn("assistant", "It is sunny."),
            Turn("user", "And now?"),
            Turn("assistant", "", extra=json.dumps({"tool_calls": [CALL], "reasoning_content": "Ask again."})),
            Turn("tool", "rain", extra=json.dumps({"name": "weather", "tool_call_id": "2"})),
            Turn("assistant", "Now it rains.", extra=json.dumps({"reasoning_content": "It changed."})),
        ),
        tools=json.dumps(TOOLS),
    ),
    "a turn that is not learned": Row(
        messages=(
            Turn("user", "2+2?"),
            Turn("assistant", "It is 5.", learned=False),
            Turn("user", "No."),
            Turn("assistant", "It is 4."),
        )
    ),
    "two answers in a row": Row(messages=turns(("user", "Hi"), ("assistant", "Hello."), ("assistant", "How are you?"))),
    "blanks around an answer": Row(
        messages=turns(("user", " Hi "), ("assistant", "  Hello there. \n"), ("user", "Ok"), ("assistant", "\nBye. "))
    ),
    "letters of all kinds": Row(messages=turns(("user", "Où? 中文"), ("assistant", "Là-bas é 文字 😀"))),
    "an answer said before": Row(messages=turns(("user", "Say Hello."), ("assistant", "Hello."), ("user", "Hello."))),
}


def messages(row: Row) -> list[dict[str, Any]]:
    return [turn.message() for turn in row.messages or ()]


def tokenized(row: Row, tokenizer: TextTokenizer, **changes: Any) -> TokenizedRow:
    how = {"loss_on": "auto", "task": "causal_lm", "system_prompt": None} | changes
    return tokenize_rows([row], tokenizer, **how)[0]


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Any, TextTokenizer]:
    ends = NEXT if request.param == "GLM" else ()
    folder = chat_folder(tmp_path_factory.mktemp("shape"), plain(SHAPES[request.param]), ends)
    return request.param, AutoTokenizer.from_pretrained(folder), TextTokenizer(folder)


def answer_spans(name: str, row: Row, reference: Any) -> list[tuple[int, int, Turn]]:
    """Where each assistant's turn stands, as a template says that is told where that is."""
    tools = json.loads(row.tools) if row.tools else None
    template = marked(SHAPES[name])
    (text,), (spans,) = render_jinja_template(
        [messages(row)],
        tools=tools,
        chat_template=template,
        return_assistant_tokens_mask=True,
        **reference.special_tokens_map,
    )
    assert text == reference.apply_chat_template(messages(row), tools=tools, tokenize=False)
    answers = [turn for turn in row.messages or () if turn.role == "assistant"]
    return [(start, stop, turn) for (start, stop), turn in zip(spans, answers, strict=True)]


def empty(turn: Turn) -> bool:
    return not turn.content.strip() and "tool_calls" not in turn.extra


@pytest.mark.parametrize("kind", TALKS)
def test_ids_and_masks_are_those_of_the_template(shape: tuple[str, Any, TextTokenizer], kind: str) -> None:
    name, reference, tokenizer = shape
    row = TALKS[kind]
    tools = json.loads(row.tools) if row.tools else None
    try:
        ids = reference.apply_chat_template(messages(row), tools=tools, return_dict=False)
    except Exception:
        with pytest.raises(ConversationError):
            tokenized(row, tokenizer)
        return
    tokens = tokenized(row, tokenizer)
    assert tokens.ids == ids
    text = reference.apply_chat_template(messages(row), tools=tools, tokenize=False)
    offsets = reference(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    expected = [False] * len(ids)
    for start, stop, turn in answer_spans(name, row, reference):
        called = "tool_calls" in turn.extra and "weather" in text[start:stop]
        if turn.learned and (turn.content.strip() or called):
            for index, (begin, _) in enumerate(offsets):
                expected[index] = expected[index] or start <= begin < stop
    expected_tokens, learned_tokens = (
        [reference.decode(ids[i]) for i, learned in enumerate(mask) if learned]
        for mask in (_ended(name, expected, reference.convert_ids_to_tokens(ids)), tokens.trained)
    )
    assert _stripped(learned_tokens) == _stripped(expected_tokens)


def _ended(name: str, mask: list[bool], tokens: list[str]) -> list[bool]:
    """GLM ends no answer itself: the next turn's first token, at which its model stops, is learned as the end."""
    pairs = zip([False, *mask], mask, tokens)
    return [learned or (name == "GLM" and before and token in NEXT) for before, learned, token in pairs]


def _stripped(tokens: list[str]) -> list[str]:
    """Blank tokens at the edge of an answer are learned or not as the renderings show; letters and ends always."""
    return [token for token in tokens if token.strip()]


@pytest.mark.parametrize("kind", TALKS)
def test_a_template_that_marks_its_answers_is_taken_at_its_word(tmp_path: Path, kind: str) -> None:
    row = TALKS[kind]
    for name in ("ChatML", "Qwen 3", "gpt-oss"):
        folder = chat_folder(tmp_path / name, marked(SHAPES[name]))
        reference, tokenizer = AutoTokenizer.from_pretrained(folder), TextTokenizer(folder)
        tools = json.loads(row.tools) if row.tools else None
        result = reference.apply_chat_template(
            messages(row), tools=tools, return_assistant_tokens_mask=True, return_dict=True
        )
        ours = tokenized(row, tokenizer)
        assert ours.ids == result["input_ids"]
        if name == "ChatML" and "tool_calls" in str(row.messages):
            continue  # it does not write them, so there is nothing to learn of such a turn
        if all(turn.learned and not empty(turn) for turn in row.messages or () if turn.role == "assistant"):
            assert ours.trained == [bool(token) for token in result["assistant_masks"]]


def test_the_bundled_template_is_that_of_transformers() -> None:
    reference, tokenizer = AutoTokenizer.from_pretrained(MODEL), TextTokenizer(MODEL)
    rows = list(open_data(DataSettings(source="chats"), "causal_lm", 0).train)
    for row in rows:
        result = reference.apply_chat_template(messages(row), return_assistant_tokens_mask=True, return_dict=True)
        ours = tokenized(row, tokenizer)
        assert ours.ids == result["input_ids"] and ours.trained == [bool(mask) for mask in result["assistant_masks"]]


def test_a_question_is_what_training_reads_before_the_answer(shape: tuple[str, Any, TextTokenizer]) -> None:
    _, reference, tokenizer = shape
    conversation = [{"role": "user", "content": "2+2?"}]
    ids = reference.apply_chat_template(conversation, add_generation_prompt=True, return_dict=False)
    assert question_ids("2+2?", tokenizer, None, chat=True) == ids
    pair = Row(prompt="2+2?", completion=" It is 4.")
    talk = TALKS["one turn"]
    assert tokenized(pair, tokenizer, chat=True) == tokenized(talk, tokenizer)
    before = prompt_ids(talk, tokenizer, None)
    assert prompt_ids(pair, tokenizer, None, chat=True) == before == ids[: len(before)]


def test_pairs_go_through_the_template_with_system_and_history(shape: tuple[str, Any, TextTokenizer]) -> None:
    name, reference, tokenizer = shape
    row = Row(prompt="3+3?", completion=" 6.", history=(("2+2?", "4."),), system="Be brief.")
    talk = [("system", "Be brief."), ("user", "2+2?"), ("assistant", "4."), ("user", "3+3?"), ("assistant", "6.")]
    if name == "Gemma":
        with pytest.raises(ConversationError, match="no system role"):
            tokenized(row, tokenizer, chat=True)
        return
    tokens = tokenized(row, tokenizer, chat=True)
    assert tokens.ids == reference.apply_chat_template(
        [{"role": role, "content": content} for role, content in talk], return_dict=False
    )
    assert tokens == tokenized(Row(messages=turns(*talk)), tokenizer)
    assert tokenized(row, tokenizer, chat=True, system_prompt="never").ids == tokens.ids, "the row's own goes before"


def test_last_turn_and_all_keep_their_meaning(shape: tuple[str, Any, TextTokenizer]) -> None:
    _, _, tokenizer = shape
    row = TALKS["many turns"]
    auto, last = tokenized(row, tokenizer), tokenized(row, tokenizer, loss_on="last_turn")
    first = next(i for i, trained in enumerate(last.trained) if trained)
    assert last.trained[first:] == auto.trained[first:] and not any(last.trained[:first]) and any(auto.trained[:first])
    assert all(tokenized(row, tokenizer, loss_on="all").trained)
    weighed = TALKS["a turn that is not learned"]
    tokens, whole = tokenized(weighed, tokenizer, loss_on="all"), tokenized(weighed, tokenizer)
    silent = [token for token, trained in zip(tokens.ids, tokens.trained, strict=True) if not trained]
    assert tokenizer.decode(silent).strip() in ("It is 5.", "finalIt is 5."), "an answer that is not learned never is"
    assert not any(all_of and not tokens.trained[i] for i, all_of in enumerate(whole.trained))
    learned = Row(messages=tuple(Turn(turn.role, turn.content, learned=False) for turn in weighed.messages or ()))
    assert tokenized(learned, tokenizer).trained == [False] * len(tokens.ids)


def test_every_answer_of_a_channel_template_is_learned_with_its_channel(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(chat_folder(tmp_path, plain(SHAPES["gpt-oss"])))

    def runs(row: Row) -> list[str]:
        tokens, texts = tokenized(row, tokenizer), list[list[int]]()
        for i, (token, trained) in enumerate(zip(tokens.ids, tokens.trained, strict=True)):
            if trained and not (i and tokens.trained[i - 1]):
                texts.append([])
            if trained:
                texts[-1].append(token)
        return [tokenizer._tokenizer.decode(text, skip_special_tokens=False) for text in texts]

    assert runs(TALKS["one turn"]) == ["<|channel|>final<|message|>It is 4.<|return|>"]
    assert runs(TALKS["many turns"]) == [
        "<|channel|>final<|message|>4.<|end|>",
        "<|channel|>final<|message|>6.<|end|>",
        "<|channel|>final<|message|>4.<|return|>",
    ]


# -- templates as the tokenizer has them ------------------------------------------------------------------------------
def with_config(parent: Path, template: Any, **config: Any) -> tuple[Any, TextTokenizer]:
    folder = chat_folder(parent, "")
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"chat_template": template} | config))
    return AutoTokenizer.from_pretrained(folder), TextTokenizer(folder)


LINES = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}\n{% endfor %}"
READ: dict[str, Any] = {
    "a named list": [{"name": "default", "template": LINES}, {"name": "tool_use", "template": "TOOLS" + LINES}],
    "tools are none": "{% if tools is not none %}TOOLS{% endif %}{% if documents is not none %}DOCS{% endif %}" + LINES,
    "all special tokens": "{{ unk_token }}{{ pad_token }}{{ cls_token }}" + LINES,
    "the date": "{{ strftime_now('%Y-%m-%d') }}" + LINES,
    "JSON with letters": "{{ messages | tojson }}{{ messages | tojson(indent=2) }}" + LINES,
    "JSON in its forms": "{{ tools | tojson(separators=(',', ':'), sort_keys=true) }}{{ dict(a=1) | tojson }}" + LINES,
    "a namespace": "{% set ns = namespace(n=1) %}{% for m in messages %}{% set ns.n = 2 %}{{ ns.n }}{% endfor %}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "blocks on lines": "{%- for m in messages %}\n  {% if m.role %}\n{{ m.content }}\n  {% endif %}\n{%- endfor %}",
    "undefined keys": "{% for m in messages %}{{ m.name }}{{ m['x'] }}{{ m.content }}{% endfor %}",
    "reasoning by another name": "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}{% endfor %}",
}


@pytest.mark.parametrize("tools", [None, TOOLS], ids=["without tools", "with tools"])
@pytest.mark.parametrize("what", READ)
def test_a_template_finds_what_transformers_gives_it(tmp_path: Path, what: str, tools: Any) -> None:
    reference, tokenizer = with_config(tmp_path, READ[what], unk_token="<unk>", cls_token="<|user|>")
    talk: list[dict[str, Any]] = [
        {"role": "user", "content": "<b>é</b> & 中"},
        {"role": "assistant", "content": "Yes.", "reasoning": "why", "name": None},
    ]
    assert tokenizer.render_chat(talk, False, tools) == reference.apply_chat_template(talk, tools=tools, tokenize=False)


def test_templates_lie_in_files_of_their_own(tmp_path: Path) -> None:
    folder = chat_folder(tmp_path, LINES)
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "tool_use.jinja").write_text("TOOLS" + LINES)
    reference, tokenizer = AutoTokenizer.from_pretrained(folder), TextTokenizer(folder)
    talk = [{"role": "user", "content": "Hi"}]
    for tools in (None, TOOLS):
        assert tokenizer.render_chat(talk, False, tools) == reference.apply_chat_template(
            talk, tools=tools, tokenize=False
        )


def test_a_list_without_a_default_is_refused_by_its_names(tmp_path: Path) -> None:
    _, tokenizer = with_config(tmp_path, [{"name": "rag", "template": LINES}])
    with pytest.raises(DataError, match="rag"):
        tokenizer.render_chat([{"role": "user", "content": "Hi"}], False)


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{% for %}", "{{ raise_exception('no') }}", "{{ messages.a.b }}"])
def test_a_template_that_fails_is_a_sentence(tmp_path: Path, template: str) -> None:
    _, tokenizer = with_config(tmp_path, template)
    with pytest.raises(ConversationError, match="chat template cannot write"):
        tokenizer.render_chat([{"role": "user", "content": "Hi"}], False)


def test_where_no_rendering_agrees_the_row_is_refused(tmp_path: Path) -> None:
    template = "{{ messages | length }}{% for m in messages %}{{ m.content | reverse }}{% endfor %}"
    tokenizer = TextTokenizer(chat_folder(tmp_path, template))
    with pytest.raises(ConversationError, match="rewrites earlier turns"):
        tokenized(TALKS["many turns"], tokenizer)


# -- what is told -----------------------------------------------------------------------------------------------------
def model_with(tmp_path: Path, template: str) -> Path:
    folder = chat_folder(tmp_path / "model-chat", template)
    return folder


def summary_of(
    tmp_path: Path, template: str, row: Row, count: int = 6, **changes: Any
) -> list[tuple[str, str, int | None]]:
    from tuning.data.row_counts import RowCounts

    tokenizer, chosen = TextTokenizer(model_with(tmp_path, template)), DataSettings(**changes)
    counts = RowCounts(chosen)
    for _ in range(count):
        tokens = tokenized(row, tokenizer, chat=chosen.chat_template == "on")
        counts.add(row, tokens, tokens.parts(chosen.max_seq_length), tokenizer)
    return [(notice.field, notice.message, notice.count) for notice in counts.notices(tokenizer, sampled=False)]


def test_keys_that_a_template_does_not_know_are_reported_by_count(tmp_path: Path) -> None:
    row = TALKS["a tool call and its result"]
    notices = summary_of(tmp_path, plain(SHAPES["ChatML"]), row, max_seq_length=512)
    counts = {message: count for field, message, count in notices if field == "data.chat_template"}
    assert counts["the chat template does not write tool_calls of 12 turns"] == 12
    assert counts["the chat template does not write tools of 6 conversations"] == 6
    assert counts["the chat template does not write reasoning_content of 12 turns"] == 12
    qwen = summary_of(tmp_path, plain(SHAPES["Qwen 3"]), row, max_seq_length=512)
    assert not any("tool_calls" in message or "tools" in message for _, message, _ in qwen)


def test_text_that_a_template_leaves_out_is_reported_by_count(tmp_path: Path) -> None:
    notices = summary_of(tmp_path, plain(SHAPES["R1"]), TALKS["thinking in several turns"], max_seq_length=512)
    assert [count for _, message, count in notices if "does not write all of 12 turns of assistant" in message] == [12]


def test_answers_without_an_end_are_reported(tmp_path: Path) -> None:
    notices = summary_of(tmp_path, plain(SHAPES["GLM"]), TALKS["one turn"], max_seq_length=512)
    assert [count for _, message, count in notices if "no end token" in message] == [6]
    assert not summary_of(tmp_path, plain(SHAPES["ChatML"]), TALKS["one turn"], max_seq_length=512)


def test_an_end_token_of_a_completion_is_not_written_twice_and_is_reported(tmp_path: Path) -> None:
    tokenizer, reference = TextTokenizer(MODEL), AutoTokenizer.from_pretrained(MODEL)
    end = reference.eos_token
    bare = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    expected = reference.apply_chat_template(bare, tokenize=False)
    for completion in (" Yo", f" Yo{end}", f" Yo{end}\n"):
        tokens = tokenized(Row(prompt="Hi", completion=completion), tokenizer, chat=True)
        assert tokens.ids == reference(expected, add_special_tokens=False)["input_ids"]
    twice = tokenized(Row(prompt="Hi", completion=f"Yo{end}{end}"), tokenizer, chat=True)
    assert twice.ids.count(reference.eos_token_id) == tokens.ids.count(reference.eos_token_id) + 1  # once, no more
    rows = [{"prompt": f"Hi {n}", "completion": f" Yo{end}" if n < 7 else " Yo"} for n in range(20)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = DataSettings(source=str(tmp_path / "a.jsonl"), chat_template="on", eval_fraction=0.0)
    notices = rows_summary(settings, MODEL, "causal_lm", 0).notices
    assert [notice.count for notice in notices if f"{end} as their last word" in notice.message] == [7]


def test_a_template_without_an_end_leaves_a_completion_its_own(tmp_path: Path) -> None:
    tokenizer = TextTokenizer(chat_folder(tmp_path, plain(SHAPES["GLM"])))
    assert tokenizer.end_text and not tokenizer.written_end
    tokens = tokenized(Row(prompt="Hi", completion=f"Yo{tokenizer.end_text}"), tokenizer, chat=True)
    assert tokens.ids[-1] == tokenizer.eos_id and tokens.trained[-1]


def test_an_end_token_in_the_words_of_a_conversation_is_kept_and_reported(tmp_path: Path) -> None:
    reference = AutoTokenizer.from_pretrained(MODEL)
    row = Row(messages=turns(("user", "Hi"), ("assistant", f"Yo{reference.eos_token}")))
    text = reference.apply_chat_template(messages(row), tokenize=False)
    assert tokenized(row, TextTokenizer(MODEL)).ids == reference(text, add_special_tokens=False)["input_ids"]
    talks = [{"messages": messages(row)}] * 9 + [{"messages": messages(TALKS["one turn"])}] * 9
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, talks)))
    settings = DataSettings(source=str(tmp_path / "a.jsonl"), eval_fraction=0.0)
    notices = rows_summary(settings, MODEL, "causal_lm", 0).notices
    assert [notice.count for notice in notices if "in the words of an answer" in notice.message] == [9]


def test_conversations_that_are_refused_are_left_out_by_count(tmp_path: Path) -> None:
    model = model_with(tmp_path, plain(SHAPES["Gemma"]))
    rows = [{"messages": messages(TALKS[kind])} for kind in ("one turn", "a system prompt", "many turns")] * 4
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    settings = DataSettings(source=str(tmp_path / "a.jsonl"), bad_rows="skip", eval_fraction=0.0)
    summary = rows_summary(settings, str(model), "causal_lm", 0)
    assert summary.train_rows == 8 and [
        notice.count for notice in summary.notices if notice.field == "data.bad_rows"
    ] == [4]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, str]]:
    """A file of pairs, and the same tiny model in folders whose names say what it is."""
    import shutil

    folder = tmp_path_factory.mktemp("pairs")
    rows = [{"prompt": f"What is {n}?", "completion": f" It is {n}."} for n in range(20)]
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    folders = {}
    for name in ("mini-instruct", "mini", "mini-base"):
        folders[name] = str(folder / name)
        shutil.copytree(MODEL, folder / name)
    return str(folder / "a.jsonl"), folders


@pytest.mark.parametrize(
    ("name", "setting", "chat", "words"),
    [
        ("mini-instruct", "auto", True, "through the model's chat template"),
        ("mini-instruct", "off", False, None),
        ("mini", "auto", False, "name does not say"),
        ("mini", "on", True, "through the model's chat template"),
        ("mini-base", "auto", False, None),
    ],
)
def test_pairs_of_chat_models_go_through_the_template_and_it_is_reported(
    pairs: tuple[str, dict[str, str]], name: str, setting: str, chat: bool, words: str | None
) -> None:
    source, folders = pairs
    data = {"source": source, "chat_template": setting}
    plan = plan_for({"model": folders[name], "data": data, "sample": {"prompts": ["What is 3?"]}})
    assert plan.chat is chat and plan.data_settings.chat_template == ("on" if chat else "off")
    notices = [notice.message for notice in plan.notices if notice.field == "data.chat_template"]
    assert (words is None and not notices) or (len(notices) == 1 and words is not None and words in notices[0])
    tokenizer = TextTokenizer(MODEL)
    assert plan.value("sample_length") == len(question_ids("What is 3?", tokenizer, None, chat=chat))
    row = Row(prompt="What is 3?", completion=" It is 3.")
    how: dict[str, Any] = {"loss_on": "auto", "task": "causal_lm", "system_prompt": None, "chat": chat}
    assert len(encode_row(row, tokenizer, max_seq_length=128, **how).ids) in plan.data.lengths


def test_a_template_that_is_not_there_is_refused(pairs: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "bare"
    shutil.copytree(MODEL, folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config.pop("chat_template")
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="no chat template") as caught:
        plan_for({"model": str(folder), "data": {"source": pairs[0], "chat_template": "on"}})
    assert caught.value.problems[0].field == "data.chat_template"


@pytest.mark.slow
def test_a_run_asks_through_the_template_as_it_trains(pairs: tuple[str, dict[str, str]], tmp_path: Path) -> None:
    from support.method_matrix import read_ids
    from support.tiny_jobs import run
    from tuning.training.job import Job

    data = {"source": pairs[0], "chat_template": "on", "eval_rows": 2}
    settings = {
        "model": pairs[1]["mini"],
        "data": data,
        "max_steps": 1,
        "micro_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "eval": {"metrics": ["exact_match"], "generate_rows": 2, "max_new_tokens": 3},
        "sample": {"prompts": ["What is 3?"]},
        "device": "cpu",
    }
    plan = plan_for(settings)
    with read_ids() as given:
        state, _ = run(Job(run_id="r", attempt=1, plan=plan, folder=str(tmp_path / "run")))
    assert state == "finished"
    tokenizer = TextTokenizer(MODEL)
    question = question_ids("What is 3?", tokenizer, None, chat=True)
    assert question in given, "a sample"
    row = next(iter(open_data(plan.data_settings, "causal_lm", 0).eval))
    before = prompt_ids(row, tokenizer, None, chat=True)
    assert before == question_ids(row.prompt or "", tokenizer, None, chat=True) and before in given, "exact match"
    trained = tokenized(row, tokenizer, chat=True).ids
    assert trained[: len(before)] == before and any(ids[: len(trained)] == trained for ids in given), "evaluation"
