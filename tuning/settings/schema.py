"""The settings that a person chooses, as frozen pydantic models.

`Settings.from_dict` takes the JSON object of a settings file, the page's form or a request, and raises a SettingsError
that lists every faulty field at once. Keys left out take the default written here; an unknown key is refused; no value
is ever changed. The string under a field is its help everywhere: form, command line, assets/docs/settings.md.
"""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag, ValidationError

from tuning.core import fields
from tuning.core.errors import Problem, SettingsError
from tuning.core.fields import LIST, WHOLE, JsonObject, SettingsBlock, Text, fields_of, read_block
from tuning.methods import METHODS, method_named
from tuning.methods.base import MethodSettings
from tuning.methods.recipes import read_recipe
from tuning.settings.versions import VERSION, upgrade
from tuning.text.question import MOST_NEW_TOKENS, prompt_problems

LONGEST_NAME, LONGEST_PATH = 200, 4_000
"""Characters of a file's name (less what caches put before it, of 255) and of a whole path."""
Count = Annotated[int, Field(ge=1, le=100_000), WHOLE]
Batch = Annotated[int, Field(ge=1, le=4096), WHOLE]
Rows = Annotated[int, Field(ge=1, le=1_000_000_000), WHOLE]
Share = Annotated[int | float, Field(ge=0, lt=1)]
"""A whole number stays one, as it stands in the JSON."""


class DataSettings(SettingsBlock):
    source: Text = "reviews"
    """A bundled data set's name; the path of a file or folder: JSONL, JSON, CSV, TSV, Parquet or plain text; or a hub
    id such as org/name, which Look up shows and fetches."""
    subset: Text | None = None
    """Which part of a data set on the hub, or of a clone of it in a folder, as Look up lists them; empty takes its
    default. Not for bundled sets and single files."""
    revision: Text | None = None
    """Branch, tag or commit of a data set on the hub; empty takes its main branch. Not for bundled sets and files."""
    split: Text | None = None
    """The split to train on: of a data set on the hub, or a file's name in the folder, without its ending; empty takes
    `train`."""
    eval_split: Text | None = None
    """The split to evaluate on, or a file beside the rows; empty takes `eval` or its like, else eval_fraction is held
    out."""
    format: Literal["auto", "jsonl", "json", "csv", "parquet", "lines", "paragraphs"] = "auto"
    """What the file is: auto looks at its content, which has to be what its name promises. lines and paragraphs are
    plain text, cut at each line or blank line."""
    encoding: Literal["auto", "utf-8", "utf-16", "latin-1", "cp1252"] = "auto"
    """How bytes become letters: auto is UTF-8, or what a byte-order mark says, and refuses anything else."""
    bad_rows: Literal["stop", "skip"] = "stop"
    """What happens to rows that cannot be used: stop refuses to start and lists them; skip leaves them out."""
    eval_fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.1
    """Share of the rows held out for evaluation where the data has no split of its own."""
    columns: dict[Text, Text] = Field(default_factory=dict)
    """Which column plays which role: text and label (text_pair: a second text); prompt and completion (input: what
    stands after the prompt; system, history); messages (system, tools, loss_mask). Empty recognises them; what is not
    named here is not used. A text such as "Q: {question}" puts columns together."""
    label_names: Annotated[tuple[Text, ...], LIST] | None = None
    """Names of the classes in their order; empty reads them from the rows, or from a hub set's card."""
    text_template: Text | None = None
    """How a row's text or prompt is written, with {column} placeholders; empty takes the set's own."""
    system_prompt: Text | None = None
    """A sentence put before every prompt."""
    loss_on: Literal["auto", "response", "all", "last_turn"] = "auto"
    """What is learned: auto takes the response where there is one, else all tokens."""
    separator: Text | None = None
    """What is put between a prompt and its completion where neither has a blank there, such as one space. Empty joins
    them as written; only a prompt that is an instruction or question column, or has an input, is followed by one
    space."""
    chat_template: Literal["auto", "on", "off"] = "auto"
    """Whether prompts with completions are written as turns of the model's chat template: auto does so for chat
    models. Conversations always are."""
    special_tokens: Literal["tokenizer", "config"] = "tokenizer"
    """Which begin and end tokens frame a row: tokenizer puts what the tokenizer itself puts, and the end; config puts
    what config.json names, as version 1 did."""
    max_seq_length: Annotated[int, Field(ge=8, le=1_000_000), WHOLE] = 128
    """The most tokens a row may have. Longer sees more of a row; memory grows with it."""
    long_text: Literal["split", "cut"] = "split"
    """What happens to plain texts above max_seq_length: split makes blocks of them, so that every token is read; cut
    keeps the beginning. Rows with an answer or a class are always cut."""
    packing: bool | None = None
    """Join a micro-batch's rows into one without padding; no row sees another. Empty joins them where attention does
    so without a mask (flex, flash)."""
    group_by_length: bool = True
    """Put rows of like length into one micro-batch, inside an update only: less padding, the same update."""
    train_rows: Rows | None = None
    """Use only this many training rows; empty uses all."""
    eval_rows: Rows | None = None
    """Use only this many evaluation rows; empty uses all."""
    row_choice: Literal["seeded", "first"] = "seeded"
    """Which rows train_rows and eval_rows take: seeded draws them by the seed, class by class where there are classes;
    first takes them from the top of the file."""


