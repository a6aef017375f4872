/** Writes a recording as one HTML file that replays without a server: the viewer's own markup, style and modules. */

import { fileOf } from "./recording.js";

/** @typedef {import("./recording.js").Recording} Recording */

/** In the order in which they use each other; `clients/terminal` reads the same list from this file. */
const MODULES = ["recording", "timeline", "canvas", "chart", "clipboard", "differences", "editor", "inspector", "markdown", "pane", "viewer"];
const VIEWER = /<!-- viewer -->([^]*)<!-- \/viewer -->/;

/**
 * @param {Recording[]} recordings
 * @param {string[]} titles
 * @returns {Promise<string>}
 */
export async function standaloneOf(recordings, titles) {
  const [frame, page, style, ...modules] = await Promise.all(
    ["static/standalone.html", "./", "static/style.css", ...MODULES.map((name) => `static/${name}.js`)].map(textOf),
  );
  /** @type {Record<string, string>} */
  const parts = {
    style,
    viewer: VIEWER.exec(page)?.[1] ?? "",
    recording: asData(fileOf(recordings, titles)),
    modules: modules.map(inlined).join("\n"),
  };
  return frame.replace(/\{\{(\w+)\}\}/g, (_, name) => parts[name]);
}

/** A module's text without its imports and exports: all of them share one scope. @param {string} text */
function inlined(text) {
  return text.replace(/^import .*$/gm, "").replace(/^export /gm, "");
}

/** Nothing in JSON may end the element that holds it. @param {object} value */
function asData(value) {
  return JSON.stringify(value).replaceAll("<", "\\u003c");
}

/** @param {string} address */
async function textOf(address) {
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${address}: HTTP ${response.status}`);
  return response.text();
}
