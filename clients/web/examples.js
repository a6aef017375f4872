/** Examples that work with the demo model; each teaches one thing. */

/** @typedef {import("./form.js").Draft} Draft */

/**
 * @typedef {object} Example
 * @property {string} title
 * @property {string} look  what to look at
 * @property {Partial<Draft>} draft
 * @property {"confidence" | "order" | "prediction" | "text"} view
 * @property {string} [compare]  the name of a variant
 */

const STORY = "Tell me a story about a fox.";

/** @type {Example[]} */
export const EXAMPLES = [
  {
    title: "A first question",
    look: "The answer condenses in any order: sure words first, and the end of the text early.",
    draft: { prompt: "What is the capital of France?", settings: { max_tokens: 32 } },
    view: "confidence",
  },
  {
    title: "Order",
    look: "The heat map shows when each position was committed: it is not from left to right.",
    draft: { prompt: STORY, settings: { max_tokens: 96, block_length: 96 } },
    view: "order",
  },
  {
    title: "Blocks",
    look: "With blocks of 16 the same story is filled block by block from the left, each in any order.",
    draft: { prompt: STORY, settings: { max_tokens: 96, block_length: 16 } },
    view: "order",
  },
  {
    title: "Guesses",
    look: "In faint letters stands what the model would write at every mask; watch the guesses change as words settle.",
    draft: { prompt: STORY, settings: { max_tokens: 96, block_length: 96 } },
    view: "prediction",
  },
  {
    title: "Exact and balanced",
    look: "Balanced commits all confident tokens at once: compare the forward passes, and the words that differ.",
    draft: { prompt: STORY, settings: { max_tokens: 96, preset: "exact" } },
    view: "confidence",
    compare: "balanced",
  },
  {
    title: "Fill the gaps",
    look: "Both sides of each gap are seen: what is written in the first must suit the end of the story.",
    draft: {
      mode: "infilling",
      prompt: "Once upon a time there was a[[1]] named Finn. In the spring, Finn planted a[[1]] in the garden. He gave it[[1]] every day and waited patiently.",
    },
    view: "confidence",
  },
  {
    title: "Pinned words",
    look: "The framed words were there from the start: the story before and after them suits the name.",
    draft: {
      prompt: STORY,
      pins: [{ position: 9, text: " named Ruby" }],
      settings: { max_tokens: 96, block_length: 96 },
    },
    view: "confidence",
  },
  {
    title: "Overflow of ends",
    look: "Four tokens a step in one long block: on the left end tokens are the surest, come first and leave no room for a story. The flag on the right commits them last.",
    draft: {
      mode: "completion",
      prompt: "Once upon a time there was a",
      settings: { max_tokens: 256, steps: 64, method: "fixed_length" },
    },
    view: "order",
    compare: "ends_last",
  },
];
