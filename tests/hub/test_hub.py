"""The hub: asked only on a press, answered in a sentence when it is not there, downloads that go on where they ended.

Every test talks to a real server on this machine that speaks the hub's own interface.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.hub_server import COMMIT, SECRET, Hub, only_hub, refusing_address, vanishing_address
from support.tiny_models import tiny_model
from tuning.core.errors import ModelError, TuningError
from tuning.hub.connection import ANSWER_SECONDS
from tuning.hub.data_sets import look_up_data
from tuning.hub.download import Download, Downloads, cached_bytes, fetch, part_path
from tuning.hub.models import HubModel, look_up
from tuning.hub.repo import HubRepo
from tuning.models.base_model import resolve_model
from tuning.plan.plan import plan_for

NAME = "town/small-chat"
ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = "model.safetensors"


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder as it lies on the hub, with things in it that must never be fetched."""
    folder = tiny_model("llama", tmp_path_factory.mktemp("served") / "model", vocab_size=2048)
    (folder / "pytorch_model.bin").write_bytes(b"pickle" * 2000)
    (folder / "modeling_town.py").write_text("raise SystemExit")
    return folder


@pytest.fixture
def hub(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with only_hub(monkeypatch, tmp_path / "cache", models={NAME: served}) as hub:
        yield hub


def wait_for(download: Download, state: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while download.state != state:
        assert time.monotonic() < end, f"still {download.state}: {download.message}"
        time.sleep(0.02)


def until(holds: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def fetched(model: HubModel, token: str | None = None) -> Path:
    folder = fetch(model, token, lambda done: None, lambda: False)
    assert folder is not None
    return folder


# -- look-up ----------------------------------------------------------------------------------------------------------
def test_a_look_up_gives_all_before_any_weight_is_fetched(hub: Hub, served: Path) -> None:
    answer = look_up(NAME)
    assert (answer.licence, answer.gated, answer.problem, answer.commit) == ("apache-2.0", False, None, COMMIT)
    assert answer.shape is not None and answer.shape.model_type == "llama" and answer.shape.max_positions == 64
    assert answer.weight_bytes == (served / WEIGHTS).stat().st_size
    assert answer.parameters == answer.shape.parameters
    assert {file.name for file in answer.files} >= {"config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"}
    assert not any(file.name.endswith((".bin", ".py")) for file in answer.files)
    assert answer.tuned[0] == "base"
    assert [request.path for request in hub.requests if WEIGHTS in request.path] == []
    assert cached_bytes(answer) == 0


@pytest.mark.parametrize(
    ("name", "revision", "field", "word"),
    [
        ("town/nothing", None, "model", "no model"),
        (NAME, "no-such-branch", "revision", "no revision"),
        ("../etc", None, "model", "org/name"),
        ("a b", None, "model", "org/name"),
    ],
)
def test_what_is_not_there_is_reported_at_its_field(
    hub: Hub, name: str, revision: str | None, field: str, word: str
) -> None:
    with pytest.raises(ModelError, match=word) as refusal:
        look_up(name, revision)
    assert refusal.value.problems[0].field == field


LOOK_UPS = [(look_up, "model", "models"), (look_up_data, "data.source", "data_sets")]
both = pytest.mark.parametrize(("ask", "field", "module"), LOOK_UPS, ids=["model", "data set"])


@both
def test_no_network_is_a_sentence_within_a_second(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], HubRepo], field: str, module: str
) -> None:
    with vanishing_address() as vanishing:
        for address, word in (
            (refusing_address(), "cannot be connected"),
            (vanishing, "does not answer"),
            ("http://no-such-host.invalid", "not reached"),
            ("http://no..host", "cannot be found"),
            ("nonsense", "no web address"),
        ):
            monkeypatch.setenv("HF_ENDPOINT", address)
            began = time.monotonic()
            with pytest.raises(TuningError, match=word) as refusal:
                ask(NAME)
            assert time.monotonic() - began < 1.0, address
            assert refusal.value.problems[0].field == field


@both
def test_a_hub_that_takes_the_connection_and_says_nothing_is_given_up(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], HubRepo], field: str, module: str
) -> None:
    monkeypatch.setattr(f"tuning.hub.{module}.ANSWER_SECONDS", 0.5)
    hub.silent = True
    began = time.monotonic()
    with pytest.raises(TuningError, match="did not answer|could not be asked"):
        ask(NAME)
    assert time.monotonic() - began < 2.0 < ANSWER_SECONDS