class OptimizerSettings(SettingsBlock):
    name: Literal["adamw", "sgd", "adafactor", "adamw_8bit", "muon"] = "adamw"
    """adamw keeps two values a weight and forgives most rates; adamw_8bit a quarter of that, muon half, sgd and
    adafactor next to none."""
    learning_rate: Annotated[float, Field(gt=0.0, le=10.0)] | None = None
    """How far one update moves the weights. Empty takes the method's own default. Too high forgets or diverges, too low
    learns nothing."""
    weight_decay: Annotated[float, Field(ge=0.0, le=10.0)] = 0.0
    """Pulls weights towards zero a little at each update."""
    betas: Annotated[tuple[Share, Share], LIST] = (0.9, 0.999)
    """AdamW's memory of past gradients and of their squares, each at least 0 and below 1."""
    eps: Annotated[float, Field(gt=0.0, le=1.0)] = 1e-8
    """AdamW's guard against dividing by zero."""
    momentum: Annotated[float, Field(ge=0.0, le=0.9999)] = 0.0
    """SGD's memory of past gradients; one more value for each trained weight when above 0."""
    max_grad_norm: Annotated[float, Field(gt=0.0, le=1e6)] | None = 1.0
    """A longer gradient is shortened to this length, once for each update; empty never does."""


