"""A run decided in full: settings, model, data and every derived number, as plain data that crosses to a worker.

A plan is made from inputs that were opened once (`tuning.plan.inputs`), or refused with every reason why it cannot be
trained.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from tuning.core.errors import Notice, SettingsError
from tuning.core.hardware import Device
from tuning.data import CONVERSATION, TEXT, DataSet, DataSummary, read_first
from tuning.data.template_choice import template_notices
from tuning.methods import method_named
from tuning.models.base_model import BaseModel
from tuning.models.file_digests import changes
from tuning.plan.checks import check, head_notices, measure_prompts
from tuning.plan.derived import SHORTER, Derived, derive, length_notices, parameter_numbers
from tuning.plan.inputs import FindRunResult, PlanInputs, class_count, open_inputs
from tuning.settings.schema import DataSettings, Settings
from tuning.settings.versions import upgrade

SMALL_MODEL = 20_000_000
"""Parameters below which at least MIN_ROWS_SMALL_MODEL rows are evaluated at once: faster, and no result changes."""
MIN_ROWS_SMALL_MODEL = 32
PROMPT_NUMBER_PREFIXES = ("prompted_", "answered_", "asked_")
"""Prefixes of the names of numbers about prompts that a method has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run, decided in full."""

    settings: Settings
    model: BaseModel
    data: DataSummary
    device: Device
    derived: dict[str, Derived]
    notices: tuple[Notice, ...] = ()
    """Notices for before Start: everything left out, guessed, renamed, replaced or cut, by count."""
    kept_fingerprint: str | None = field(default=None, compare=False)
    """The fingerprint that a stored plan was stored with, so that later versions recognise its checkpoints."""

    def value(self, key: str) -> Any:
        """A derived number by name; raises KeyError."""
        return self.derived[key].value

    def with_device(self, device: Device) -> Plan:
        """The plan of the same run on another device."""
        return replace(self, device=device)

    @property
    def inputs(self) -> PlanInputs:
        """What the plan was made from, without rows: to check the run with other settings or on another device."""
        return PlanInputs(settings=self.settings, model=self.model, summary=self.data, device=self.device)

    @property
    def class_count(self) -> int:
        """Classes of the head to train; 0 for a language model."""
        return class_count(self.settings, self.data)

    def evaluation_batch_size(self, micro_batch_size: int | None = None) -> int:
        """Rows an evaluation takes at once: twice those of training, for nothing is stored for a backward pass, and at
        least MIN_ROWS_SMALL_MODEL for a small model."""
        small = self.value("total_parameters") < SMALL_MODEL
        return max(2 * (micro_batch_size or self.settings.micro_batch_size), MIN_ROWS_SMALL_MODEL if small else 1)

    @property
    def packing(self) -> bool:
        """Whether a micro-batch's rows are joined into one without padding, `null` resolved."""
        return bool(self.value("packing"))

    @property
    def chat(self) -> bool:
        """Whether rows are written through the model's chat template; questions to the run are written alike."""
        return self.data.chat

    @property
    def data_settings(self) -> DataSettings:
        """The settings of the data, `chat_template` decided."""
        return self.settings.data.replace(chat_template="on" if self.chat else "off")

    @property
    def system_prompt(self) -> str | None:
        """What stands before each prompt, in training and when it is asked; None where rows are texts without any."""
        return read_first(self.settings.data.system_prompt, self.data.shape)

    @property
    def fingerprint(self) -> str:
        """Equal for runs that must give the same curve on the same machine."""
        if self.kept_fingerprint is not None:
            return self.kept_fingerprint
        return _fingerprint(self.settings.to_dict(), self.data.fingerprint, asdict(self.model.shape))

    def to_dict(self) -> dict[str, Any]:
        return {
            "settings": self.settings.to_dict(),
            "model": self.model.to_dict(),
            "data": self.data.to_dict(),
            "device": asdict(self.device),
            "derived": {key: asdict(number) for key, number in self.derived.items()},
            "notices": [notice.to_dict() for notice in self.notices],
            "fingerprint": self.fingerprint,
        }

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Plan:
        """A stored plan; one of an older version keeps its old meaning, written out and with a notice."""
        settings, upgrade_notices = upgrade(plain["settings"])
        notices = (*(Notice.from_dict(stored) for stored in plain.get("notices", ())), *upgrade_notices)
        fingerprint = plain.get("fingerprint") or _fingerprint(
            plain["settings"], plain["data"]["fingerprint"], plain["model"]["shape"]
        )
        return Plan(
            settings=Settings.from_dict(settings),
            model=BaseModel.from_dict(plain["model"]),
            data=DataSummary.from_dict(plain["data"]),
            device=Device(**(plain["device"] | {"dtypes": tuple(plain["device"]["dtypes"])})),
            derived=_with_missing_numbers(
                settings, {key: Derived(**stored) for key, stored in plain["derived"].items()}
            ),
            notices=notices,
            kept_fingerprint=fingerprint,
        )


