"""Training jobs for tests, on a tiny random model and rows of unequal length.

A test gives a folder to write to, and the settings that it wants different.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tuning.plan.plan import plan_for
from tuning.runs.events import Emitter, Event
from tuning.training.job import Commands, Job

WORDS = ("the a red green dog cat likes sees big small house tree and good bad never always runs to from").split()  # noqa: SIM905


def make_model(folder: Path, hidden: int = 32, layers: int = 2) -> Path:
    """A Llama of random weights with a word tokenizer, loadable by name."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    names = ["<pad>", "<bos>", "<eos>", "<unk>", *WORDS, "yes", "no", ":"]
    tokenizer = Tokenizer(models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "pad_token": "<pad>",
                "bos_token": "<bos>",
                "eos_token": "<eos>",
                "unk_token": "<unk>",
            }
        )
    )
    with torch.random.fork_rng():
        torch.manual_seed(7)
        config = LlamaConfig(
            vocab_size=len(names),
            hidden_size=hidden,
            intermediate_size=2 * hidden,
            num_hidden_layers=layers,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            initializer_range=0.1,
        )
        LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def make_rows(file: Path, count: int = 67, seed: int = 3) -> Path:
    """Prompts with answers and labels, of very unequal length."""
    draw = random.Random(seed)
    lines = []
    for _ in range(count):
        text = " ".join(draw.choice(WORDS) for _ in range(draw.randint(2, 40)))
        label = "yes" if text.split()[0] < "h" else "no"
        answer = " ".join([label] + [draw.choice(WORDS) for _ in range(draw.randint(0, 9))])
        lines.append(json.dumps({"text": text, "prompt": text + " :", "completion": f" {answer}", "label": label}))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


class TinyJobs:
    """A model folder and a rows file; makes jobs from a few changed settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model = make_model(folder / "base")
        self.rows = make_rows(folder / "rows.jsonl")
        self._jobs = 0

    def settings(self, **changes: Any) -> dict[str, Any]:
        """The settings object with these changes; an object among them changes members of its block."""
        columns = {"prompt": "prompt", "completion": "completion"}
        if changes.get("task") == "sequence_classification":
            columns = {"text": "text", "label": "label"}
        plain: dict[str, Any] = {
            "model": str(self.model),
            "data": {"source": str(self.rows), "columns": columns, "max_seq_length": 64},
            "method": {"name": "full"},
            "micro_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "max_steps": 6,
            "optimizer": {"learning_rate": 3e-3},
            "eval": {"every": 3},
            "device": "cpu",
        }
        for key, value in changes.items():
            plain[key] = plain.get(key, {}) | value if isinstance(value, dict) and key != "method" else value
        return plain

    def job(self, folder: Path | None = None, attempt: int = 1, **changes: Any) -> Job:
        """A job with these changed settings, in a new folder unless one is given."""
        self._jobs += 1
        run_folder = folder or self.folder / f"run{self._jobs}"
        return Job(run_id="r", attempt=attempt, plan=plan_for(self.settings(**changes)), folder=str(run_folder))


def run(job: Job, commands: Commands | None = None, on_event: Any = None) -> tuple[str, list[Event]]:
    """Run a job in this thread. Returns its end state and its events; `on_event` is called with each as it happens."""
    from tuning.training.run import run_job

    events: list[Event] = []

    def sink(event: Event) -> None:
        events.append(event)
        if on_event is not None:
            on_event(event)

    return run_job(job, Emitter(job.run_id, job.attempt, sink), commands or Commands()), events


def series(events: list[Event], key: str = "loss", kind: str = "step") -> list[float]:
    """The number under this key of each event of a kind."""
    return [event.data[key] for event in events if event.kind == kind]
