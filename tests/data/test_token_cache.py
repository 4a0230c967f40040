"""Tokens kept between runs: the same tokens and curves, keyed by all they depend on, bounded, rebuilt when damaged."""

from __future__ import annotations

import ast
import json
import os
import shutil
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from support.tiny_jobs import TinyJobs, run, series
from tuning.core.paths import asset_path
from tuning.data import EncodedSet, encode_cached, encode_set, open_data
from tuning.data.token_cache import TOKENS_VERSION
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer

MODEL = asset_path("models", "tiny-town")
TOKENIZER = TextTokenizer(MODEL)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNING_FORK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("tuning.data.token_cache.LEAST_TOKENS", 0)
    return tmp_path / "cache" / "tokens"


def made(settings: DataSettings, task: str = "causal_lm", model: Path = MODEL, seed: int = 0) -> EncodedSet:
    return encode_cached(open_data(settings, task, seed), model, TextTokenizer(model), settings, task)


def files(cache: Path) -> list[Path]:
    return sorted(cache.iterdir(), key=lambda file: file.stat().st_mtime) if cache.is_dir() else []


def no_tokenizing(*given: Any) -> Any:
    raise AssertionError("tokenized again")


def test_kept_tokens_are_those_that_were_made(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safetensors import safe_open

    settings = DataSettings(source="reviews", max_seq_length=16)
    for task in ("causal_lm", "sequence_classification"):
        plain = encode_set(open_data(settings, task, 0).train, TOKENIZER, settings, task)
        first = made(settings, task)
        with monkeypatch.context() as patch:
            patch.setattr("tuning.data.token_cache.encode_set", no_tokenizing)
            again = made(settings, task)
        assert list(first) == list(again) == list(plain) and again.lengths == plain.lengths
        assert again[-1] == plain[-1] and any(one.cut for one in again)
        assert type(again[0].label) is (int if task == "sequence_classification" else type(plain[0].label))
    assert len(files(cache)) == 2
    with safe_open(str(files(cache)[-1]), "np") as opened:  # the format is what its name says
        assert opened.get_tensor("starts")[-1] == len(opened.get_tensor("tokens")) == again.tokens


def test_only_what_changes_the_tokens_makes_them_anew(cache: Path, tmp_path: Path) -> None:
    settings = DataSettings(source="reviews")
    made(settings)
    for same in ({"packing": True}, {"group_by_length": False}, {"source": "bundled:reviews"}):
        made(settings.replace(**same))
    assert len(files(cache)) == 1
    for number, other in enumerate(
        (
            {"max_seq_length": 16},
            {"loss_on": "all"},
            {"system_prompt": "Be brief."},
            {"train_rows": 40},
            {"eval_fraction": 0.2, "split": "train", "eval_split": "eval"},
            {"text_template": "Review: {text}"},
            {"bad_rows": "skip"},
        ),
        2,
    ):
        made(settings.replace(**other))
        assert len(files(cache)) == number, other
    before = len(files(cache))
    made(settings, "sequence_classification")
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    made(settings, model=model)
    assert len(files(cache)) == before + 1, "a copy of the model is the same tokenizer"
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"bos_token_id": 5}))
    made(settings, model=model)
    assert len(files(cache)) == before + 2
    rows = tmp_path / "a.jsonl"
    for number, text in enumerate(("one", "two"), before + 3):
        rows.write_text(json.dumps({"text": text}) + "\n")
        made(DataSettings(source=str(rows), eval_fraction=0.0))
        assert len(files(cache)) == number, "other rows in a file of the same name"


NO_CODE = (
    "tuning.data.files.progress",
    "tuning.core.errors",
    "tuning.core.lru",
    "tuning.core.paths",
    "tuning.settings.schema",
    "tuning.hub",
    "tuning.models.base_model",
)
"""What rows pass on their way and is no part of their tokens: what it decides is in the fingerprint or the settings."""


