"""The memory bar as plain data, and the colours and words of the charts. The page's script draws them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypedDict

from tuning.core.quantities import size_text
from tuning.memory.estimate import MemoryEstimate
from tuning.memory.fixes import Fix

PALETTE = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#a16207", "#64748b")
"""One colour for each slot of the list of runs; each has at least 3:1 against the light and the dark page."""
TASKS = {"causal_lm": "write text", "sequence_classification": "choose a class"}
METRICS = {"loss": "loss", "learning_rate": "learning rate", "grad_norm": "gradient norm"}
AXES = {"step": "step (updates)", "examples": "examples", "trained_tokens": "trained tokens", "seconds": "time (s)"}
PARTS = {
    "weights": "#2563eb",
    "gradients": "#0d9488",
    "optimizer": "#7c3aed",
    "activations": "#ea580c",
    "logits": "#d4a017",
    "workspace": "#64748b",
}
REST: dict[str, str] = {"cpu": "Python and libraries", "cuda": "CUDA context and libraries"}
"""What a process takes besides tensors, by the kind of device: on a card Python is not there."""
BETWEEN_UPDATES = "more between updates"


class BarPart(TypedDict):
    """One piece of the stacked bar."""

    name: str
    bytes: int
    color: str


class MemoryBar(TypedDict):
    """What preview.js draws of an estimate: bytes on the scale of the bar, and the words around it."""

    parts: list[BarPart]
    total: int
    low: int
    high: int
    limit: float
    scale: float
    verdict: str
    words: str
    left: str
    right: str
    limit_words: str
    band_words: str
    note: str
    fixes: list[str]
    summary: str


class ChartConfig(TypedDict):
    """The constants of the live chart and the runs table: colours of runs, and titles by name."""

    palette: list[str]
    metrics: dict[str, str]
    axes: dict[str, str]
    methods: dict[str, str]
    tasks: dict[str, str]


def chart_config(methods: dict[str, str]) -> ChartConfig:
    """The constant part of the live chart and the runs table."""
    return {"palette": list(PALETTE), "metrics": METRICS, "axes": AXES, "methods": methods, "tasks": TASKS}


def memory_bar(estimate: MemoryEstimate, kind: str = "cpu") -> MemoryBar:
    """The stacked bar: what the run takes at its peak on this kind of device, on a scale that shows the parts.

    A toy model against a large machine would be a line one pixel wide, so the bar then has a scale of its own and
    the limit stands in words; the scale reaches the limit as soon as the run fills an eighth of the device.
    """
    parts: list[BarPart] = [
        {"name": name, "bytes": count, "color": PARTS.get(name, PARTS["workspace"])}
        for name, count in estimate.parts.items()
        if count > 0
    ]
    total, limit = estimate.total_bytes, estimate.device_bytes
    peak = max(total, estimate.evaluation_bytes, estimate.generation_bytes)
    low, high, needed = estimate.low_bytes, estimate.high_bytes, estimate.process_bytes
    near = max(total, high) * 8 >= limit
    if near:  # against the device the whole process counts, and the band lies around its end
        if peak > total:
            parts.append({"name": BETWEEN_UPDATES, "bytes": peak - total, "color": "#94a3b8"})
        parts.append({"name": REST[kind], "bytes": needed - peak, "color": "#cbd5e1"})
    scale = max(limit, high, total) * 1.04 if near else total
    verdict, words = _verdict(estimate)
    return {
        "parts": parts,
        "total": needed if near else total,
        "low": low,
        "high": high if near else 0,
        "limit": limit if near else scale * 2,
        "scale": scale,
        "verdict": verdict,
        "words": f"{words}: {size_text(needed)} of {size_text(limit)}",
        "left": "0",
        "right": size_text(scale) if near else f"{size_text(total)} at the peak",
        "limit_words": f"limit of {estimate.device}: {size_text(limit)}" if near else "",
        "band_words": f"the whole process may take {_range(estimate)}" if near else "",
        "note": " ".join(_sentences(estimate, kind, share=not near)),
        "fixes": _fixes(estimate.fixes[:3]),
        "summary": f"{words}. " + ", ".join(f"{part['name']} {size_text(part['bytes'])}" for part in parts),
    }


def _verdict(estimate: MemoryEstimate) -> tuple[str, str]:
    """`fits`, `tight` or `over`, and the same in words."""
    verdict = "fits" if estimate.fits else ("tight" if estimate.low_bytes <= estimate.device_bytes else "over")
    words = {"fits": "Fits", "tight": "May not fit", "over": "Will not fit"}[verdict]
    if estimate.device_lacks:  # that it would fit is no good news then
        return "over", f"Cannot run there. {words}"
    return verdict, words


def _range(estimate: MemoryEstimate) -> str:
    return f"{size_text(estimate.low_bytes)} to {size_text(estimate.high_bytes)}"


def _sentences(estimate: MemoryEstimate, kind: str, share: bool) -> Iterator[str]:
    """The text under the bar; with the process's `share` of the device where the bar does not show it."""
    limit = estimate.device_bytes
    if estimate.device_lacks:
        yield f"{estimate.device_lacks}."
    percent = f", at most {100 * estimate.high_bytes / limit:.2g} % of {size_text(limit)} ({estimate.device})"
    yield f"The process needs {_range(estimate)}{percent if share else ''}."
    tensors = f"Its tensors take {size_text(estimate.total_bytes)} at the peak, {_moment(estimate)}"
    yield f"{tensors}{_between_updates(estimate)}; the rest is {REST[kind]}."
    why = estimate.why_approximate
    yield f"The estimate is approximate, with a wider band: {why}" if why else f"The estimate is {estimate.kind}."
    yield f"It is for {estimate.batches}."


def _moment(estimate: MemoryEstimate) -> str:
    """When in an update the peak is."""
    words = {"loss": "while the loss is computed", "optimizer step": "in the optimizer step", "start": "at the start"}
    direction, _, layer = estimate.peak_at.partition(" of ")
    phase = f"{direction} pass of {layer}" if layer else direction
    return words.get(estimate.peak_at, f"in the {phase}")


def _between_updates(estimate: MemoryEstimate) -> str:
    """What the run does between updates, where that takes more than they do."""
    tensors = {"evaluation": estimate.evaluation_bytes, "generation": estimate.generation_bytes}
    more = [f"{name} takes {size_text(count)}" for name, count in tensors.items() if count > estimate.total_bytes]
    return f", but {' and '.join(more)}" if more else ""


def _fixes(fixes: Sequence[Fix]) -> list[str]:
    """One sentence that names them; what each costs stands beside its button."""
    if not fixes:
        return []
    savings = "; ".join(f"{fix['cost'].partition(':')[0]} saves {size_text(fix['saved_bytes'])}" for fix in fixes)
    alone = "" if any(fix["fits"] for fix in fixes) else " None of these is enough alone."
    return [f"To take less: {savings}.{alone} Each can be applied under More about memory."]
