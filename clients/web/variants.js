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
  const other = Object.fromEntries(Object.entries({ ...first, ...changes }).filter(([, value]) => value !== null));
  return { bodies: [first, other], titles: [first.preset ?? "as set", label] };
}
