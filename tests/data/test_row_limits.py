"""What a model folder brings may never end or want all the memory: it is stopped, and told in words."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.routes import client_of
from tuning.core.errors import DataError, ModelError
from tuning.core.paths import assets_folder
from tuning.text import ConversationError, Row, TextTokenizer, Turn, tokenize_rows, tokenizer
from tuning.web.data import add_data_routes

TALK = Row(messages=(Turn("user", "Where is the mill?"), Turn("assistant", "By the river.")))
PLAIN = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"


def folder(place: Path, template: str = PLAIN, **parts: Any) -> Path:
    """The bundled model with another chat template, and other parts of tokenizer.json."""
    shutil.copytree(assets_folder() / "models" / "tiny-town", place)
    config = json.loads((place / "tokenizer_config.json").read_text("utf-8"))
    (place / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}), "utf-8")
    (place / "chat_template.jinja").unlink(missing_ok=True)
    plain = json.loads((place / "tokenizer.json").read_text("utf-8"))
    (place / "tokenizer.json").write_text(json.dumps(plain | parts), "utf-8")
    return place


def tokenized(opened: TextTokenizer, *rows: Row) -> list[str]:
    found = tokenize_rows(rows, opened, loss_on="auto", task="causal_lm", system_prompt=None)
    return [opened.decode(one.ids) for one in found]


@pytest.mark.parametrize(
    "template",
    [
        "{% for x in range(100000) %}{% for y in range(100000) %}{% endfor %}{% endfor %}",
        "{% for x in range(100000) %}{% for y in range(100000) %}a{% endfor %}{% endfor %}",
        "{{ 'a' * 10**10 }}",
        "{{ 'a'.center(10**10) }}",
        "{{ '%09999999999d' % 1 }}",
        "{{ messages | tojson(indent=10**9) }}",
        "{{ [[0] * 99999] * 99999 }}",
        "{% set ns = namespace(a='aaaa') %}{% for x in range(99) %}{% set ns.a = ns.a + ns.a %}{% endfor %}{{ ns.a }}",
        "{% for x in range(40) %}{{ 'a' * 1000000 }}{% endfor %}",
    ],
    ids=["loops", "words", "times", "center", "percent", "indent", "lists", "doubling", "long"],
)
def test_a_chat_template_without_an_end_is_refused_and_the_next_one_is_written(tmp_path: Path, template: str) -> None:
    bad, good = (TextTokenizer(folder(tmp_path / name, one)) for name, one in (("bad", template), ("good", PLAIN)))
    with pytest.raises(DataError, match="chat template cannot be used") as told:
        tokenized(bad, TALK)
    assert not isinstance(told.value, ConversationError), "no row is at fault, and none is left out for it"
    assert told.value.problems[0].field == "model"
    assert tokenized(good, TALK) == ["user: Where is the mill?\nassistant: By the river.\n"]
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(DataError, match="chat template cannot be used"):
            tokenized(bad, TALK)
    assert time.monotonic() - began < 5.0, "what went beyond a limit once is not tried again"


def test_a_template_that_refuses_one_conversation_writes_the_others(tmp_path: Path) -> None:
    template = PLAIN + "{% if messages[0].content == 'no' %}{{ raise_exception('not this one') }}{% endif %}"
    opened = TextTokenizer(folder(tmp_path / "model", template))
    refused = Row(messages=(Turn("user", "no"), Turn("assistant", "yes")))
    with pytest.raises(ConversationError, match="not this one"):
        tokenized(opened, TALK, refused)
    assert len(tokenized(opened, TALK, TALK)) == 2


@pytest.fixture
def client(tmp_path: Path) -> TestClient:
    return client_of(add_data_routes, tmp_path)


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def test_a_regular_expression_that_gives_up_is_told_at_the_model(client: TestClient, tmp_path: Path) -> None:
    place = folder(tmp_path / "model", pre_tokenizer=_split("^(a+)+$"))
    (tmp_path / "rows.txt").write_text("a" * 40 + " b\n", "utf-8")
    body = {"model": str(place), "data": {"source": str(tmp_path / "rows.txt")}}
    answer = client.post("/fork/data/preview", json=body)
    assert answer.status_code == 422, answer.text
    (problem,) = answer.json()["problems"]
    assert problem["field"] == "model" and "retry-limit" in problem["message"]


def test_a_tokenizer_that_takes_too_long_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenizer, "SECONDS", 1.0)
    # from each place on, each part of the run of letters is cut in two in every way: the cube of its length
    opened = TextTokenizer(folder(tmp_path / "model", pre_tokenizer=_split(r"[a-m]*[a-m]*(?=\d\D)")))
    with pytest.raises(ModelError, match="did not end within 1 s on 4,000 characters"):
        opened.encodings(["a" * 2000, "b" * 2000], False)
    with pytest.raises(ModelError, match="did not end"):
        opened.encode("the mill")


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "a"}, "content": "a" * 1000}},
        {
            "normalizer": {
                "type": "Sequence",
                "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 10}] * 9,
            }
        },
        {"decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 1000}},
    ],
    ids=["once", "again", "decoder"],
)
def test_a_tokenizer_that_makes_much_of_little_is_refused(tmp_path: Path, parts: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="more than 100 characters of one"):
        TextTokenizer(folder(tmp_path / "model", **parts))


def test_usual_normalizers_are_read(tmp_path: Path) -> None:
    steps: list[dict[str, Any]] = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ]
    place = folder(tmp_path / "model", normalizer={"type": "Sequence", "normalizers": steps})
    check: Callable[[str], list[int]] = TextTokenizer(place).encode
    assert check("the mill")