class ScheduleSettings(SettingsBlock):
    name: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls from warm-up to the last update."""
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000), WHOLE] = 0
    """Updates over which the learning rate rises from zero."""
    min_lr_ratio: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """The share of the learning rate left at the end."""


Precision = Literal["fp32", "autocast_bf16"]
COMPUTED_IN: dict[Precision, str] = {"fp32": "fp32", "autocast_bf16": "bf16"}
"""The number type that each precision computes in, in the words of `Device.dtypes`."""
TextMetric = Literal["perplexity", "token_accuracy", "exact_match"]
ClassMetric = Literal["accuracy", "macro_f1"]
Metric = Literal[TextMetric, ClassMetric]
TEXT_METRICS: tuple[str, ...] = get_args(TextMetric)
CLASS_METRICS: tuple[str, ...] = get_args(ClassMetric)
WRITTEN_METRICS = frozenset({"exact_match"})
"""Metrics for which the model writes its answers."""


class EvalSettings(SettingsBlock):
    every: Count | None = 10
    """Evaluate after this many updates, besides the start and the end; empty takes the smallest number whose
    evaluations read at most a tenth of the tokens that training reads."""
    metrics: Literal["auto", Metric] | Annotated[tuple[Metric, ...], Field(min_length=1), LIST] = "auto"
    """What is measured beside the loss: auto is all that needs no generation; or names, such as exact_match, which
    lets the model write its answers."""
    generate_rows: Annotated[int, Field(ge=1, le=10_000), WHOLE] = 32
    """How many evaluation rows are answered, where a metric needs written answers."""
    max_seconds: Annotated[float, Field(gt=0.0, le=86_400)] = 20.0
    """The longest that writing answers may take in one evaluation, in seconds; the rest is left out, and told."""
    max_new_tokens: Annotated[int, Field(ge=1, le=MOST_NEW_TOKENS), WHOLE] = 32
    """The longest answer, in tokens, where one is generated."""
    patience: Count | None = None
    """Stop early after this many evaluations without a better one; empty never does."""


class SaveSettings(SettingsBlock):
    every: Count | None = None
    """Write a checkpoint after this many updates; empty leaves that to every_seconds. A run that is stopped always
    leaves one."""
    every_seconds: Annotated[float, Field(gt=0.0, le=1e9)] | None = None
    """Write one after so many seconds of training too; empty does so as often as it takes under 2 % of the run, never
    within 30 seconds. A number longer than the run switches it off."""
    keep: Annotated[int, Field(ge=1, le=100), WHOLE] = 2
    """How many checkpoints are kept, the newest ones."""
    best_by: Literal["eval_loss", Metric] = "eval_loss"
    """The best weights are those with the best value of this at an evaluation. Without evaluation rows none are the
    best, and the last are kept. A value that is not a number is never the best."""


class SampleSettings(SettingsBlock):
    prompts: Annotated[tuple[Text, ...], LIST] = ()
    """Prompts answered while training goes on."""
    every: Count | None = None
    """Answer them after this many updates; empty never does."""


def _method_name(given: Any) -> Any:
    """The name of the method of a JSON object or a block; `lora` for an object that names none."""
    return given.get("name", "lora") if isinstance(given, dict) else getattr(given, "name", None)


if TYPE_CHECKING:
    ChosenMethod = MethodSettings
else:  # one of the registry's blocks, by its name
    _EACH = (Annotated[method.settings, Tag(method.name)] for method in METHODS)
    ChosenMethod = Annotated[reduce(or_, _EACH), Discriminator(_method_name)]


class Settings(SettingsBlock):
    version: Annotated[int, Field(ge=VERSION, le=VERSION), WHOLE] = VERSION
    """The version of this format. Settings of version 1 are read too, with their old meaning written out."""
    task: Literal["causal_lm", "sequence_classification"] = "causal_lm"
    """causal_lm learns to continue a text; sequence_classification learns to sort texts into classes."""
    model: Text = "tiny-town"
    """tiny-town comes with this app. You can also give the path of a model folder such as ./my-model, or a hub id
    such as org/name."""
    revision: Text | None = None
    """Branch, tag or commit of a hub model; empty takes its main branch. Not used for bundled models and folders."""
    data: DataSettings = Field(default_factory=DataSettings)
    recipe: JsonObject | None = None
    """A way to prepare the rows, as JSON: {"name": "r_tuning", "form": "refusal", "threshold": 0.0}; empty for none."""
    method: ChosenMethod = Field(default_factory=lambda: method_named("lora").settings())
    micro_batch_size: Batch = 4
    """Rows on the device at once. Higher is faster and takes more memory for activations."""
    gradient_accumulation_steps: Batch = 8
    """Micro-batches added up before one update. Raises the effective batch at no memory cost, at the price of time."""
    num_devices: Annotated[int, Field(ge=1, le=1), WHOLE] = 1
    """Devices sharing each update. One for now."""
    optimizer: OptimizerSettings = Field(default_factory=OptimizerSettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    max_steps: Annotated[int, Field(ge=1, le=10_000_000), WHOLE] | None = 100
    """How many times the weights are changed. Give this or num_epochs, not both."""
    num_epochs: Annotated[float, Field(gt=0.0, le=10_000)] | None = None
    """How many times to go through the rows instead of counting updates."""
    eval: EvalSettings = Field(default_factory=EvalSettings)
    save: SaveSettings = Field(default_factory=SaveSettings)
    sample: SampleSettings = Field(default_factory=SampleSettings)
    precision: Precision = "fp32"
    """autocast_bf16 keeps 32-bit weights and computes products in 16 bits: faster on many rows, a bit rougher. It was
    named bf16 in version 1."""
    attention: Literal["sdpa", "eager", "flex", "flash"] = "sdpa"
    """eager stores the attention matrix, the others never do. flex and flash need CUDA. Same answer."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass instead of keeping them: less memory, about a third more time."""
    loss_reduction: Literal["window_mean", "micro_batch_mean", "sum"] = "window_mean"
    """window_mean is right; the other two are common mistakes, kept for lessons."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where it runs: auto takes a CUDA card where there is one."""
    seed: Annotated[int, Field(ge=0, le=2**31 - 1), WHOLE] = 0
    """Fixes the order of rows and every random start. The same seed gives the same curve."""

    @staticmethod
    def from_dict(given: Any) -> Settings:
        """Settings from a JSON object, of this version or an older one. Raises SettingsError with all problems."""
        given, _ = upgrade(given)
        if not isinstance(given, dict):
            raise SettingsError([Problem("settings", given, "an object", "the settings must be one JSON object.")])
        if given.get("num_epochs") is not None and "max_steps" not in given:
            given = given | {"max_steps": None}  # giving one sets the other's default aside
        try:
            settings, problems, item_problems = Settings.model_validate(given), list[Problem](), list[Problem]()
        except ValidationError:
            settings, problems, item_problems = _read_faulty(given)
        problems += _combination_problems(settings, {problem.field for problem in problems}, item_problems)
        if problems:
            raise SettingsError(problems)
        return settings

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of this task that are measured, `auto` resolved."""
        chosen = self.eval.metrics
        if chosen != "auto":
            return chosen if isinstance(chosen, tuple) else (chosen,)
        of_task = CLASS_METRICS if self.task == "sequence_classification" else TEXT_METRICS
        return tuple(name for name in of_task if name not in WRITTEN_METRICS)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object; `Settings.from_dict` of it gives equal settings."""
        return self.model_dump(mode="json")