@both
def test_offline_means_the_hub_is_not_asked(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, ask: Callable[[str], HubRepo], field: str, module: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(TuningError, match="HF_HUB_OFFLINE"):
        ask(NAME)
    assert hub.requests == []


def test_a_model_that_cannot_be_used_says_why_before_a_download(hub: Hub, served: Path, tmp_path: Path) -> None:
    def variant(name: str, drop: tuple[str, ...] = (), **config: object) -> None:
        folder = tmp_path / name
        folder.mkdir()
        for file in served.iterdir():
            if file.name not in drop:
                (folder / file.name).write_bytes(file.read_bytes())
        plain = json.loads((served / "config.json").read_text()) | config
        (folder / "config.json").write_text(json.dumps(plain))
        hub.models[f"town/{name}"] = folder

    variant("pickled", drop=(WEIGHTS,))
    variant("foreign", model_type="townformer", auto_map={"AutoConfig": "modeling_town.TownConfig"})
    variant("wordless", drop=("tokenizer.json",))
    for name, word in (("pickled", "safetensors"), ("foreign", "own code"), ("wordless", "tokenizer.json")):
        answer = look_up(f"town/{name}")
        assert answer.problem is not None and word in answer.problem
        with pytest.raises(ModelError, match=word):
            fetched(answer)


# -- download ---------------------------------------------------------------------------------------------------------
def test_a_download_is_whole_and_only_what_is_allowed(hub: Hub, served: Path) -> None:
    with pytest.raises(ModelError, match="Look up"):
        resolve_model(NAME)
    folder = fetched(look_up(NAME))
    assert (folder / WEIGHTS).read_bytes() == (served / WEIGHTS).read_bytes()
    assert {path.name for path in folder.iterdir()} == {file.name for file in look_up(NAME).files}
    assert [request.path for request in hub.requests if request.path.endswith((".bin", ".py"))] == []
    requests_before = len(hub.requests)
    model = resolve_model(NAME)
    assert (model.source, model.revision, model.path) == ("hub", COMMIT, str(folder))
    assert resolve_model(f"hub:{NAME}", COMMIT).path == str(folder)
    with pytest.raises(ModelError, match="not downloaded"):
        resolve_model(NAME, "other")
    assert plan_for({"model": NAME, "data": {"max_seq_length": 32}}).model.source == "hub"
    assert len(hub.requests) == requests_before, "the hub was asked without a press"


def test_cancel_keeps_what_came_and_the_next_press_goes_on(hub: Hub, served: Path) -> None:
    hub.seconds_a_piece = 0.05
    model, downloads = look_up(NAME), Downloads()
    running = downloads.start(model, None)
    part = part_path(model, next(file for file in model.files if file.name == WEIGHTS))
    until(lambda: part.is_file() and part.stat().st_size > 0)
    assert 0 < running.done_bytes < running.total_bytes
    assert downloads.start(model, None) is running, "a second press began a second download"
    assert downloads.cancel(NAME).state == "cancelled"
    until(lambda: bool(hub.bytes_of(WEIGHTS)))
    had = part.stat().st_size
    assert 0 < had < (served / WEIGHTS).stat().st_size
    with pytest.raises(ModelError):
        resolve_model(NAME)
    hub.seconds_a_piece = 0.0
    assert cached_bytes(model) >= had
    wait_for(again := downloads.start(model, None), "done")
    assert again.done_bytes == again.total_bytes
    assert hub.bytes_of(WEIGHTS)[-1].range == f"bytes={had}-"
    assert hub.bytes_of(WEIGHTS)[-1].sent == (served / WEIGHTS).stat().st_size - had
    assert Path(resolve_model(NAME).path, WEIGHTS).read_bytes() == (served / WEIGHTS).read_bytes()


def test_a_cut_line_is_taken_up_where_it_broke(hub: Hub, served: Path) -> None:
    hub.cut_after = 100_000
    folder = fetched(look_up(NAME))
    size = (served / WEIGHTS).stat().st_size
    first, second = hub.bytes_of(WEIGHTS)
    assert first.range is None and 0 < first.sent < size
    assert second.range == f"bytes={first.sent}-" and first.sent + second.sent == size
    assert (folder / WEIGHTS).read_bytes() == (served / WEIGHTS).read_bytes()


def test_a_killed_server_loses_nothing_that_came(hub: Hub, served: Path, tmp_path: Path) -> None:
    hub.seconds_a_piece = 0.05
    code = f"from tuning.hub.download import download_now; download_now({NAME!r}, None, None, lambda done, total: None)"
    env = dict(os.environ) | {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "cache")}
    child = subprocess.Popen([sys.executable, "-c", code], env=env, cwd=ROOT)
    model = look_up(NAME)
    part = part_path(model, next(file for file in model.files if file.name == WEIGHTS))
    until(lambda: part.is_file() and part.stat().st_size > 0)
    child.kill()
    child.wait()
    had, hub.seconds_a_piece = part.stat().st_size, 0.0
    fetched(model)
    size = (served / WEIGHTS).stat().st_size
    assert [(request.range, request.sent) for request in hub.bytes_of(WEIGHTS) if request.range] == [
        (f"bytes={had}-", size - had)
    ]
    assert Path(resolve_model(NAME).path, WEIGHTS).read_bytes() == (served / WEIGHTS).read_bytes()


