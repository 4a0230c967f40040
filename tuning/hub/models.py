"""Models on the hub: look-up before any weight is fetched.

A `HubModel` has files, sizes, licence, shape, and what would keep it from being trained here. The hub is asked only
when a person presses a button for it. A token is passed on with the request and is stored nowhere; no error text of the
library is shown, so none can carry it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tuning.core.errors import ModelError
from tuning.hub.connection import ANSWER_SECONDS, connect_to_hub, within
from tuning.hub.repo import HubFile, HubRepo, hub_file, licence_of, translate_hub_errors
from tuning.models.base_model import HUB_ID, INDEX, WEIGHTS, read_config, tuning_of
from tuning.models.shapes import ModelShape

_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
ALLOWED = frozenset(
    {
        "config.json",
        "generation_config.json",
        WEIGHTS,
        INDEX,
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "vocab.json",
        "merges.txt",
        "vocab.txt",
        "tokenizer.model",
        "spiece.model",
        "sentencepiece.bpe.model",
        "chat_template.jinja",
    }
)
"""The names of the only files that are ever fetched, besides shards of weights: no pickle, no code, no other format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubModel(HubRepo):
    """A model as the hub describes it; where it is locked, its config could not be read."""

    shape: ModelShape | None
    tasks: tuple[str, ...]
    chat_template: bool
    parameters: int | None

    @property
    def weight_bytes(self) -> int:
        """Bytes of all files of weights."""
        return sum(file.size for file in self.files if file.name.endswith(".safetensors"))

    @property
    def tuned(self) -> tuple[str, str]:
        """`chat`, `base` or `unclear`, and a sentence about it."""
        return tuning_of(self.title, self.chat_template)


def look_up(model_id: str, revision: str | None = None, token: str | None = None) -> HubModel:
    """Look a model up on the hub. Raises ModelError with a sentence, on field `token` where a token would help."""
    name = model_id.removeprefix("hub:").strip()
    if not HUB_ID.fullmatch(name) or "--" in name or ".." in name:
        raise ModelError(f"{model_id!r} is no hub id; write it as org/name", model_id, "org/name")
    address = connect_to_hub()
    late = f"The hub at {address} took the connection but did not answer within {ANSWER_SECONDS:g} seconds; try again."
    return within(ANSWER_SECONDS, lambda: _ask(address, name, revision or None, token or None), late)


def _ask(address: str, name: str, revision: str | None, token: str | None) -> HubModel:
    """The hub's answer about a model. Raises ModelError."""
    from huggingface_hub import HfApi

    with translate_hub_errors(name, revision, token):
        # False where no token was typed: one kept on this machine is not sent without being asked for
        api = HfApi(endpoint=address, token=token or False)
        info = api.model_info(name, revision=revision, files_metadata=True, timeout=ANSWER_SECONDS)
    names = {sibling.rfilename for sibling in info.siblings or ()}
    config, locked = _config(address, name, str(info.sha), token) if "config.json" in names else (None, False)
    shape, tasks, problem = _shape_tasks_and_problem(name, names, config, locked)
    return HubModel(
        id=name,
        revision=revision,
        commit=str(info.sha),
        files=_files_to_fetch(info.siblings or ()),
        gated=bool(info.gated),
        locked=locked,
        licence=licence_of(info.card_data.to_dict() if info.card_data else {}),
        shape=shape,
        tasks=tasks,
        chat_template=_has_chat_template(names, info.config),
        parameters=info.safetensors.total if info.safetensors else shape.parameters if shape else None,
        problem=problem,
    )


def _files_to_fetch(siblings: Iterable[Any]) -> tuple[HubFile, ...]:
    """The allowed files, weights last: plain names in the model's top folder, for other names are not trusted."""
    files = [hub_file(sibling) for sibling in siblings]
    files = [file for file in files if file.name in ALLOWED or _SHARD.fullmatch(file.name)]
    files.sort(key=lambda file: (file.name.endswith(".safetensors"), file.name))
    if any(file.name == WEIGHTS for file in files):  # one file or shards: never both
        return tuple(file for file in files if file.name != INDEX and not _SHARD.fullmatch(file.name))
    return tuple(files)


def _has_chat_template(names: set[str], summary: Any) -> bool:
    """Whether the model has a chat template: a file, or a member of the tokenizer in the hub's summary of its
    configs."""
    tokenizer = summary.get("tokenizer_config") if isinstance(summary, dict) else None
    return "chat_template.jinja" in names or bool(isinstance(tokenizer, dict) and tokenizer.get("chat_template"))


def _config(address: str, name: str, commit: str, token: str | None) -> tuple[Any, bool]:
    """The model's config.json, and whether it is locked behind a licence that this token has not accepted."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers, get_session

    url = hf_hub_url(name, "config.json", revision=commit, endpoint=address)
    with translate_hub_errors(name, commit, token):
        answer = get_session().get(url, headers=build_hf_headers(token=token or False), timeout=ANSWER_SECONDS)
        if answer.status_code in (401, 403):
            return None, True
        answer.raise_for_status()
        return answer.json(), False


def _shape_tasks_and_problem(
    name: str, names: set[str], config: Any, locked: bool
) -> tuple[ModelShape | None, tuple[str, ...], str | None]:
    """The model's shape and tasks, and what keeps it from being trained here; `names` are those of its files."""
    if locked:
        return None, (), f"{name} is gated: accept its licence on the hub's page, then paste a token that may read it."
    if config is None:
        return None, (), f"{name} has no config.json, so it is no transformers model; choose another."
    try:
        shape, tasks = read_config(config, name)
    except ModelError as error:
        return None, (), str(error)
    if WEIGHTS not in names and INDEX not in names:
        return (
            shape,
            tasks,
            (
                f"{name} has no safetensors weights, only formats that can run code when opened or that transformers "
                "does not read; look for a revision or a copy with model.safetensors."
            ),
        )
    if "tokenizer.json" not in names:
        message = (
            f"{name} has no tokenizer.json. Save it once with AutoTokenizer and save_pretrained, and use the folder."
        )
        return shape, tasks, message
    return shape, tasks, None
