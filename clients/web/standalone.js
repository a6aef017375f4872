/** Writes a recording as one HTML file that replays without a server: the viewer's own markup, style and modules. */

import { fileOf } from "./recording.js";

/** @typedef {import("./recording.js").Recording} Recording */

/** In the order in which they use each other; `clients/terminal` reads the same list from this file. */
const MODULES = ["recording", "timeline", "canvas", "chart", "clipboard", "differences", "inspector", "markdown", "pane", "viewer"];
const VIEWER = /<!-- viewer -->([^]*)<!-- \/viewer -->/;
const POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'";

/**
 * @param {Recording[]} recordings
 * @param {string[]} titles
 * @returns {Promise<string>}
 */
export async function standaloneOf(recordings, titles) {
  const [page, style, ...modules] = await Promise.all(
    ["./", "static/style.css", ...MODULES.map((name) => `static/${name}.js`)].map(textOf),
  );
  const viewer = VIEWER.exec(page)?.[1] ?? "";
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>LLaDA · a recorded denoising</title>
<style>${style}</style>
</head>
<body class="standalone">
<main><h1>LLaDA · a recorded denoising</h1>${viewer}</main>
<script type="application/json" id="recording">${asData(fileOf(recordings, titles))}</script>
<script type="module">
${modules.map(inlined).join("\n")}
const file = JSON.parse(document.getElementById("recording").textContent);
const { recordings, titles } = recordingsOf(file);
new Viewer(document).open(recordings, titles);
</script>
</body>
</html>
`;
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