def _fingerprint(settings: dict[str, Any], data: str, shape: dict[str, Any]) -> str:
    return sha256(json.dumps([settings, data, shape], sort_keys=True).encode()).hexdigest()[:16]


def _with_missing_numbers(settings: dict[str, Any], derived: dict[str, Derived]) -> dict[str, Derived]:
    """The numbers of a stored plan, with those added that plans of its version did not store."""
    later = {
        "eval_every": Derived(value=settings["eval"]["every"], origin="eval.every"),
        "packing": Derived(value=bool(settings["data"]["packing"]), origin="data.packing"),
    }
    return later | derived


def plan_for(given: Any, find_run_result: FindRunResult | None = None) -> Plan:
    """The plan of a settings object on this machine. Raises TuningError with every problem."""
    return make_plan(open_inputs(given, find_run_result))


def changed_since(plan: Plan, data: DataSet) -> list[str]:
    """What has changed in rows and base model since the plan was made, in words. `data` are the rows of its settings,
    opened now. Empty for plans of versions that stored no digests."""
    model, changed = plan.model, list[str]()
    if not model.files:
        return changed
    if data.fingerprint != plan.data.fingerprint:
        changed.append(f"the rows of {plan.data.title} are others")
    changed += [f"{change} in the base model {model.title}" for change in changes(Path(model.path), model.files)]
    if model.adapter is not None:
        changed += [
            f"{change} in the adapter to train on" for change in changes(Path(model.adapter), model.adapter_files)
        ]
    return changed


def make_plan(inputs: PlanInputs) -> Plan:
    """The plan of these inputs with every derived number. Raises SettingsError with all that cannot be trained."""
    settings, model, data = inputs.settings, inputs.model, inputs.summary
    prompts = measure_prompts(inputs, settings.method)
    problems = check(inputs, prompts)
    if problems:
        raise SettingsError(problems)
    derived = derive(inputs, prompts)
    notices = (
        *inputs.notices,
        *(inputs.weights.notices if inputs.weights is not None else ()),
        *head_notices(inputs),
        *model.notices,
        *data.notices,
        *template_notices(settings.data, model, settings.recipe, pairs=_has_answers(settings, data)),
        *length_notices(settings, data, derived),
    )
    return Plan(settings=settings, model=model, data=data, device=inputs.device, derived=derived, notices=notices)


def _has_answers(settings: Settings, data: DataSummary) -> bool:
    """Whether rows are prompts with completions."""
    return settings.task == "causal_lm" and data.shape not in (TEXT, CONVERSATION)


def with_method(plan: Plan, block: Any) -> Plan:
    """The plan with another method, or with other settings of its own, to estimate what that would take.

    Numbers of prompts stay only if `block` is exactly the variant with shorter prompts that was measured already.
    """
    derived = dict(plan.derived)
    if "prompted_length" in derived:
        shorter = method_named(plan.settings.method.name).with_shorter_prompts(plan.settings.method)
        derived = {name: number for name, number in derived.items() if not name.startswith(PROMPT_NUMBER_PREFIXES)}
        if shorter is not None and shorter[0] == block:
            derived |= {
                name.removeprefix(SHORTER): number for name, number in derived.items() if name.startswith(SHORTER)
            }
    settings = plan.settings.replace(method=block)
    return replace(plan, settings=settings, derived=derived | parameter_numbers(settings, plan.model, plan.data))
