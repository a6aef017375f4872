/** Names the tokens that a request gave: the stream has only their ids. */

import { fetchTokens } from "./api.js";

const BYTES = new Map(alphabet().map((character, byte) => [character, byte]));
/** Requests with more texts than this show ids; every text is a request of its own. */
const MOST_TEXTS = 32;

/**
 * @param {Record<string, any>} body
 * @returns {Promise<Record<string, string>>} texts by token id; empty if the server does not say
 */
export async function textsOfGiven(body) {
  const written = [...Object.values(body.constraints ?? {}), ...Object.values(body.fork?.set ?? {})];
  const given = [...(body.canvas ?? []), ...written].filter((part) => typeof part === "string");
  try {
    const tokens = (await Promise.all(given.slice(0, MOST_TEXTS).map(tokensOf))).flat();
    return Object.fromEntries(tokens.map(({ token_id: id, text }) => [id, text]));
  } catch {
    // The ids do as well.
    return {};
  }
}

/**
 * @param {string} text
 * @returns {Promise<{token_id: number, text: string}[]>} its tokens, each with its own text
 */
export async function tokensOf(text) {
  const { tokens, token_strs: names } = await fetchTokens(text);
  return tokens.map((id, i) => ({ token_id: id, text: plainText(names[i]) }));
}

/**
 * The text of a token as a byte-level vocabulary writes it, in which every byte is one character ("Ġ" is a space).
 * Names of other vocabularies stay as they are.
 * @param {string} name
 */
function plainText(name) {
  const bytes = [...name].map((character) => BYTES.get(character));
  if (bytes.includes(undefined)) return name;
  return new TextDecoder().decode(new Uint8Array(/** @type {number[]} */ (bytes)));
}

/** @param {number} byte */
function isPrintable(byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173);
}

/** GPT-2's alphabet: printable bytes of Latin-1 stand for themselves, the others follow from U+0100 on. */
function alphabet() {
  let next = 0x100;
  return Array.from({ length: 256 }, (_, byte) => String.fromCodePoint(isPrintable(byte) ? byte : next++));
}
