"""Which column is read as what: right, or asked; never an address or an identifier; and what is told of it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from support.data_files import rows_summary
from tuning.cli import main
from tuning.core.errors import DataError
from tuning.core.paths import asset_path
from tuning.data import open_data
from tuning.data.files.lines import head, open_table
from tuning.data.preview.preview import preview
from tuning.data.values import MISSING_WORDS, is_missing
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer

ROWS = 40
TOKENIZER = TextTokenizer(asset_path("models", "tiny-town"))
WORDS = [
    "mill",
    "river",
    "baker",
    "bread",
    "market",
    "weather",
    "house",
    "always",
    "never",
    "green",
    "small",
    "the",
    "and",
]


def made(kind: str, draw: random.Random, row: int) -> Any:
    """A value as such columns have them."""
    prose = " ".join(draw.choices(WORDS, k=draw.randrange(6, 20))) + "."
    turns = [{"role": "user", "content": prose}, {"role": "assistant", "content": "Yes."}]
    return {
        "prose": prose,
        "two": ["no", "yes"][row % 2],
        "zero-one": row % 2,
        "four": row % 4 + 1,
        "truth": row % 2 == 0,
        "truths": ["True", "False"][row % 2],
        "url": f"https://example.org/town/{row}.html",
        "id": f"x{row:05d}",
        "count": row,
        "number": round(draw.random() * 100, 3),
        "date": f"2019-0{row % 9 + 1}-1{row % 10} 10:0{row % 10}:00",
        "name": f"{draw.choice(WORDS).title()} {draw.choice(WORDS).title()}",
        "word": draw.choice(WORDS),
        "same": "NO_QUERY",
        "empty": None,
        "list": [prose],
        "object": {"text": [prose], "answer_start": [3]},
        "turns": turns,
        "answer": turns[1:],
    }[kind]


TEXT, CLASS = "causal_lm", "sequence_classification"
ASKED: dict[str, str] = {}
HEADERS: list[tuple[str, str, dict[str, str], dict[str, str] | None]] = [
    ("imdb", "text:prose label:zero-one", {"text": "text", "label": "label"}, None),
    ("yelp", "label:four text:prose", {"text": "text", "label": "label"}, None),
    ("sst2", "idx:count sentence:prose label:zero-one", {"text": "sentence", "label": "label"}, None),
    (
        "mrpc",
        "sentence1:prose sentence2:prose label:zero-one idx:count",
        ASKED,
        {"text": "sentence1", "text_pair": "sentence2", "label": "label"},
    ),
    (
        "mnli",
        "premise:prose hypothesis:prose label:four",
        ASKED,
        {"text": "premise", "text_pair": "hypothesis", "label": "label"},
    ),
    (
        "quora",
        "id:count qid1:count qid2:count question1:prose question2:prose is_duplicate:zero-one",
        ASKED,
        {"text": "question1", "text_pair": "question2", "label": "is_duplicate"},
    ),
    ("duplicates", "question1:prose question2:prose", ASKED, ASKED),
    (
        "squad",
        "id:id title:name context:prose question:prose answers:object",
        {"prompt": "question", "completion": "answers", "input": "context"},
        ASKED,
    ),
    ("cnn", "article:prose highlights:prose id:id", ASKED, ASKED),
    ("xsum", "document:prose summary:prose id:count", ASKED, ASKED),
    ("billsum", "text:prose summary:prose title:name", ASKED, ASKED),
    ("samsum", "id:count dialogue:prose summary:prose", ASKED, ASKED),
    (
        "sarcasm",
        "article_link:url headline:prose is_sarcastic:zero-one",
        {"text": "headline", "label": "is_sarcastic"},
        None,
    ),
    ("retrieval", "query:prose pos:list neg:list", ASKED, ASKED),
    ("triplets", "query:prose pos:prose neg:prose", ASKED, ASKED),
    ("spam", "Category:two Message:prose", {"text": "Message", "label": "Category"}, None),
    ("spam v1", "v1:two v2:prose a:empty b:empty", {"text": "v2", "label": "v1"}, None),
    (
        "tweets",
        "ItemID:count Sentiment:zero-one SentimentText:prose",
        {"text": "SentimentText", "label": "Sentiment"},
        None,
    ),
    (
        "airline",
        "tweet_id:count airline_sentiment:two reason:word name:word text:prose tweet_created:date",
        {"text": "text"},
        ASKED,
    ),
    (
        "sentiment140",
        "c1:zero-one c2:count c3:date c4:same c5:id c6:prose",
        {"text": "c6"},
        {"text": "c6", "label": "c1"},
    ),
    ("amazon", "reviewerID:id asin:id reviewText:prose overall:four summary:prose reviewTime:date", ASKED, ASKED),
    ("news", "Class Index:four Title:prose Description:prose", {"text": "Description"}, ASKED),
    (
        "fake news",
        "id:count title:prose author:name text:prose label:zero-one",
        {"text": "text", "label": "label"},
        None,
    ),
    (
        "toxic",
        "id:id comment_text:prose toxic:zero-one severe_toxic:zero-one insult:zero-one",
        {"text": "comment_text"},
        ASKED,
    ),
    ("trec", "text:prose coarse_label:four fine_label:four", {"text": "text"}, ASKED),
    ("two labels", "text:prose topic:four sentiment:two", {"text": "text"}, ASKED),
    (
        "dolly",
        "instruction:prose context:prose response:prose category:two",
        {"prompt": "instruction", "input": "context", "completion": "response"},
        ASKED,
    ),
    (
        "alpaca",
        "instruction:prose input:prose output:prose text:prose",
        {"prompt": "instruction", "input": "input", "completion": "output"},
        ASKED,
    ),
    (
        "orca",
        "id:id system_prompt:prose question:prose response:prose",
        {"prompt": "question", "completion": "response", "system": "system_prompt"},
        ASKED,
    ),
    ("gsm8k", "question:prose answer:prose", {"prompt": "question", "completion": "answer"}, ASKED),
    (
        "boolq",
        "question:prose passage:prose answer:truth",
        {"prompt": "question", "input": "passage", "completion": "answer"},
        ASKED,
    ),
    ("counsel", "Context:prose Response:prose", {"prompt": "Context", "completion": "Response"}, ASKED),
    ("math", "problem:prose level:two type:two solution:prose", {"prompt": "problem", "completion": "solution"}, ASKED),
    ("sharegpt", "id:id conversations:turns", {"messages": "conversations"}, ASKED),
    ("ultrachat", "prompt:prose prompt_id:id messages:turns", {"messages": "messages"}, ASKED),
    ("arena", "question_id:id conversation_a:turns conversation_b:turns winner:two", ASKED, ASKED),
    ("hh", "chosen:prose rejected:prose", {"text": "chosen"}, ASKED),
    ("preferences", "rejected:prose prompt:prose chosen:prose", {"prompt": "prompt", "completion": "chosen"}, ASKED),
    ("kto", "prompt:prose completion:prose label:truth", ASKED, ASKED),
    ("wikipedia", "id:count url:url title:name text:prose", {"text": "text"}, ASKED),
    ("c4", "text:prose timestamp:date url:url", {"text": "text"}, ASKED),
    ("kto turns", "prompt:turns completion:answer label:truth", ASKED, ASKED),
    ("choices", "id:id question:prose opa:same opb:same cop:four exp:same", ASKED, ASKED),
    ("question classes", "question:prose label:four", {"text": "question", "label": "label"}, None),
    ("multiple answers", "question:prose answers:list", ASKED, ASKED),
    ("code", "code:prose docstring:prose", ASKED, ASKED),
    ("translation", "en:prose de:prose", ASKED, ASKED),
    ("quotes", "quote:prose author:name tags:list", {"text": "quote"}, ASKED),
    ("links", "link:url", ASKED, ASKED),
    ("links as text", "text:url id:count", ASKED, ASKED),
    ("poems", "poem:prose", {"text": "poem"}, ASKED),
    ("email answers", "prompt:prose completion:url", {"prompt": "prompt", "completion": "completion"}, ASKED),
]


def file_of(folder: Path, *rows: Any, name: str = "rows.jsonl") -> str:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(folder / name)


def told(source: str, task: str = TEXT, **more: Any) -> list[str]:
    return [one.message for one in open_data(DataSettings(source=source, **more), task, 0).notices]


@pytest.mark.parametrize(("name", "header", "text", "classes"), HEADERS, ids=[one[0] for one in HEADERS])
def test_public_headers_are_read_right_or_asked(
    tmp_path: Path, name: str, header: str, text: dict[str, str], classes: dict[str, str] | None
) -> None:
    draw = random.Random(0)
    kinds = dict(one.rsplit(":", 1) for one in header.replace("Class Index", "Class_Index").split())
    rows = [{name: made(kind, draw, row) for name, kind in kinds.items()} for row in range(ROWS)]
    source = file_of(tmp_path, *rows)
    for task, right in ((TEXT, text), (CLASS, text if classes is None else classes)):
        settings = DataSettings(source=source)
        try:
            found = open_data(settings, task, 0)
        except DataError as error:
            assert right == ASKED or (task == CLASS and "label" not in right), str(error)
            (problem,) = error.problems
            assert problem.field in ("data.columns", "data.text_template", "task") and len(problem.message) < 600
            continue
        assert found.columns == right, task
        unused = [one for one in kinds if one not in right.values()]
        listed = [one.message for one in found.notices if "not used" in one.message]
        assert all(repr(one) in listed[0] for one in unused) if unused else not listed


def test_a_column_is_asked_for_with_what_each_could_be_and_the_page_can_choose(tmp_path: Path) -> None:
    rows = [{"article": f"a long text {n} on mills", "highlights": f"mill {n}", "id": f"x{n}"} for n in range(30)]
    source = file_of(tmp_path, *rows)
    with pytest.raises(
        DataError, match="article could be text, prompt.*highlights could be.*not to be read: id"
    ) as asked:
        open_data(DataSettings(source=source), TEXT, 0)
    assert asked.value.problems[0].field == "data.columns"
    shown = preview(DataSettings(source=source), TEXT, 0, TOKENIZER, 8)
    assert [one["field"] for one in shown["problems"]] == ["data.columns"] and shown["rows"][0]["cells"]["id"] == "x0"
    assert {"prompt", "completion", "system", "text_pair"} <= set(shown["role_names"])
    with pytest.raises(DataError, match="nothing to learn from prompt alone among article, highlights, id"):
        open_data(DataSettings(source=source, columns={"prompt": "article"}), TEXT, 0)
    chosen = DataSettings(source=source, columns={"prompt": "article", "completion": "highlights"})
    shown = preview(chosen, TEXT, 0, TOKENIZER, 8)
    assert shown["problems"] == [] and shown["roles"] == {"prompt": "article", "completion": "highlights"}
    assert [one["message"] for one in shown["notices"] if "not used" in one["message"]] == [
        "1 column is not used: 'id'."
    ]
    written = DataSettings(source=source, text_template="{article}\nTL;DR: {highlights}", eval_fraction=0.0)
    assert open_data(written, TEXT, 0).train[0].text == "a long text 0 on mills\nTL;DR: mill 0"


def test_columns_beside_a_question_are_used_and_told_by_count(tmp_path: Path) -> None:
    row = {"instruction": "And in winter?", "input": "", "output": "Snow."}
    beside = {"system": "Weather only.", "history": [["Weather in summer?", "Sun."]], "source": "web"}
    plain = row | {"input": "In the hills.", "system": None, "history": []}
    data = open_data(DataSettings(source=file_of(tmp_path, row | beside, plain), eval_fraction=0.0), TEXT, 0)
    first, second = data.train
    assert (first.prompt, first.system, first.history) == (
        "And in winter?",
        "Weather only.",
        (("Weather in summer?", "Sun."),),
    )
    assert (second.prompt, second.system, second.history) == ("And in winter?\n\nIn the hills.", None, ())
    found = {one.message: one.count for one in data.notices}
    assert found["1 rows have a system prompt of their own, read in place of data.system_prompt."] == 1
    assert found["1 earlier questions and answers stand before their prompts; they are only read."] == 1
    assert found["1 prompts are followed by an input, after a blank line."] == 1
    assert found["1 column is not used: 'source'."] == 1


def test_columns_are_told_where_their_names_do_not_say_what_they_are(tmp_path: Path) -> None:
    named = file_of(tmp_path, *({"text": f"meal {n}", "label": n % 2} for n in range(8)), name="named.jsonl")
    assert told(named, CLASS, eval_fraction=0.5) == []
    other = file_of(tmp_path, *({"review": f"meal {n}", "stars": n % 2} for n in range(8)), name="other.jsonl")
    message = "The rows are recognised as text + label: text from 'review', label from 'stars'."
    assert told(other, CLASS, eval_fraction=0.5) == [message]
    assert told(other, eval_fraction=0.5, columns={"text": "review"}) == ["1 column is not used: 'stars'."]


def test_a_passage_that_the_prompt_holds_already_is_not_put_there_twice(tmp_path: Path) -> None:
    inside = [
        {"prompt": f"Ada bakes {n}. Who bakes?", "completion": " Ada", "passage": f"Ada bakes {n}."} for n in range(9)
    ]
    data = open_data(DataSettings(source=file_of(tmp_path, *inside)), TEXT, 0)
    assert data.columns == {"prompt": "prompt", "completion": "completion"}
    assert "1 column is not used: 'passage'." in [one.message for one in data.notices]
    apart = [{"question": f"Who bakes {n}?", "context": "Ada bakes bread.", "answer": "Ada"} for n in range(9)]
    data = open_data(DataSettings(source=file_of(tmp_path, *apart), eval_fraction=0.0), TEXT, 0)
    assert data.train[2].prompt == "Who bakes 2?\n\nAda bakes bread."


def test_a_role_without_a_use_is_refused_and_a_second_text_needs_a_template(tmp_path: Path) -> None:
    source = file_of(tmp_path, *({"a": f"the mill {n}", "b": f"the river {n}", "c": n % 2} for n in range(12)))
    with pytest.raises(DataError, match="the role 'history' has no use for rows of text") as caught:
        open_data(DataSettings(source=source, columns={"text": "a", "history": "b"}), TEXT, 0)
    assert caught.value.problems[0].field == "data.columns"
    pair = {"text": "a", "text_pair": "b", "label": "c"}
    with pytest.raises(DataError, match="a row has two texts, a and b") as caught:
        open_data(DataSettings(source=source, columns=pair), TEXT, 0)
    assert caught.value.problems[0].field == "data.text_template"
    settings = DataSettings(source=source, columns=pair, text_template="{a} / {b} =", eval_fraction=0.0)
    row = open_data(settings, TEXT, 0).train[3]
    assert (row.prompt, row.completion) == ("the mill 3 / the river 3 =", " 1")
    row = open_data(DataSettings(source=source, columns=pair, eval_fraction=0.0), CLASS, 0).train[3]
    assert (row.text, row.text_pair, row.label) == ("the mill 3", "the river 3", 1)


@pytest.mark.parametrize(
    ("columns", "separator", "completion"),
    [
        (("prompt", "completion"), None, "x):"),
        (("prompt", "completion"), " ", " x):"),
        (("instruction", "output"), None, " x):"),
        (("question", "answer"), None, " x):"),
        (("question", "answer"), "", "x):"),
        (("question", "answer"), "\n", "\nx):"),
    ],
)
def test_an_answer_is_joined_as_written_unless_its_prompt_is_an_instruction(
    tmp_path: Path, columns: tuple[str, str], separator: str | None, completion: str
) -> None:
    rows = [dict(zip(columns, ("def f(", "x):"), strict=True)), dict(zip(columns, ("Say ", "x"), strict=True))]
    settings = DataSettings(source=file_of(tmp_path, *rows), separator=separator, eval_fraction=0.0)
    data = open_data(settings, TEXT, 0)
    assert [row.completion for row in data.train] == [completion, "x"]
    joined = [one for one in data.notices if one.field == "data.separator"]
    assert [one.count for one in joined] == ([1] if completion != "x):" else [])


def test_a_column_that_only_later_rows_have_is_told_by_count(tmp_path: Path) -> None:
    rows = [{"text": f"row {n}"} | ({"system": "Be kind."} if n >= 300 else {}) for n in range(310)]
    messages = told(file_of(tmp_path, *rows))
    assert "Columns that only later rows have are not used: 'system' (10)." in messages


def test_of_a_large_file_the_notices_say_how_many_rows_were_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuning.data.data_set.CHECKED_BYTES", 1_000)
    rows = [{"question": f"Who is {n}?", "answer": "Ada"} for n in range(1_500)]
    messages = told(file_of(tmp_path, *rows))
    joined = (
        "1,000 prompts and answers are joined by one space, for they are written without (of the first 1,000 rows)."
    )
    assert joined in messages


def test_what_is_missing_is_what_the_datasets_library_reads_as_missing(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    words = [*sorted(MISSING_WORDS - {""}), "", "none", "Nan", "NAN", "na", "-", "?", " ", "missing", "NaN."]
    csv_file, json_file, nan_file = tmp_path / "rows.csv", tmp_path / "rows.jsonl", tmp_path / "nan.jsonl"
    csv_file.write_text("text,label\n" + "".join(f'row,{word}\nrow,"{word}"\n' for word in words) + "row,yes\n")
    json_file.write_text(
        '{"text": "a"}\n{"text": null}\n{"text": "NaN"}\n{"text": "nan"}\n{"text": ""}\n{"other": 1}\n'
    )
    nan_file.write_text('{"text": "a"}\n{"text": NaN}\n{"text": null}\n{"text": "b"}\n{"other": 1}\n')

    def reference(kind: str, file: Path, column: str) -> list[bool]:
        read = datasets.load_dataset(kind, data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
        return [value is None for value in read[column]]

    for kind, file, column in (("csv", csv_file, "label"), ("json", json_file, "text"), ("json", nan_file, "text")):
        ours = [is_missing(one.values.get(column), kind == "csv") for one in head(open_table(file))]
        assert ours == reference(kind, file, column), kind


@pytest.mark.parametrize(
    ("name", "content", "column"),
    [
        (
            "text.jsonl",
            '{"text": NaN, "label": "a"}\n{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}\n',
            "text",
        ),
        (
            "label.jsonl",
            '{"text": "x", "label": NaN}\n{"text": "x", "label": 1.0}\n{"text": "y", "label": 0.0}\n',
            "label",
        ),
        (
            "infinite.jsonl",
            '{"text": "x", "label": Infinity}\n{"text": "x", "label": 1.0}\n{"text": "y", "label": 0.0}\n',
            "label",
        ),
        (
            "blank.jsonl",
            '{"text": "x", "label": " "}\n{"text": "x", "label": "a"}\n{"text": "y", "label": "b"}\n',
            "label",
        ),
        ("label.csv", "text,label\nx,\nx,a\ny,b\n", "label"),
        ("word.csv", "text,label\nx,NULL\nx,a\ny,b\n", "label"),
        ("text.csv", "text,label\nnan,a\nx,a\ny,b\n", "text"),
    ],
)
@pytest.mark.parametrize("task", [TEXT, CLASS])
def test_a_row_without_a_text_or_a_class_is_bad_and_counted(
    tmp_path: Path, name: str, content: str, column: str, task: str
) -> None:
    (tmp_path / name).write_text(content)
    settings = DataSettings(source=str(tmp_path / name), eval_fraction=0.0)
    with pytest.raises(DataError, match=f"column '{column}' is missing or empty"):
        open_data(settings, task, 0)
    data = open_data(settings.replace(bad_rows="skip"), task, 0)
    assert len(data.train) == 2 and len(data.label_names or ()) == 2
    assert not {"nan", "", "NaN", "NULL"} & set(data.label_names or ())
    (bad,) = (one for one in data.notices if one.field == "data.bad_rows")
    assert bad.count == 1 and f"column '{column}' is missing or empty" in bad.message


def test_an_answer_that_is_missing_is_no_answer(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": NaN}\n{"prompt": "b", "completion": "nan"}\n')
    settings = DataSettings(source=str(tmp_path / "rows.jsonl"), bad_rows="skip", eval_fraction=0.0)
    assert [row.completion for row in open_data(settings, TEXT, 0).train] == ["nan"], "a text in JSON is a text"


def test_a_missing_word_that_names_a_class_is_that_class(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "a,None\nb,Some\n" * 4)
    settings = DataSettings(source=str(tmp_path / "rows.csv"), label_names=("None", "Some"), eval_fraction=0.0)
    assert [row.label for row in open_data(settings, CLASS, 0).train] == [0, 1] * 4


def test_numbers_are_places_in_the_names_of_classes(tmp_path: Path) -> None:
    source = file_of(tmp_path, *({"text": f"meal {n}", "label": n % 2} for n in range(20)))
    settings = DataSettings(source=source, label_names=("negative", "positive"), eval_fraction=0.0)
    data = open_data(settings, CLASS, 0)
    assert data.label_names == ("negative", "positive") and [row.label for row in data.train] == [0, 1] * 10
    assert [row.completion for row in open_data(settings, TEXT, 0).train[:2]] == [" negative", " positive"]
    (spellings,) = (one for one in data.notices if one.field == "data.label_names")
    assert "'0' read as 'negative' (10), '1' read as 'positive' (10)" in spellings.message and spellings.count == 20
    with pytest.raises(DataError, match="label '0' is not among data.label_names 1, 2"):
        open_data(settings.replace(label_names=("1", "2")), CLASS, 0)
    with pytest.raises(DataError, match="label '1' is not among data.label_names only"):
        open_data(settings.replace(label_names=("only",)), CLASS, 0)


def test_spellings_of_one_class_are_one_class_and_are_told(tmp_path: Path) -> None:
    spellings = ["good ", "good", " good", "bad", "bad", "bad"]
    source = file_of(tmp_path, *({"text": f"meal {n}", "label": spellings[n % 6]} for n in range(24)))
    data = open_data(DataSettings(source=source, eval_fraction=0.0), CLASS, 0)
    assert data.label_names == ("bad", "good") and [row.label for row in data.train][:6] == [1, 1, 1, 0, 0, 0]
    (notice,) = (one for one in data.notices if one.field == "data.label_names")
    assert notice.count == 8 and "'good ' read as 'good' (4)" in notice.message
    numbers = [1, 1.0, "1", "1.0", 2, 2.0]
    source = file_of(tmp_path, *({"text": f"meal {n}", "label": numbers[n % 6]} for n in range(24)))
    data = open_data(DataSettings(source=source, eval_fraction=0.0), CLASS, 0)
    assert data.label_names == ("1", "2") and [row.label for row in data.train][:6] == [0, 0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "one, other, listed",
    [
        ("Good", "good", "Good, good"),
        ("caf\u00e9", "cafe\u0301", "'cafe\\u0301', caf\u00e9"),
        ("\uff41", "a", "a, '\\uff41'"),
        ("very good", "very  good", "'very  good', very good"),
        (0.0, -0.0, "-0, 0"),
        ("stra\u00dfe", "STRASSE", "STRASSE, stra\u00dfe"),
    ],
)
def test_classes_that_a_person_reads_alike_are_told_to_stay_apart(
    tmp_path: Path, one: Any, other: Any, listed: str
) -> None:
    source = file_of(tmp_path, *({"text": f"meal {n}", "label": (one, other, "third")[n % 3]} for n in range(24)))
    message = "nothing but capital letters, spaces, invisible characters or the form of letters stay apart"
    assert any(f"{message}: {listed}." in notice for notice in told(source, CLASS)), told(source, CLASS)


def test_the_preview_counts_what_the_plan_counts(tmp_path: Path) -> None:
    """Training rows and evaluation rows alike: long rows, empty answers, glued pairs."""
    rows = [{"prompt": f"What is {n}?", "completion": "word " * (n if n % 5 else 0)} for n in range(40)]
    settings = DataSettings(source=file_of(tmp_path, *rows), eval_fraction=0.5, max_seq_length=24)
    counted = rows_summary(settings, str(asset_path("models", "tiny-town")), "causal_lm", 0).notices
    shown = preview(settings, "causal_lm", 0, TOKENIZER, 8)["notices"]
    assert counted and [one.to_dict() for one in counted] == shown


def test_the_counts_of_classes_and_the_split_follow_the_class_and_not_its_spelling(tmp_path: Path) -> None:
    spellings = ["a", "a ", "b"]
    source = file_of(tmp_path, *({"text": f"meal {n}", "label": spellings[n % 3]} for n in range(60)))
    shown = preview(DataSettings(source=source, eval_fraction=0.5), CLASS, 0, TOKENIZER, 8)
    assert shown["labels"] == [{"name": "a", "train": 20, "eval": 20}, {"name": "b", "train": 10, "eval": 10}]


def test_the_bundled_sets_are_read_as_their_cards_say_and_joined_as_written() -> None:
    for name in ("new-people", "people-questions", "passages", "retention"):
        data = open_data(DataSettings(source=name), TEXT, 0)
        rows = [json.loads(line) for line in Path(data.train.table.path).read_text().splitlines()]
        assert [(row.prompt, row.completion) for row in data.train] == [
            (row["prompt"], row["completion"]) for row in rows
        ]


def test_estimate_prints_what_reading_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"question": f"Who is {n}?", "answer": "Ada", "id": n} for n in range(24)]
    file = tmp_path / "settings.json"
    file.write_text(json.dumps({"data": {"source": file_of(tmp_path, *rows)}, "max_steps": 2}))
    assert main(["estimate", str(file)]) == 0
    messages = [one["message"] for one in json.loads(capsys.readouterr().out)["notices"]]
    assert (
        "The rows are recognised as prompt + completion: prompt from 'question', completion from 'answer'." in messages
    )
    assert "1 column is not used: 'id'." in messages


def test_that_a_text_is_only_read_before_its_label_is_told_with_the_words_put_in(tmp_path: Path) -> None:
    source = file_of(tmp_path, *({"text": f"meal {n}", "label": ("bad", "good")[n % 2]} for n in range(24)))
    (row,) = open_data(DataSettings(source=source, row_choice="first"), TEXT, 0).train[:1]
    sentence = (
        "The label is the answer to its text: each text ends in '\\nLabel:', and ' label' follows; only the answer "
        "is learned, unless data.loss_on is all."
    )
    assert row.prompt is not None and row.prompt.endswith("\nLabel:") and row.completion in (" bad", " good")
    assert sentence in told(source, TEXT) and sentence not in told(source, CLASS)


def test_one_label_for_all_texts_is_refused_in_the_words_of_the_task(tmp_path: Path) -> None:
    source = file_of(tmp_path, *({"text": f"meal {n}", "label": "good"} for n in range(24)))
    for task, words in ((TEXT, "each text would have the same answer"), (CLASS, "needs something to differ from")):
        with pytest.raises(DataError, match=words):
            open_data(DataSettings(source=source), task, 0)
    assert open_data(DataSettings(source=source, columns={"text": "text"}), TEXT, 0).shape == "text"


def test_of_several_answers_the_first_is_learned_and_the_others_are_told(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": f"a{n}", "question": f"Who is {n}?", "context": f"Ada is {n}.", "answers": {"text": ["Ada", "Ada L."]}}
        for n in range(12)
    ]
    source = file_of(tmp_path, *rows)
    data = open_data(DataSettings(source=source, eval_fraction=0.0), TEXT, 0)
    assert data.columns == {"prompt": "question", "completion": "answers", "input": "context"}
    assert (data.train[0].prompt, data.train[0].completion) == ("Who is 0?\n\nAda is 0.", " Ada")
    (one,) = [one for one in data.notices if "further answers" in one.message]
    assert (one.field, one.count) == ("data.columns", 12)
    rows[3]["answers"] = {"text": []}
    source = file_of(tmp_path, *rows, name="none.jsonl")
    with pytest.raises(DataError, match="line 4 column 'answers' is missing or empty"):
        open_data(DataSettings(source=source), TEXT, 0)
    assert len(open_data(DataSettings(source=source, bad_rows="skip", eval_fraction=0.0), TEXT, 0).train) == 11


@pytest.mark.parametrize("answer", [1, "1", "B"])
def test_the_number_of_a_choice_is_no_answer_and_is_asked_about(tmp_path: Path, answer: Any) -> None:
    rows = [{"question": f"Who is {n}?", "choices": ["Ada", "Bo"], "answer": answer} for n in range(12)]
    source = file_of(tmp_path, *rows)
    with pytest.raises(DataError, match="'answer' only says which of 'choices' is right") as caught:
        open_data(DataSettings(source=source), TEXT, 0)
    assert caught.value.problems[0].field == "data.columns"
    said = DataSettings(source=source, columns={"prompt": "question", "completion": "answer"}, row_choice="first")
    assert open_data(said, TEXT, 0).train[0].completion == f" {answer}"
    words = file_of(tmp_path, *({**row, "answer": "Ada"} for row in rows), name="words.jsonl")
    assert open_data(DataSettings(source=words), TEXT, 0).shape == "prompt + completion"


def test_classes_that_differ_in_an_invisible_character_are_told_with_it(tmp_path: Path) -> None:
    names = ("good", "good\u200b", "bad")
    source = file_of(tmp_path, *({"text": f"meal {n}", "label": names[n % 3]} for n in range(24)))
    (message,) = [one for one in told(source, CLASS) if "stay apart" in one]
    assert message.endswith("stay apart: good, 'good\\u200b'."), message


def test_conversations_that_end_with_a_question_are_told_by_count(tmp_path: Path) -> None:
    talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]
    rows = [{"messages": [*talk, {"role": "user", "content": "Bye"}] if n < 7 else talk} for n in range(20)]
    notices = open_data(DataSettings(source=file_of(tmp_path, *rows)), TEXT, 0).notices
    assert [one.count for one in notices if "end with a user's turn" in one.message] == [7]
