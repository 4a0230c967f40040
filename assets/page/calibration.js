// How good estimates have been on this machine: each measured run against what was expected of it.

import { bytes, element } from "./dom.js";
import { onChange } from "./live.js";
import { HIGH, LEFT, RIGHT, WIDE, canvas, draw, heightOf, panel, scale } from "./memory_charts.js";

function errorOf(run) {
  const expected = run.estimate?.total_bytes,
    measured = run.peak_bytes;
  return expected && measured ? 100 * (expected / measured - 1) : null;
}

export function calibration() {
  const body = element("div");
  const node = element("details", { class: "tf-mem-details" }, [
    element("summary", {}, "Estimates against measurements"),
    body,
  ]);
  onChange((state) => {
    const known = state.runs.filter((run) => errorOf(run) !== null);
    node.hidden = known.length === 0;
    const key = known.map((run) => `${run.run_id}:${run.peak_bytes}`).join();
    if (!known.length || body.dataset.key === key) return;
    body.dataset.key = key;
    const errors = known.map((run) => Math.abs(errorOf(run))).sort((a, b) => a - b);
    const half = errors.length >> 1,
      middle = (errors[half] + errors[errors.length - 1 - half]) / 2;
    const top = Math.max(...known.flatMap((run) => [run.peak_bytes, run.estimate.total_bytes])) * 1.1;
    const svg = canvas("Measured against estimated memory of each run"),
      y = heightOf(top);
    const x = (count) => LEFT + ((WIDE - LEFT - RIGHT) * count) / top;
    scale(svg, y, top);
    svg.append(draw("line", { x1: x(0), y1: y(0), x2: x(top), y2: y(top), class: "tf-mini-grid" }));
    for (const run of known) {
      const dot = draw("circle", {
        cx: x(run.estimate.total_bytes),
        cy: y(run.peak_bytes),
        r: 3.5,
        class: run.estimate.kind === "traced" ? "tf-mini-dot" : "tf-mini-ring",
      });
      dot.append(
        draw(
          "title",
          {},
          `${run.name || run.run_id}: estimated ${bytes(run.estimate.total_bytes)}, measured ${bytes(run.peak_bytes)}`,
        ),
      );
      svg.append(dot);
    }
    for (const [share, anchor] of [
      [0, "start"],
      [0.5, "middle"],
      [1, "end"],
    ]) {
      svg.append(
        draw(
          "text",
          { x: x(top * share), y: HIGH - 5, class: "tf-mini-text", "text-anchor": anchor },
          bytes(top * share),
        ),
      );
    }
    body.replaceChildren(
      panel(
        "Measured (up) against estimated (right)",
        svg,
        `${known.length} ${known.length === 1 ? "run" : "runs"}: error ${middle.toFixed(1)} % in the middle, ${errors.at(-1).toFixed(1)} % at most. ` +
          "The estimate takes the widest micro-batch the data can give; a short run may never meet it. Rings are estimates by formula.",
      ),
    );
  });
  return node;
}
