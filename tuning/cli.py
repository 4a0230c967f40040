"""The command line: python -m tuning estimate | run | bench | settings | serve.

It reads a settings file (`-` is standard input), and prints JSON on standard output and sentences on standard error.
Exit codes: 0 finished; 1 failed; 2 refused, with {"problems": [...]} on standard output; 130 cancelled.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuning.core.errors import Problem, SettingsError, TuningError
from tuning.core.hardware import Device, named_device
from tuning.data.locate import find_data_files, is_here, split_source
from tuning.memory.estimate import estimate
from tuning.memory.multi_device import device_shares
from tuning.memory.table_markdown import memory_table
from tuning.memory.usage import usage_of
from tuning.models.base_model import is_cached, split_spec
from tuning.plan.inputs import PlanInputs, open_inputs
from tuning.plan.plan import Plan, make_plan
from tuning.runs.events import Emitter, Event
from tuning.runs.executors.base import Sink
from tuning.runs.executors.thread import ThreadExecutor, ThreadHandle
from tuning.runs.results import Results
from tuning.runs.service import RunService
from tuning.runs.store import STORE, RunStore
from tuning.settings.schema import DataSettings, Settings
from tuning.settings.table import settings_table
from tuning.training.checkpoint_files import BEST_FILE, CHECKPOINTS
from tuning.training.job import Commands, Job
from tuning.training.run import run_job
from tuning.web.serving import ListenError, add_options, serving_of

PROGRESS_SECONDS = 1.0
CODES = {"finished": 0, "failed": 1, "cancelled": 130}
_BENCHES = (
    "all, or one of start, click, loop, accumulation, watchers, poll, questions, stored, methods, retrieval, memory,"
    " devices and data; data-large, estimate, published and ragged take minutes and are not among all"
)
LEFT_BEHIND = ("adapter", "model", "best", "predictions", CHECKPOINTS, BEST_FILE)
"""What a run has in its folder besides events.jsonl and settings.json; the last two only where it was cut off."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tuning", description="Experiment with fine-tuning settings.")
    commands = parser.add_subparsers(dest="verb", required=True)
    estimate_parser = commands.add_parser("estimate", help="print the memory estimate as one JSON object")
    estimate_parser.add_argument("settings", help="a settings JSON file, or - for standard input")
    estimate_parser.add_argument(
        "--device", help='what to hold it against, for example "T4 16 GB"; default: this machine'
    )
    estimate_parser.add_argument(
        "--devices", type=int, help="what each of so many takes, by arithmetic; training uses one"
    )
    estimate_parser.add_argument("--home", type=Path, help="the store that holds the run, where the model is run:ID")
    estimate_parser.add_argument(
        "--table", action="store_true", help="methods x micro-batches as a Markdown table instead"
    )
    run_parser = commands.add_parser("run", help="train, printing events as JSON lines")
    run_parser.add_argument("settings", help="a settings JSON file, or - for standard input")
    keeps = "keep settings.json, events.jsonl and adapter/ or model/ in this folder, instead of an earlier run's"
    run_parser.add_argument("--out", type=Path, help=keeps)
    run_parser.add_argument("--home", type=Path, help="keep the run in this store, where an open page shows it live")
    run_parser.add_argument(
        "--download", action="store_true", help="fetch model and data from the hub first (HF_TOKEN if gated)"
    )
    bench_parser = commands.add_parser("bench", help="measure, and print tables")
    bench_parser.add_argument("name", nargs="?", default="all", help=_BENCHES)
    bench_parser.add_argument("--repeats", type=int, default=7, help="interleaved repeats; the median is shown")
    commands.add_parser("settings", help="print the table of settings as Markdown")
    add_options(commands.add_parser("serve", help="open the page"))
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = _parser().parse_args(argv)
    try:
        if arguments.verb == "estimate":
            if arguments.table and arguments.devices is not None:
                message = "the table is about one device; leave devices out, or table"
                raise SettingsError([Problem("devices", arguments.devices, "none with table", message)])
            inputs, device = _opened(_read(arguments.settings), arguments.home), named_device(arguments.device)
            plan = make_plan(inputs)
            _print_notices(plan)
            print(memory_table(inputs, device) if arguments.table else _estimated(plan, device, arguments.devices))
            return 0
        if arguments.verb == "run":
            settings = _read(arguments.settings)
            if arguments.download:
                _download(settings)
            return _run(settings, arguments.out, arguments.home)
        if arguments.verb == "settings":
            print(settings_table())
            return 0
        if arguments.verb == "bench":
            from tuning.bench.tables import run_benches

            return run_benches(arguments.name, arguments.repeats)
        serving = serving_of(arguments, os.environ)
        print("Tuning Fork is starting…", flush=True)

        from tuning.ui.page import launch  # after the line above: the imports take a few seconds

        launch(serving)
        return 0
    except ListenError as error:
        print(str(error), file=sys.stderr)
        return 1
    except TuningError as error:
        problems = [problem.to_dict() for problem in error.problems]
        print(json.dumps({"problems": problems}, ensure_ascii=False, default=str))
        sentences = [f"{problem.field}: {problem.message}" for problem in error.problems]
        print("\n".join(sentences) or str(error), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader went away: end quietly, as `head` expects
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _estimated(plan: Plan, device: Device, devices: int | None) -> str:
    usage = usage_of(plan, device, make=True)
    result = estimate(usage).to_dict() | {"notices": [notice.to_dict() for notice in plan.notices]}
    if devices is not None:
        result["on_several"] = [share.to_dict() for share in device_shares(usage, devices)]
    return json.dumps(result)


def _read(name: str) -> Any:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8-sig")
        return json.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        message = f"the settings file {name!r} cannot be read: {error}"
        raise SettingsError([Problem("settings", name, "a readable file", message)]) from None
    except (ValueError, RecursionError) as error:
        message = f"the settings are not JSON: {error}"
        raise SettingsError([Problem("settings", name, "a JSON object", message)]) from None


def _download(given: Any) -> None:
    """Fetch the model and the data of these settings where they are hub ids and not here; progress on standard error.

    Raises TuningError.
    """
    from tuning.hub.data_sets import download_data_now
    from tuning.hub.download import download_now

    settings, token = Settings.from_dict(given), os.environ.get("HF_TOKEN")
    kind, name = split_spec(settings.model)
    if kind == "hub" and not is_cached(name, settings.revision):
        download_now(name, settings.revision, token, _progress_printer(name))
    data = settings.data
    kind, name = split_source(data.source)
    if kind == "hub" and not is_here(data):
        download_data_now(name, data.subset, data.revision, token, _progress_printer(name))


def _progress_printer(name: str) -> Callable[[int, int], None]:
    last_printed = 0.0

    def on_progress(done: int, total: int) -> None:
        nonlocal last_printed
        if done == total or time.monotonic() - last_printed > PROGRESS_SECONDS:
            last_printed = time.monotonic()
            print(f"{name}: {done / 2**20:,.1f} of {total / 2**20:,.1f} MiB", file=sys.stderr)

    return on_progress


def _run(given: Any, out: Path | None, home: Path | None) -> int:
    plan = make_plan(_opened(given, home))  # refused before a folder or a store is made
    _print_notices(plan)
    plan.model.check_complete()
    if out is not None:
        _refuse_out(out, plan)
    with tempfile.TemporaryDirectory() as scratch:
        folder = out or Path(scratch)
        for field, path in (("out", folder), ("home", home)):
            if path is not None:
                _make_folder(field, path)
        _clear(folder)
        try:
            with EventFile(folder / "events.jsonl") as lines:

                def print_event(event: Event) -> None:
                    lines.write(event)
                    print(event.to_line(), flush=True)

                if home is None:
                    end = _run_alone(plan, folder, print_event)
                else:
                    end = _run_in_store(given, folder, home, print_event)
        except BrokenPipeError:
            raise
        except OSError as error:
            message = f"{str(folder)!r} cannot be written: {error.strerror or error}; make room, or name another folder"
            raise _bad_out(folder, "a folder with room", message) from None
    return CODES[end]


class EventFile:
    """Writes the events of a run to a file. Where that fails it says so once on standard error, and the run goes on."""

    def __init__(self, path: Path) -> None:
        self._lines = open(path, "w", encoding="utf-8")  # noqa: SIM115  closed by __exit__
        self._path, self._failed = path, False

    def __enter__(self) -> EventFile:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # the disk is full now too
            self._lines.close()

    def write(self, event: Event) -> None:
        try:
            self._lines.write(event.to_line() + "\n")
            self._lines.flush()
        except OSError as error:
            if not self._failed:
                print(
                    f"{self._path}: {error.strerror or error}; events are missing in it from here on", file=sys.stderr
                )
            self._failed = True


def _opened(given: Any, home: Path | None) -> PlanInputs:
    """What a plan is made from, opened; a run as its base model is looked for in the store at `home`. Nothing is
    written. Raises TuningError."""
    if home is None or not (home.expanduser() / STORE).is_file():
        return open_inputs(given)
    store = RunStore(home)
    try:
        return open_inputs(given, Results(store).model)
    finally:
        store.close()


def _refuse_out(out: Path, plan: Plan) -> None:
    """Raises SettingsError where `out` is not new, empty or the folder of an earlier run, where base model or data lie
    in it, or where it lies in them."""
    inputs = [("base model", Path(plan.model.path)), *(("data", path) for path in _data_paths(plan.settings.data))]
    for what, path in inputs:
        for here, there in itertools.product(_spellings(out), _spellings(path)):
            if here.is_relative_to(there) or there.is_relative_to(here):
                message = f"{str(out)!r} holds the {what} {str(path)!r}, or lies in it; name another folder"
                raise _bad_out(out, "a folder apart from model and data", message)
    if not out.is_dir() or not any(out.iterdir()) or _is_of_a_run(out):
        return
    message = f"{str(out)!r} is not empty, and no run has made it; name a new folder, so that nothing in it is replaced"
    raise _bad_out(out, "a new or empty folder, or an earlier run's", message)


def _bad_out(out: Path, limit: str, message: str) -> SettingsError:
    return SettingsError([Problem("out", str(out), limit, message)])


def _spellings(path: Path) -> set[Path]:
    """The path as it is written, with the links of its parent resolved, and with all links resolved."""
    written = Path(os.path.abspath(path))
    return {written, written.parent.resolve() / written.name, written.resolve()}


def _data_paths(data: DataSettings) -> list[Path]:
    """The files of the rows, and the folder where a folder was named."""
    data_files = find_data_files(data)
    files = [*data_files.train, *(data_files.eval or ())]
    kind, name = split_source(data.source)
    return [*files, Path(os.path.expanduser(name))] if kind == "path" else files


def _is_of_a_run(folder: Path) -> bool:
    """Whether a run has left its settings and its events here."""
    try:
        with open(folder / "events.jsonl", encoding="utf-8") as lines:
            first = lines.readline()
        if first:
            Event.from_line(first)
    except (OSError, ValueError):
        return False
    return (folder / "settings.json").is_file()


def _print_notices(plan: Plan) -> None:
    """Print what was left out, guessed or replaced, for people; the `started` event has it for programs."""
    for notice in plan.notices:
        print(f"{notice.field}: {notice.message}", file=sys.stderr)


def _make_folder(field: str, path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{str(path)!r} cannot be a folder: {error.strerror}; name another"
        raise SettingsError([Problem(field, str(path), "a folder", message)]) from None


def _clear(folder: Path) -> None:
    """Remove what an earlier run has written into this folder; anything else in it stays."""
    if not _is_of_a_run(folder):
        return
    for name in LEFT_BEHIND:
        if (folder / name).is_dir() and not (folder / name).is_symlink():
            shutil.rmtree(folder / name, ignore_errors=True)
        else:  # a link is removed, and its target stays
            (folder / name).unlink(missing_ok=True)


def _stop_on_signals(stop: Callable[[], None]) -> None:
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, lambda *_: stop())


def _run_alone(plan: Plan, folder: Path, sink: Sink) -> str:
    (folder / "settings.json").write_text(json.dumps(plan.settings.to_dict(), indent=1), encoding="utf-8")
    commands = Commands()
    _stop_on_signals(commands.stop)
    job = Job(run_id=folder.name if folder.name else "run", attempt=1, plan=plan, folder=str(folder))
    return run_job(job, Emitter(job.run_id, 1, sink), commands)


def _run_in_store(given: Any, folder: Path, home: Path, sink: Sink) -> str:
    """Run in a store, where an open page shows the run live, and copy its artifacts to `folder`."""
    service = RunService(home, _EchoingExecutor(sink))
    try:
        run_id = service.start(given)
        _stop_on_signals(lambda: service.stop(run_id))
        while (end := service.wait(run_id, 0.2)) is None:  # short waits, so that a signal is noticed
            pass
        run_folder = service.run_folder(run_id)
        names = ("settings.json", service.artifact_name(run_id), "best")
        for name in names:
            if (run_folder / name).is_dir():
                shutil.copytree(run_folder / name, folder / name, dirs_exist_ok=True)
            elif (run_folder / name).is_file():
                shutil.copyfile(run_folder / name, folder / name)
        return end
    finally:
        service.close()


class _EchoingExecutor(ThreadExecutor):
    """The background thread, where a second sink gets every event too."""

    def __init__(self, second_sink: Sink) -> None:
        super().__init__()
        self._second_sink = second_sink

    def submit(self, job: Job, sink: Sink) -> ThreadHandle:
        def both(event: Event) -> None:
            sink(event)
            self._second_sink(event)

        return super().submit(job, both)
