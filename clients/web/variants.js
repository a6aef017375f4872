/** What a run can be compared with: one prompt under two settings. */

/**
 * @typedef {object} Variant
 * @property {string} label
 * @property {Record<string, any>} changes  to the body; null takes a field out
 */

/** @type {Record<string, Variant>} */
export const VARIANTS = {
  exact: { label: "exact", changes: { preset: "exact" } },
  balanced: { label: "balanced", changes: { preset: "balanced", steps: null } },
  fast: { label: "fast", changes: { preset: "fast", steps: null } },
  random: { label: "random remasking", changes: { remasking: "random", preset: "exact" } },
  one_block: { label: "fixed length", changes: { method: "fixed_length", block_length: null } },
  ends_last: { label: "end tokens last", changes: { confidence_eos_eot_inf: true } },
  no_ends: { label: "no end tokens", changes: { logits_eos_inf: true, confidence_eos_eot_inf: true } },
  guided: { label: "guidance 1", changes: { cfg_scale: 1 } },
};

/**
 * Two bodies with the same seed, and what to call each run.
 * @param {Record<string, any>} body
 * @param {Variant} variant
 * @returns {{bodies: Record<string, any>[], titles: string[]}}
 */
export function compared(body, { label, changes }) {
  const seed = body.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
  const first = { ...body, seed };
  const other = Object.fromEntries(Object.entries({ ...first, ...changes }).filter(([, value]) => value !== null && value !== undefined));
  return { bodies: [first, other], titles: [first.preset ?? "as set", label] };
}

/** What a body asks and reports; the rest of it are settings. */
const ASKED = ["messages", "prompt", "canvas", "constraints", "seed", "top_logprobs", "include_predictions"];

/**
 * The same question under the settings of another run.
 * @param {Record<string, any>} body
 * @param {Record<string, any>} last
 * @returns {{bodies: Record<string, any>[], titles: string[]}}
 */
export function comparedWithSettingsOf(body, last) {
  // A canvas has its own length; a response takes that of the other if it had none.
  const length = body.canvas ? { max_tokens: null } : { max_tokens: last.max_tokens ?? body.max_tokens };
  const unset = Object.fromEntries(Object.keys(body).filter((name) => !ASKED.includes(name)).map((name) => [name, null]));
  const settings = Object.fromEntries(Object.entries(last).filter(([name]) => !ASKED.includes(name)));
  return compared(body, { label: "last settings", changes: { ...unset, ...settings, ...length } });
}
