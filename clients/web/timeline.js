/** The clock that recordings are watched by: it follows runs as they come in, plays them again, and is set by hand. */

/** @typedef {import("./recording.js").Recording} Recording */
/** @typedef {import("./recording.js").Clock} Clock */

/** At speed 1 a short answer takes about three seconds to watch. */
const TOKENS_PER_SECOND = 12;
const SHORTEST_SECONDS = 3;
export const AS_IT_COMES = "live";

export class Timeline {
  /** @type {Recording[]} */
  recordings = [];
  /** @type {Clock} */
  clock = "tokens";
  /** @type {number | "live"} a factor, or the true times */
  speed = 1;
  /** Where the eye is, in units of the clock. */
  position = 0;
  isMoving = false;
  /** Whether more of the unfinished recordings may come in. */
  #isFed = false;
  #lastTick = 0;

  /** @param {() => void} onChange  called when another state is to be shown, or playing began or ended */
  constructor(onChange) {
    this.onChange = onChange;
  }

  /** The clock in use: one run that is shown as it comes is shown by its true times. @returns {Clock} */
  get unit() {
    return this.speed === AS_IT_COMES && this.recordings.length === 1 ? "time" : this.clock;
  }

  /** The end of all that was received. */
  get end() {
    return this.#endOf(this.unit);
  }

  /** How long playing everything takes, in seconds. */
  get seconds() {
    return this.end / this.#rate;
  }

  get isAtEnd() {
    return this.position >= this.end;
  }

  /** @param {Recording} recording */
  frameOf(recording) {
    return recording.frameAt(this.unit, this.position);
  }

  /**
   * Show a recording that is still empty, or one more beside it, and follow it.
   * @param {Recording[]} recordings
   * @param {{recording: Recording, frame: number} | null} from  where the eye is; null for the beginning
   */
  follow(recordings, from = null) {
    this.recordings = recordings;
    this.position = from ? from.recording.clockAt(this.unit, from.frame) : 0;
    this.goOn();
  }

  /** More comes in again. */
  goOn() {
    this.#isFed = true;
    this.play();
  }

  /** No more comes in: what was received is shown to its end. */
  cut() {
    this.#isFed = false;
    this.onChange();
  }

  /** Show finished recordings at their end. @param {Recording[]} recordings */
  open(recordings) {
    this.#isFed = false;
    this.recordings = recordings;
    this.position = this.end;
    this.pause();
  }

  play() {
    if (!this.#isFollowing && this.isAtEnd) this.position = 0;
    this.#lastTick = performance.now();
    if (!this.isMoving) requestAnimationFrame(this.#tick);
    this.isMoving = true;
    this.onChange();
  }

  pause() {
    this.isMoving = false;
    this.onChange();
  }

  /** @param {number} position */
  seek(position) {
    this.position = position;
    this.pause();
  }

  /** Change clock or speed without moving the eye. @param {() => void} change */
  reset(change) {
    const [unit, wasAtEnd] = [this.unit, this.isAtEnd];
    // A run that is at its end does not say how far the other is.
    const anchor = this.recordings.find((recording) => this.frameOf(recording) < recording.lastFrame) ?? this.recordings[0];
    const frame = anchor ? this.frameOf(anchor) : 0;
    change();
    if (wasAtEnd) this.position = this.end;
    else if (this.unit !== unit) this.position = anchor?.clockAt(this.unit, frame) ?? 0;
    this.onChange();
  }

  /** Units of the clock per second. */
  get #rate() {
    if (this.speed === AS_IT_COMES) return Math.max(this.end, 1) / Math.max(this.#endOf("time") / 1000, 0.001);
    // By any clock a film takes as long as by its tokens.
    const seconds = Math.max(this.#endOf("tokens") / TOKENS_PER_SECOND, this.clock === "tokens" ? 0 : SHORTEST_SECONDS);
    return (this.speed * Math.max(this.end, 1)) / Math.max(seconds, 0.001);
  }

  /** @param {Clock} clock */
  #endOf(clock) {
    return Math.max(0, ...this.recordings.map((recording) => recording.clockAt(clock, recording.lastFrame)));
  }

  get #isFollowing() {
    return this.#isFed && this.recordings.some((recording) => !recording.done);
  }

  /** Where the eye may be now: runs under way are shown as far as the slowest of them has come. */
  get #limit() {
    if (!this.#isFollowing) return this.end;
    const running = this.recordings.filter((recording) => !recording.done);
    return Math.min(...running.map((recording) => recording.clockAt(this.unit, recording.lastFrame)));
  }

  /** @param {number} now */
  #tick = (now) => {
    if (!this.isMoving) return;
    const [isFollowing, limit] = [this.#isFollowing, this.#limit];
    const moved = this.position + (Math.max(0, now - this.#lastTick) / 1000) * this.#rate;
    this.#lastTick = now;
    this.position = isFollowing && this.speed === AS_IT_COMES ? limit : Math.max(Math.min(moved, limit), this.position);
    if (!isFollowing && this.isAtEnd) this.isMoving = false;
    else requestAnimationFrame(this.#tick);
    this.onChange();
  };
}
