// @ts-check
// Series of numbers as they are drawn: smoothed, thinned, and placed on an axis. Pure functions.

/** @typedef {import("./shapes").StepEvent} StepEvent */
/** @typedef {import("./shapes").EvalEvent} EvalEvent */
/** @typedef {"step" | "examples" | "trained_tokens" | "seconds"} Axis */

/** Points that are drawn of one curve, at most. */
export const MOST_POINTS = 1200;

/**
 * Exponential moving average with bias correction (Kingma and Ba, 2015, section 3): the first values are not pulled
 * towards zero. Gaps (null) stay gaps and leave the average as it is.
 * @param {(number | null)[]} values
 * @param {number} weight of what has been, from 0 to below 1
 */
export function smooth(values, weight) {
  let sum = 0;
  let mass = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    mass = weight * mass + (1 - weight);
    return sum / mass;
  });
}

/**
 * The curve with at most `most` points: the first, the last, and of each of equal buckets the lowest and the highest,
 * in their order. No peak is lost, and a curve that is short enough stays as it is.
 * @template X
 * @param {X[]} xs
 * @param {(number | null)[]} ys
 * @returns {[X[], (number | null)[]]}
 */
export function thin(xs, ys, most = MOST_POINTS) {
  if (xs.length <= most) return [xs, ys];
  const last = xs.length - 1;
  const buckets = Math.floor((most - 2) / 2);
  const width = (last - 1) / buckets; // of the points between the first and the last
  const indices = [0];
  for (let bucket = 0; bucket < buckets; bucket++) {
    const from = 1 + Math.floor(bucket * width);
    const to = bucket === buckets - 1 ? last : 1 + Math.floor((bucket + 1) * width);
    indices.push(...extremes(ys, from, to));
  }
  indices.push(last);
  return [indices.map((index) => xs[index]), indices.map((index) => ys[index])];
}

/**
 * The indices of the lowest and the highest value in a bucket, in their order; gaps are passed over.
 * @param {(number | null)[]} ys
 * @param {number} from
 * @param {number} to not among them
 */
function extremes(ys, from, to) {
  let low = -1;
  let high = -1;
  for (let index = from; index < to; index++) {
    const y = ys[index];
    if (y === null) continue;
    if (low < 0 || y < Number(ys[low])) low = index;
    if (high < 0 || y > Number(ys[high])) high = index;
  }
  if (low < 0) return from < to ? [from] : []; // nothing but gaps
  return low === high ? [low] : [Math.min(low, high), Math.max(low, high)];
}

/**
 * Where an update lies on an axis.
 * @param {Axis} axis
 * @param {StepEvent} point
 */
export function positionOf(axis, point) {
  return point[axis] ?? null;
}

/**
 * Where an evaluation lies on an axis: where the update does that it follows, for its own seconds are how long it took.
 * Between two updates that are there (long runs come thinned) it lies in proportion.
 * @param {Axis} axis
 * @param {EvalEvent} evaluation
 * @param {StepEvent[]} steps of the same run
 */
export function positionOfEvaluation(axis, evaluation, steps) {
  if (axis === "step") return evaluation.step;
  if (evaluation.step === 0) return 0; // before the first update
  const index = steps.findIndex((point) => point.step >= evaluation.step);
  if (index < 0) return steps.at(-1)?.[axis] ?? null;
  const next = steps[index];
  if (next.step === evaluation.step) return next[axis] ?? null;
  const before = index > 0 ? steps[index - 1] : null;
  const [step, position] = before ? [before.step, Number(before[axis])] : [0, 0];
  const share = (evaluation.step - step) / (next.step - step);
  return position + share * (Number(next[axis]) - position);
}

/**
 * The value between two neighbours of a rising list, in proportion.
 * @param {number[]} xs rising
 * @param {number[]} ys
 * @param {number} x
 */
export function interpolate(xs, ys, x) {
  const above = xs.findIndex((value) => value >= x);
  if (above <= 0) return ys[Math.max(0, above)];
  const share = (x - xs[above - 1]) / (xs[above] - xs[above - 1]);
  return ys[above - 1] + share * (ys[above] - ys[above - 1]);
}