def imported(start: tuple[str, ...]) -> set[str]:
    """The modules of the program that these are made of."""
    found, left = set[str](), list(start)
    while left:
        name = left.pop()
        if name in found or name.startswith(NO_CODE):
            continue
        found.add(name)
        tree = ast.parse(Path(sys.modules[name].__file__ or "").read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tuning."):
                inner = [f"{node.module}.{one.name}" for one in node.names]
                left += [one for one in inner if one in sys.modules] or [str(node.module)]
    return found


VERSION_AND_DIGEST = (1, "1dc97b3cdb045f38")
"""The version of the code that decides tokens, and the digest of that code when the version was last thought about."""


def as_lists(node: Any) -> Any:
    """A syntax tree as lists, the same for all versions of Python and without docstrings; comments and layout are not
    in it anyway."""
    if isinstance(node, list):
        return [as_lists(one) for one in node if not is_text_alone(one)]
    if not isinstance(node, ast.AST):
        return repr(node)
    fields = [[name, as_lists(value)] for name, value in ast.iter_fields(node) if value is not None and value != []]
    return [type(node).__name__, *fields]


def is_text_alone(node: Any) -> bool:
    """Whether a statement is a docstring, or the text under a constant or a field."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def code_digest(modules: set[str]) -> str:
    """Equal for code that does the same, however it is laid out and explained."""
    trees = [
        [name, as_lists(ast.parse(Path(sys.modules[name].__file__ or "").read_text()))] for name in sorted(modules)
    ]
    return sha256(json.dumps(trees).encode()).hexdigest()[:16]


def test_whoever_changes_the_code_that_decides_tokens_thinks_of_its_version() -> None:
    digest = code_digest(imported(("tuning.data.data_set", "tuning.data.token_arrays")))
    assert (TOKENS_VERSION, digest) == VERSION_AND_DIGEST, (
        "The code between the bytes of a file and its tokens has changed. Where the same rows can become other tokens, "
        "raise TOKENS_VERSION in tuning/data/token_cache.py, or stored tokens are wrong without a word. Then write "
        f"VERSION_AND_DIGEST = ({TOKENS_VERSION}, {digest!r}) here."
    )


def test_the_digest_of_code_is_blind_to_comments_docstrings_and_layout() -> None:
    def digest(code: str) -> Any:
        return as_lists(ast.parse(code))

    code = "def f(a):\n    return [a, 'text']\n"
    explained = (
        'def f(\n    a,\n):\n    """What it does."""\n    return [\n        a,  # why\n        "te" "xt",\n    ]\n'
    )
    assert digest(code) == digest(explained)
    assert digest(code) != digest(code.replace("text", "texts"))
    assert digest(code) != digest(code.replace("[a, 'text']", "['text', a]"))


@pytest.mark.parametrize(
    "name",
    [
        "tuning.data.files.sniff",
        "tuning.data.files.unpack",
        "tuning.data.files.archive",
        "tuning.data.files.table",
        "tuning.data.locate",
    ],
)
def test_the_digest_sees_other_code_and_no_other_comment(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = imported(("tuning.data.data_set", "tuning.data.token_arrays"))
    before, module, copy = code_digest(modules), sys.modules[name], tmp_path / "copy.py"
    shutil.copy(str(module.__file__), copy)
    monkeypatch.setattr(module, "__file__", str(copy))
    copy.write_text(copy.read_text() + "# a comment\n")
    assert code_digest(modules) == before
    copy.write_text(copy.read_text() + "more = 1\n")
    assert code_digest(modules) != before


def test_another_version_of_the_code_makes_the_tokens_anew(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DataSettings(source="reviews")
    made(settings)
    made(settings)
    assert len(files(cache)) == 1
    monkeypatch.setattr("tuning.data.token_cache.TOKENS_VERSION", TOKENS_VERSION + 1)
    made(settings)
    assert len(files(cache)) == 2


@pytest.mark.parametrize("damage", ["cut", "flipped", "header", "length", "empty", "text"])
def test_a_damaged_file_is_made_anew(cache: Path, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = DataSettings(source="reviews")
    plain = list(made(settings))
    (file,) = files(cache)
    content = bytearray(file.read_bytes())
    if damage == "flipped":
        content[-2000] ^= 1
    elif damage == "header":
        content[content.index(b'"shape": [') + 10] ^= 1
    elif damage == "length":
        content[7] = 255
    elif damage == "cut":
        del content[-5:]
    file.write_bytes({"empty": b"", "text": b"hello, this is no file of tokens"}.get(damage, bytes(content)))
    assert list(made(settings)) == plain
    monkeypatch.setattr("tuning.data.token_cache.encode_set", no_tokenizing)
    assert list(made(settings)) == plain and len(files(cache)) == 1


def test_the_ones_not_used_for_longest_go_first(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    several = [DataSettings(source="reviews", max_seq_length=length) for length in (40, 32, 24, 16)]
    for age, settings in zip((40, 30, 20), several, strict=False):
        made(settings)
        os.utime(files(cache)[-1], (1e9 - age, 1e9 - age))
    sizes = [file.stat().st_size for file in files(cache)]
    made(several[0])  # used again: now the youngest
    oldest = files(cache)[0]
    monkeypatch.setattr("tuning.data.token_cache.MOST_BYTES", sum(sizes) + 1000)
    left = cache / ".part-left"
    left.write_bytes(b"of a killed program")
    os.utime(left, (1e9, 1e9))
    made(several[3])
    assert not oldest.exists() and not left.exists() and len(files(cache)) == 3
    assert sum(file.stat().st_size for file in files(cache)) <= sum(sizes) + 1000
    monkeypatch.setattr("tuning.data.token_cache.MOST_BYTES", 10)
    made(several[0].replace(max_seq_length=48))
    assert len(files(cache)) == 3, "too large to be kept, and nothing was thrown away for it"


def test_where_nothing_can_be_written_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("TUNING_FORK_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr("tuning.data.token_cache.LEAST_TOKENS", 0)
    settings = DataSettings(source="reviews")
    plain = encode_set(open_data(settings, "causal_lm", 0).train, TOKENIZER, settings, "causal_lm")
    assert list(made(settings)) == list(plain)


def test_few_tokens_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNING_FORK_CACHE", str(tmp_path / "cache"))
    made(DataSettings(source="reviews"))
    assert files(tmp_path / "cache" / "tokens") == []


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"task": "sequence_classification"},
        {"data": {"packing": True, "max_seq_length": 24}},
    ],
    ids=["text", "classes", "packed"],
)
def test_curves_with_kept_tokens_are_equal_in_every_digit(
    changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = TinyJobs(tmp_path)
    monkeypatch.setenv("TUNING_FORK_CACHE", str(tmp_path / "cache"))
    told = []
    for least in (10**9, 0, 0):
        monkeypatch.setattr("tuning.data.token_cache.LEAST_TOKENS", least)
        if len(told) == 2:
            monkeypatch.setattr("tuning.data.token_cache.encode_set", no_tokenizing)
        state, events = run(world.job(**changes))
        assert state == "finished" and len(files(tmp_path / "cache" / "tokens")) == min(1, len(told))
        kinds = (("loss", "step"), ("grad_norm", "step"), ("trained_tokens", "step"), ("loss", "eval"))
        told.append([series(events, key, kind) for key, kind in kinds])
    assert len(told[0][0]) == 6 and told[0] == told[1] == told[2]
