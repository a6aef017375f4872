/** Takes recordings out of the page as files, and opens them again. */

import { movingPictureOf, stillOf } from "./picture.js";
import { fileOf, recordingsOf } from "./recording.js";
import { standaloneOf } from "./standalone.js";

/** @typedef {import("./recording.js").Recording} Recording */

/** @type {Record<string, (recordings: Recording[], titles: string[]) => Promise<Blob> | Blob>} */
const WRITERS = {
  json: (recordings, titles) => new Blob([JSON.stringify(fileOf(recordings, titles))], { type: "application/json" }),
  html: async (recordings, titles) => new Blob([await standaloneOf(recordings, titles)], { type: "text/html" }),
  png: ([recording]) => stillOf(recording),
  gif: ([recording]) => movingPictureOf(recording),
};

/**
 * Save recordings as a file; a picture is of the first.
 * @param {string} format  json, html, png or gif
 * @param {Recording[]} recordings
 * @param {string[]} titles
 */
export async function save(format, recordings, titles) {
  const address = URL.createObjectURL(await WRITERS[format](recordings, titles));
  const link = document.createElement("a");
  link.href = address;
  link.download = `llada-${new Date().toISOString().slice(0, 19).replaceAll(":", "-")}.${format}`;
  link.click();
  // The browser must have begun to read it.
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

/**
 * @param {File} file
 * @returns {Promise<{recordings: Recording[], titles: string[]}>}
 * @throws {Error} it is no saved recording; the message says why
 */
export async function open(file) {
  let content;
  try {
    content = JSON.parse(await file.text());
  } catch {
    throw new Error("it is not JSON");
  }
  return recordingsOf(content);
}