def test_bytes_that_are_not_the_hubs_are_not_stored(hub: Hub, served: Path) -> None:
    model = look_up(NAME)
    file = next(file for file in model.files if file.name == WEIGHTS)
    part = part_path(model, file)
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * 1000)
    with pytest.raises(ModelError, match="did not arrive"):
        fetched(model)
    assert not part.exists()
    assert (fetched(model) / WEIGHTS).read_bytes() == (served / WEIGHTS).read_bytes()


@pytest.mark.slow
def test_the_command_line_downloads_only_when_asked_to(hub: Hub, tmp_path: Path) -> None:
    cache = {"HF_HUB_OFFLINE": "0", "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_TOKEN": SECRET}
    hub.gated_by = SECRET
    given = {"model": NAME, "max_steps": 1, "eval": {"every": None}}
    given |= {"data": {"train_rows": 4, "eval_rows": 2, "max_seq_length": 16}}

    def tuning(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tuning", *arguments],
            input=json.dumps(given),
            text=True,
            capture_output=True,
            env=dict(os.environ) | cache,
            cwd=ROOT,
            timeout=200,
        )

    for verb in ("estimate", "run"):
        refused = tuning(verb, "-")
        problem = json.loads(refused.stdout)["problems"][0]
        assert refused.returncode == 2 and problem["field"] == "model" and "--download" in problem["message"]
    assert hub.requests == []
    done = tuning("run", "-", "--download", "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert f"{NAME}:" in done.stderr and json.loads(done.stdout.splitlines()[-1])["kind"] == "finished"
    assert SECRET not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any("adapter" in str(path) for path in files)
    assert not any(SECRET.encode() in path.read_bytes() for path in files)
    assert tuning("estimate", "-").returncode == 0


# -- gated ------------------------------------------------------------------------------------------------------------
def test_a_gated_model_asks_for_a_token_and_the_token_stays_nowhere(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    hub.gated_by = SECRET
    shut = look_up(NAME)
    assert shut.gated and shut.locked and shut.shape is None and shut.weight_bytes > 0
    assert shut.problem is not None and "token" in shut.problem
    assert not any(request.authorized for request in hub.requests), "a token nobody typed was sent"
    wrong = look_up(NAME, token="hf_wrong" + SECRET)
    assert wrong.locked
    answer = look_up(NAME, token=SECRET)
    assert answer.gated and not answer.locked and answer.problem is None and answer.shape is not None
    downloads = Downloads()
    failed = downloads.start(answer, None)
    wait_for(failed, "failed")
    assert failed.message is not None and "token" in failed.message
    wait_for(downloads.start(answer, SECRET), "done")
    assert resolve_model(NAME).source == "hub"
    leaks = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert leaks == []
    assert SECRET not in caplog.text
    assert SECRET not in repr([vars(shut) if hasattr(shut, "__dict__") else shut, answer, failed])
