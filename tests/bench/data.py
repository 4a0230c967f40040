"""Opening, previewing and tokenizing a file of rows: CPU time and peak memory, beside plain `datasets` on the same.

Each measurement is a fresh process; its time is CPU seconds of all its threads, without imports; its memory is the most
it ever had resident (ru_maxrss), imports included. `datasets` does what its documentation shows: load_dataset, then map
in batches.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tuning.bench.measure import markdown
from tuning.core.paths import asset_path

MIB = 2**20
SMALL, LARGE = (10, 100), (1024,)
OURS = """
from tuning.data import encode_set, open_data
from tuning.data.preview.preview import preview
from tuning.settings.schema import DataSettings
from tuning.text import TextTokenizer
import tuning.web.data
tokenizer, settings = TextTokenizer(model), DataSettings(source=file, eval_fraction=0.0, max_seq_length=512)
def shown(): preview(settings, "causal_lm", 0, tokenizer, 32)
def opened(): return open_data(settings, "causal_lm", 0)
def tokens(data): return len(encode_set(data.train, tokenizer, settings, "causal_lm"))
"""
THEIRS = """
import datasets
from transformers import AutoTokenizer
datasets.disable_progress_bars()
tokenizer = AutoTokenizer.from_pretrained(model)
def opened(): return datasets.load_dataset("json", data_files=file, split="train", cache_dir=scratch)
def shown(): tokenizer(opened()[:200]["text"], truncation=True, max_length=512)
def tokens(data):
    cut = lambda rows: tokenizer(rows["text"], truncation=True, max_length=512)
    return len(data.map(cut, batched=True, remove_columns=["text"]))
"""
MEASURED = """
import json, resource, sys, time
file, model, scratch, work = sys.argv[1:]
{program}
began = time.process_time()
if work == "preview": shown()
else:
    data = opened()
    if work == "tokenize":
        began = time.process_time()
        tokens(data)
print(json.dumps([time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def table(repeats: int) -> str:
    """Files of 10 and 100 MB."""
    return _table(SMALL)


def large_table(repeats: int) -> str:
    """A file of 1 GB: minutes."""
    return _table(LARGE)


def _table(sizes: tuple[int, ...]) -> str:
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for size in sizes:
            file = _written(Path(folder) / f"{size}.jsonl", size * MIB)
            for work in ("preview", "open", "tokenize"):
                cells = [f"{size} MB", work]
                for program in (OURS, THEIRS):
                    seconds, peak = _measured(program, file, work)
                    cells += [f"{seconds:.2f} s", f"{peak / MIB:,.0f} MiB"]
                lines.append(cells)
            file.unlink()
    head = ["JSON Lines", "", "Tuning Fork", "peak", "datasets", "peak"]
    return markdown("Data: CPU time and peak memory", head, lines)


def _written(file: Path, size: int) -> Path:
    """Rows of 20 to 160 words from a fixed seed."""
    draw, written = random.Random(0), 0
    words = ["the", "river", "runs", "through", "an", "old", "town", "where", "people", "sell", "bread", "and", "boots"]
    with open(file, "w", encoding="utf-8") as out:
        while written < size:
            text = " ".join(draw.choices(words, k=draw.randrange(20, 160)))
            written += out.write(json.dumps({"text": f"{written} {text}."}) + "\n")
    return file


def _measured(program: str, file: Path, work: str) -> tuple[float, float]:
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        command = [
            sys.executable,
            "-c",
            MEASURED.format(program=program),
            str(file),
            str(asset_path("models", "tiny-town")),
            scratch,
            work,
        ]
        env = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": scratch, "TOKENIZERS_PARALLELISM": "true"}
        done = subprocess.run(command, capture_output=True, text=True, env=env, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak
