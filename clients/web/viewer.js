/** Shows one recording, or two side by side, by one clock. The page uses it live; an exported file carries it along. */

import { Pane } from "./pane.js";
import { AS_IT_COMES, Timeline } from "./timeline.js";

/** @typedef {import("./recording.js").Recording} Recording */

const SLIDER_STEPS = 1000;

export class Viewer {
  /** @type {Pane[]} */
  panes = [];
  #isLive = false;
  #isDrawPending = false;
  #areResultsShown = false;
  #canBranch = false;

  /**
   * @param {Document} page  has the elements of index.html between the marks "viewer"
   * @param {Pick<import("./pane.js").PaneOptions, "onKeepSeed" | "onBranch" | "tokenize"> & {onSettled?: () => void}} [handlers]
   *     onSettled: called when what is shown stops moving
   */
  constructor(page, { onSettled, ...handlers } = {}) {
    this.page = page;
    this.handlers = handlers;
    this.onSettled = onSettled;
    this.timeline = new Timeline(() => this.#requestDraw());
    this.#wire();
  }

  /** @returns {Recording[]} */
  get recordings() {
    return this.timeline.recordings;
  }

  /** @returns {"confidence" | "order" | "prediction" | "text"} */
  get view() {
    return this.#checked("view");
  }

  /**
   * Follow runs that begin, each with a title.
   * @param {Recording[]} recordings
   * @param {string[]} titles
   * @param {{recording: Recording, frame: number} | null} from  where the eye is; null for the beginning
   */
  follow(recordings, titles, from = null) {
    this.#isLive = true;
    this.#lay(recordings, titles);
    this.timeline.follow(recordings, from);
  }

  /** Whether the frames shown may be changed, once nothing moves. @param {boolean} canBranch */
  set canBranch(canBranch) {
    this.#canBranch = canBranch;
    this.#requestDraw();
  }

  /**
   * Show finished runs.
   * @param {Recording[]} recordings
   * @param {string[]} titles
   */
  open(recordings, titles) {
    this.#isLive = false;
    this.#lay(recordings, titles);
    this.timeline.open(recordings);
  }

  /** Something was received. */
  update() {
    this.#requestDraw();
  }

  /** The runs broke off: nothing more comes in, until they go on. */
  cut() {
    this.timeline.cut();
  }

  /** Runs that broke off go on. */
  goOn() {
    this.#isLive = true;
    this.timeline.goOn();
  }

  /**
   * @param {Recording[]} recordings
   * @param {string[]} titles
   */
  #lay(recordings, titles) {
    this.#areResultsShown = false;
    const template = this.#element("pane-template");
    const options = { ...this.handlers, onChange: () => this.#requestDraw() };
    this.panes = recordings.map((recording, i) => new Pane(template, recording, { ...options, title: titles[i] }));
    this.#element("panes").replaceChildren(...this.panes.map((pane) => pane.element));
    this.#element("panes").classList.toggle("is-compared", this.panes.length > 1);
    this.#element("replay").hidden = false;
    this.#element("clock-field").hidden = this.panes.length < 2;
    if (this.panes.length < 2) this.timeline.clock = "tokens";
    else this.timeline.clock = this.#element("clock").value;
  }

  #requestDraw() {
    if (this.#isDrawPending) return;
    this.#isDrawPending = true;
    requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#isDrawPending = false;
    const { timeline, panes, view } = this;
    const options = { view, isLive: this.#isLive && timeline.isMoving, isOpen: this.#canBranch && !timeline.isMoving };
    for (const pane of panes) pane.draw(timeline.frameOf(pane.recording), options);
    this.#drawTransport();
    const isSettled = !timeline.isMoving && panes.length > 0 && panes.every((pane) => pane.recording.done);
    if (isSettled && !this.#areResultsShown) this.#showResults();
  }

  #showResults() {
    const texts = this.panes.map((pane) => pane.recording.answer.said);
    this.panes.forEach((pane, i) => pane.showResult(texts[1 - i] ?? null));
    this.#areResultsShown = true;
    this.#isLive = false;
    this.onSettled?.();
  }

  #drawTransport() {
    const { timeline } = this;
    const [play, slider] = [this.#element("play"), this.#element("slider")];
    play.textContent = timeline.isMoving ? "❚❚" : "▶";
    play.setAttribute("aria-label", timeline.isMoving ? "Pause" : "Play");
    slider.max = this.panes.length > 1 ? SLIDER_STEPS : Math.max(this.recordings[0]?.expectedFrames ?? 0, 1);
    slider.value = this.#sliderValue;
    const frames = this.panes.map((pane) => `after step ${timeline.frameOf(pane.recording)} of ${pane.recording.lastFrame}`);
    slider.setAttribute("aria-valuetext", frames.join("; "));
    const expected = this.recordings[0]?.expectedFrames ?? 0;
    this.#element("progress").value = this.recordings[0] ? timeline.frameOf(this.recordings[0]) / Math.max(expected, 1) : 0;
    this.#element("length").textContent = `${timeline.seconds.toFixed(1)} s`;
  }

  /** One recording is scrubbed by its frames, two by their clock. */
  get #sliderValue() {
    const { timeline } = this;
    if (this.panes.length === 1) return timeline.frameOf(this.recordings[0]);
    return Math.round((SLIDER_STEPS * timeline.position) / Math.max(timeline.end, 1));
  }

  #onSlide() {
    const value = this.#element("slider").valueAsNumber;
    const { timeline } = this;
    if (this.panes.length === 1) {
      const [recording] = this.recordings;
      timeline.seek(recording.clockAt(timeline.unit, Math.min(value, recording.lastFrame)));
    } else timeline.seek((value * timeline.end) / SLIDER_STEPS);
  }

  #togglePlay() {
    if (this.timeline.isMoving) this.timeline.pause();
    else if (this.panes.length) this.timeline.play();
  }

  #wire() {
    this.#element("play").addEventListener("click", () => this.#togglePlay());
    this.#element("slider").addEventListener("input", () => this.#onSlide());
    this.#element("speed").addEventListener("change", () => this.#followSpeed());
    this.#element("clock").addEventListener("change", () => this.timeline.reset(() => (this.timeline.clock = this.#element("clock").value)));
    this.#element("views").addEventListener("change", () => this.#followView());
    // Whoever wants less motion gets none that was not asked for.
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.#element("speed").value = AS_IT_COMES;
    this.#followSpeed();
    this.#followView();
  }

  #followSpeed() {
    const { value } = this.#element("speed");
    this.timeline.reset(() => (this.timeline.speed = value === AS_IT_COMES ? value : Number(value)));
  }

  #followView() {
    for (const legend of this.page.querySelectorAll("[data-legend]")) {
      /** @type {HTMLElement} */ (legend).hidden = legend.getAttribute("data-legend") !== this.view;
    }
    this.#requestDraw();
  }

  /** @param {string} id @returns {any} */
  #element(id) {
    return this.page.getElementById(id);
  }

  /** @param {string} name @returns {any} */
  #checked(name) {
    return /** @type {HTMLInputElement} */ (this.page.querySelector(`[name="${name}"]:checked`)).value;
  }
}
