"""The small world's tokenizer, trained to the same file each time: byte-level BPE, 2,048 tokens, single digits.

Run `python assets/make/tokenizer.py --out DIR`.
"""

from __future__ import annotations

import argparse
import json
import os
from itertools import islice
from pathlib import Path

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from documents import documents  # noqa: E402
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: E402
from world import make_world  # noqa: E402

VOCABULARY = 2048
END, PAD = "<|endoftext|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}Assistant: {% generation %}{{ message['content'] }}{{ eos_token }}"
    "{% endgeneration %}{{ '\\n' }}"
    "{% elif message['role'] == 'user' %}User: {{ message['content'] }}{{ '\\n' }}"
    "{% else %}System: {{ message['content'] }}{{ '\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def train_tokenizer(texts: int = 20_000) -> Tokenizer:
    """A tokenizer trained on the first documents and on every printable ASCII character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    printable = "".join(map(chr, range(32, 127)))
    stream = (text for _, text in islice(documents(make_world(), "tokenizer"), texts))
    tokenizer.train_from_iterator([printable, " ".join(printable), *stream], trainer)
    return tokenizer


def save_tokenizer(out: Path, texts: int = 20_000) -> Tokenizer:
    """Write tokenizer.json and tokenizer_config.json so that AutoTokenizer reads them."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer(texts)
    tokenizer.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END,
        "eos_token": END,
        "pad_token": PAD,
        "model_max_length": 512,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return tokenizer


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "models" / "tiny-town")
    save_tokenizer(parser.parse_args().out)
