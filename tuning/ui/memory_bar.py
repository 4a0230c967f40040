"""What the pictures on the page are made of, as plain data: colours, axes, the parts of the memory bar.

The page's script draws them: pure functions, no drawing library.
"""

from __future__ import annotations

from typing import Any, TypedDict

PALETTE = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#db2777", "#0891b2", "#a16207", "#64748b")
"""One colour for each run's slot; each has at least 3:1 against the light and the dark page."""
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
REST = {"cpu": "Python and libraries", "cuda": "CUDA context and libraries"}
"""What a process takes besides tensors, by the kind of device: on a card Python is not there."""
BETWEEN = "more between updates"
UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


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
    limit: int
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


def size_text(count: float) -> str:
    """Bytes for people: three digits and a binary unit."""
    unit = 0
    while count >= 1024 and unit < len(UNITS) - 1:
        count, unit = count / 1024, unit + 1
    return f"{count:.0f} {UNITS[unit]}" if count >= 100 or unit == 0 else f"{count:.3g} {UNITS[unit]}"


def memory_bar(estimate: dict[str, Any], kind: str = "cpu") -> MemoryBar:
    """The stacked bar: what the run takes at its peak on this kind of device, on a scale that shows the parts.

    A toy model against a large machine would be a line one pixel wide, so the bar then has a scale of its own and
    the limit is told in words; the scale reaches the limit as soon as the run fills an eighth of the device.
    """
    parts: list[BarPart] = [
        {"name": name, "bytes": count, "color": PARTS.get(name, PARTS["workspace"])}
        for name, count in estimate["parts"].items()
        if count > 0
    ]
    total, limit = estimate["total_bytes"], estimate["device_bytes"]
    highest = max(total, estimate["evaluation_bytes"], estimate["generation_bytes"])
    low, high = estimate["low_bytes"], estimate["high_bytes"]
    needed, device_name = estimate["process_bytes"], estimate["device"]
    near = max(total, high) * 8 >= limit
    if near:  # against the device the whole process counts, and the band lies around its end
        if highest > total:
            parts.append({"name": BETWEEN, "bytes": highest - total, "color": "#94a3b8"})
        parts.append({"name": REST[kind], "bytes": needed - highest, "color": "#cbd5e1"})
    scale = max(limit, high, total) * 1.04 if near else total
    verdict = "fits" if estimate["fits"] else ("tight" if low <= limit else "over")
    words = {"fits": "Fits", "tight": "May not fit", "over": "Will not fit"}[verdict]
    lacks = estimate.get("device_lacks")
    if lacks:  # that it would fit is no good news then
        verdict, words = "over", f"Cannot run there. {words}"
    right = size_text(scale) if near else f"{size_text(total)} at the peak"
    whole = f"{size_text(low)} to {size_text(high)}"
    within = "" if near else f" {device_name} has {size_text(limit)}: {100 * high / limit:.2g} % of it at most."
    note = (f"{lacks}. " if lacks else "") + (
        f"At the peak {size_text(total)} for tensors{_peak(estimate)}{_besides(estimate)}; the whole process "
        f"{whole}.{within}{_batches(estimate)} {_kind(estimate)}"
    )
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
        "right": right,
        "limit_words": f"limit of {device_name}: {size_text(limit)}" if near else "",
        "band_words": f"the whole process may take {whole}" if near else "",
        "note": note,
        "fixes": _fixes(estimate["fixes"][:3]),
        "summary": f"{words}. " + ", ".join(f"{part['name']} {size_text(part['bytes'])}" for part in parts),
    }


def _peak(estimate: dict[str, Any]) -> str:
    words = {"loss": "when the loss is computed", "optimizer step": "at the update", "start": "at the start"}
    return f" ({words.get(estimate['peak_at'], 'in the ' + estimate['peak_at'])})"


def _kind(estimate: dict[str, Any]) -> str:
    """How the estimate was found, and where no table could be made, why."""
    why = estimate["why_approximate"]
    return f"Approximate, with a wider band: {why}" if why else f"The estimate is {estimate['kind']}."


def _batches(estimate: dict[str, Any]) -> str:
    """Which batches it is for; nothing of a run stored before that was told."""
    return f" It is for {estimate['batches']}." if "batches" in estimate else ""


def _besides(estimate: dict[str, Any]) -> str:
    """What the run does between updates, where that takes more than they do."""
    found = {"evaluating": estimate["evaluation_bytes"], "writing answers": estimate["generation_bytes"]}
    more = [f"{words} takes {size_text(count)}" for words, count in found.items() if count > estimate["total_bytes"]]
    return f", but {' and '.join(more)}" if more else ""


def _fixes(first: list[dict[str, Any]]) -> list[str]:
    """One sentence that names them; what each costs stands beside its button."""
    if not first:
        return []
    told = "; ".join(f"{fix['cost'].partition(':')[0]} saves {size_text(fix['saved_bytes'])}" for fix in first)
    alone = "" if any(fix["fits"] for fix in first) else " None of these is enough alone."
    return [f"To take less: {told}.{alone} Each can be applied under More about memory."]