BLOCKS: dict[str, type[SettingsBlock]] = {
    "data": DataSettings,
    "optimizer": OptimizerSettings,
    "schedule": ScheduleSettings,
    "eval": EvalSettings,
    "save": SaveSettings,
    "sample": SampleSettings,
}


ITEM_LIMITS = {
    "optimizer.betas": (
        "two numbers in [0, 1)",
        "needs two numbers, each at least 0 and below 1; try 0.9 and 0.999.",
    ),
    "sample.prompts": ("a list of texts", "needs a list of texts."),
    "data.label_names": ("a list of texts", "needs a list of texts."),
    "data.columns": ("role: column name", "needs texts as values."),
}
"""Fields that hold lists or objects: the limit of what is inside, and the sentence that refuses it, in the order in
which problems are listed."""


def _read_faulty(given: dict[str, Any]) -> tuple[Settings, list[Problem], list[Problem]]:
    """Settings with the default in place of what is faulty, block by block, so that all faults are found; the
    problems, and those inside lists and objects (`ITEM_LIMITS`)."""
    plain = {name: value for name, value in given.items() if name not in BLOCKS and name != "method"}
    settings, problems, item_problems = read_block(Settings, plain, "", ITEM_LIMITS, nested=(*BLOCKS, "method"))
    changes: dict[str, SettingsBlock] = {}
    for name, model in BLOCKS.items():
        changes[name], faults, deeper = read_block(model, given.get(name, {}), f"{name}.", ITEM_LIMITS)
        problems += faults
        item_problems += deeper
    changes["method"], faults = _read_method(given.get("method", {}))
    return settings.replace(**changes), problems + faults, item_problems


def _read_method(given: Any) -> tuple[MethodSettings, list[Problem]]:
    """The settings of a method with defaults in place of faulty ones, and their problems."""
    name = _method_name(given) if isinstance(given, dict) else None
    methods = {method.name: method for method in METHODS}
    if not isinstance(name, str) or name not in methods:
        names = ", ".join(methods)
        value = name if isinstance(given, dict) else given
        message = f"no method is named {value!r:.60}; use one of {names}."
        return method_named("lora").settings(), [Problem("method.name", value, names, message)]
    block, problems, _ = read_block(methods[name].settings, given, "method.")
    return block, problems


def _combination_problems(settings: Settings, faulty: set[str], item_problems: list[Problem]) -> list[Problem]:
    """The problems of fields in combination, with `item_problems` among them in the order in which all are listed.

    A field of `faulty` has its default in these settings.
    """
    problems = []
    if settings.max_steps is not None and settings.num_epochs is not None:
        message = "give max_steps or num_epochs, not both; leave one of them empty."
        problems.append(Problem("num_epochs", settings.num_epochs, "one of the two", message))
    if settings.max_steps is None and settings.num_epochs is None and not {"max_steps", "num_epochs"} & faulty:
        message = "say how long to train: give max_steps or num_epochs."
        problems.append(Problem("max_steps", None, "one of the two", message))
    problems += [problem for path in ITEM_LIMITS for problem in item_problems if problem.field == path]
    if settings.sample.prompts and not any(problem.field == "sample.prompts" for problem in problems):
        problems += [replace(problem, field="sample.prompts") for problem in prompt_problems(settings.sample.prompts)]
    problems += _name_problems(settings)
    problems += _metric_problems(settings)
    problems += read_recipe(settings.recipe)[1]
    return problems


def _name_problems(settings: Settings) -> list[Problem]:
    """Problems of names of files, folders and hub repositories that no file system can hold."""
    data = settings.data
    names = {
        "model": settings.model,
        "revision": settings.revision,
        "data.source": data.source,
        "data.subset": data.subset,
        "data.revision": data.revision,
        "data.split": data.split,
        "data.eval_split": data.eval_split,
        "method.index": getattr(settings.method, "index", None),
    }
    problems = []
    for path, name in names.items():
        longest = max((len(part.encode("utf-8", "replace")) for part in (name or "").split("/")), default=0)
        if longest > LONGEST_NAME or len(name or "") > LONGEST_PATH:
            message = f"a part of it has {longest:,} characters, and no file has a name of more than {LONGEST_NAME}."
            problems.append(Problem(path, name, f"up to {LONGEST_NAME} characters between two /", message))
    return problems


def _metric_problems(settings: Settings) -> list[Problem]:
    """Problems of metrics that do not belong to the task, and of a `best_by` that is not measured."""
    of_task = CLASS_METRICS if settings.task == "sequence_classification" else TEXT_METRICS
    problems = []
    for name in settings.metrics:
        if name not in of_task:
            message = f"{name} does not belong to {settings.task}; use {', '.join(of_task)}, or auto."
            problems.append(Problem("eval.metrics", list(settings.metrics), ", ".join(of_task), message))
    best, measured = settings.save.best_by, ("eval_loss", *settings.metrics)
    if best not in measured:
        message = f"{best} is not measured; add it to eval.metrics, or use one of {', '.join(measured)}."
        problems.append(Problem("save.best_by", best, ", ".join(measured), message))
    return problems


def all_fields(method: str = "lora") -> dict[str, fields.Field]:
    """Every simple setting by its dotted path, with the block of the named method."""
    by_path = dict(fields_of(Settings))
    for name, block in BLOCKS.items():
        by_path |= {field.path: field for field in fields_of(block, f"{name}.").values()}
    return by_path | {field.path: field for field in fields_of(method_named(method).settings, "method.").values()}


def choices(path: str, method: str = "lora") -> tuple[str, ...]:
    """The words that a setting accepts; empty where it is no choice of words."""
    return all_fields(method)[path].limit.choices


def default(path: str, method: str = "lora") -> Any:
    """The value a setting has when it is left out."""
    return all_fields(method)[path].default
