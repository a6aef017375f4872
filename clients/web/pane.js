/** One run on the page: its canvas, figures, chart and final text, at any frame of its recording. */

import { CanvasView } from "./canvas.js";
import { ChartView } from "./chart.js";
import { copyFrom } from "./clipboard.js";
import { markDifferences } from "./differences.js";
import { Editor } from "./editor.js";
import { Inspector } from "./inspector.js";
import { renderMarkdown } from "./markdown.js";

/** @typedef {import("./recording.js").Recording} Recording */
/** @typedef {import("./recording.js").Cell} Cell */
/** @typedef {import("./canvas.js").View | "text"} PaneView */
/**
 * @typedef {{title: string, onKeepSeed?: (seed: number) => void, onChange: () => void,
 *   onBranch?: import("./editor.js").Branching,
 *   tokenize?: (text: string) => Promise<import("./editor.js").Token[]>}} PaneOptions
 */

const MASKED_TEXT = "▒";

export class Pane {
  #drawn = "";
  /** the frame that was drawn last */
  #drawnFrame = 0;
  #shownText = "";
  /** @type {Cell[]} */
  #cells = [];

  /**
   * @param {HTMLTemplateElement} template
   * @param {Recording} recording
   * @param {PaneOptions} options
   */
  constructor(template, recording, { title, onKeepSeed, onChange, onBranch, tokenize }) {
    this.recording = recording;
    this.element = /** @type {HTMLElement} */ (template.content.cloneNode(true).firstElementChild);
    this.element.setAttribute("aria-label", title);
    this.part("title").textContent = title;
    for (const name of ["canvas", "draft", "text", "chart", "edits"]) {
      this.part(name).setAttribute("aria-label", `${title}: ${this.part(name).getAttribute("aria-label")}`);
    }
    this.inspector = new Inspector(this.part("inspector"));
    this.editor = new Editor(this.part("edits"), recording, { onChange, onBranch, tokenize });
    this.canvas = new CanvasView(this.part("canvas"), (position) => this.#inspect(position), this.editor);
    this.chart = new ChartView(this.part("chart"));
    this.canvas.reset(recording.start);
    this.part("copy").addEventListener("click", () => this.#copy());
    this.#showSeed(onKeepSeed);
    this.inspector.draw([]);
  }

  /** @param {string} name @returns {any} */
  part(name) {
    return this.element.querySelector(`[data-part="${name}"]`);
  }

  /**
   * @param {number} frame
   * @param {{view: PaneView, isLive: boolean, isOpen: boolean}} options
   *     isLive: several frames may pass between two drawings; isOpen: the frame may be changed
   */
  draw(frame, { view, isLive, isOpen }) {
    const { recording } = this;
    const isFinal = recording.done !== null && frame === recording.lastFrame;
    const key = [frame, view, isFinal, isOpen, this.editor.version, recording.lastFrame].join();
    if (key === this.#drawn) return;
    this.#drawn = key;
    const seenFrame = isLive ? Math.min(this.#drawnFrame, frame - 1) : frame - 1;
    this.#drawnFrame = frame;
    const figures = recording.figuresAt(frame);
    this.#cells = this.editor.show(recording.cellsAt(frame, seenFrame), frame, isOpen && view !== "text");
    this.part("canvas").hidden = view === "text";
    this.part("draft").hidden = view !== "text";
    if (view === "text") this.#drawText(isFinal);
    else {
      const activeBlock = isFinal ? null : figures.block;
      this.canvas.draw(this.#cells, { view, activeBlock, lastStep: Math.max(recording.firstStep + recording.expectedFrames - 1, 1) });
    }
    this.part("no-predictions").hidden = view !== "prediction" || !recording.done || recording.hasPredictions;
    this.inspector.draw(this.#cells);
    this.chart.draw(recording, frame);
    this.#drawFigures(figures, isFinal);
  }

  /** Show the final text, with what differs from another's marked. @param {string | null} other */
  showResult(other) {
    const { done } = this.recording;
    if (!done) return;
    const { finish_reason: reason, usage } = done;
    const { thinking, said } = this.recording.answer;
    const milliseconds = this.recording.figuresAt(this.recording.lastFrame).elapsedMs;
    const facts = {
      "Finish reason": reason,
      "Prompt tokens": usage.prompt_tokens,
      "Completion tokens": usage.completion_tokens,
      "Denoising steps": usage.denoising_steps,
      "Forward passes": usage.forward_passes,
      "Tokens a second": milliseconds ? ((1000 * usage.completion_tokens) / milliseconds).toFixed(1) : "–",
    };
    this.part("thinking").replaceChildren(...thinkingNodes(thinking));
    this.part("text").replaceChildren(...(other === null ? [said] : markDifferences(said, other)));
    this.part("usage").replaceChildren(...Object.entries(facts).map(([name, value]) => figure(name, String(value))));
    this.part("result").hidden = false;
  }

  /** @param {number} position */
  #inspect(position) {
    this.inspector.position = position;
    this.inspector.draw(this.#cells);
  }

  /** @param {boolean} isFinal */
  #drawText(isFinal) {
    const { done } = this.recording;
    const draft = this.#cells.map((cell) => (cell.state === "mask" ? MASKED_TEXT : cell.endToken === null ? cell.text : "")).join("");
    const { thinking, said: text } = isFinal && done ? this.recording.answer : { thinking: null, said: draft };
    const key = `${isFinal} ${text}`;
    if (key === this.#shownText) return;
    this.#shownText = key;
    this.part("draft").replaceChildren(...(isFinal ? [...thinkingNodes(thinking), ...renderMarkdown(text)] : [text]));
  }

  /**
   * @param {ReturnType<Recording["figuresAt"]>} figures
   * @param {boolean} isFinal
   */
  #drawFigures({ stepsRun, masked, elapsedMs, tokensPerStep }, isFinal) {
    const { steps } = this.recording.start;
    this.part("step").textContent = steps === null ? stepsRun : `${stepsRun} / ${this.recording.firstStep + steps}`;
    this.part("masks").textContent = masked;
    // The text ended before the canvas did: no step would have changed it.
    this.part("masks-name").textContent = isFinal && masked > 0 ? "Masks not needed" : "Masks left";
    this.part("elapsed").textContent = `${Math.round(elapsedMs)} ms`;
    this.part("rate").textContent = tokensPerStep === null ? "–" : tokensPerStep.toFixed(2);
  }

  /** @param {((seed: number) => void) | undefined} onKeep */
  #showSeed(onKeep) {
    const seed = this.recording.start.generation_params?.seed;
    // JavaScript rounds larger numbers: such a seed came from elsewhere.
    const isExact = Number.isSafeInteger(seed);
    this.part("seed").textContent = seed === undefined ? "–" : isExact ? seed : `about ${seed}`;
    this.part("keep-seed").hidden = !onKeep || !isExact;
    this.part("keep-seed").addEventListener("click", () => onKeep?.(seed));
  }

  async #copy() {
    this.part("copy").textContent = await copyFrom(this.part("text"));
    setTimeout(() => (this.part("copy").textContent = "Copy"), 1500);
  }
}

/** Thinking, folded away; nothing where there is none. @param {string | null} thinking */
function thinkingNodes(thinking) {
  if (!thinking) return [];
  const [box, summary, text] = ["details", "summary", "p"].map((tag) => document.createElement(tag));
  box.className = "thinking";
  summary.textContent = "Thinking";
  text.textContent = thinking.trim();
  box.append(summary, text);
  return [box];
}

/**
 * @param {string} name
 * @param {string} value
 */
function figure(name, value) {
  const [box, term, description] = ["div", "dt", "dd"].map((tag) => document.createElement(tag));
  term.textContent = name;
  description.textContent = value;
  box.append(term, description);
  return box;
}
