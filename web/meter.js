/** The sound level on both sides of the microphone button: newest beside it, moving outwards. */

const BARS = 90;
const BAR = 3;
const PITCH = 7; // from bar to bar, px
const STEP_MS = 40;
const BUTTON_RADIUS = 58;

export class Meter {
  #levels = new Float32Array(BARS);
  /** Whose sound each bar is. @type {("accent" | "voice")[]} */
  #whose = new Array(BARS).fill("accent");
  #now = 0;
  /** @type {"accent" | "voice"} */
  #who = "accent";
  #steppedAt = 0;
  #running = false;
  #calm = matchMedia("(prefers-reduced-motion: reduce)");

  /** @param {HTMLCanvasElement} canvas the CSS colours `--accent` and `--voice` are those of the person and the reply */
  constructor(canvas) {
    this.canvas = canvas;
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
  }

  /**
   * @param {number} level 0–1
   * @param {"accent" | "voice"} who
   */
  show(level, who) {
    this.#now = Math.max(this.#now, level);
    this.#who = who;
    if (this.#running) return;
    this.#running = true;
    requestAnimationFrame((now) => this.#step(now));
  }

  /** @param {number} now */
  #step(now) {
    if (now - this.#steppedAt >= STEP_MS) {
      this.#steppedAt = now;
      this.#levels.copyWithin(1, 0);
      this.#levels[0] = this.#now;
      this.#whose.copyWithin(1, 0);
      this.#whose[0] = this.#who;
      this.canvas.setAttribute("aria-valuenow", String(Math.round(this.#now * 100)));
      this.#now = this.#now > 0.02 ? this.#now * 0.6 : 0; // falls by itself once nothing is heard
      this.#draw();
    }
    this.#running = this.#levels.some((level) => level > 0) || this.#now > 0;
    if (this.#running) requestAnimationFrame((next) => this.#step(next));
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const paint = this.canvas.getContext("2d");
    if (!paint || !width) return;
    const scale = devicePixelRatio || 1;
    const [pixelsAcross, pixelsDown] = [Math.round(width * scale), Math.round(height * scale)];
    if (this.canvas.width !== pixelsAcross || this.canvas.height !== pixelsDown) {
      this.canvas.width = pixelsAcross;
      this.canvas.height = pixelsDown;
    }
    paint.setTransform(scale, 0, 0, scale, 0, 0);
    paint.clearRect(0, 0, width, height);
    const style = getComputedStyle(this.canvas);
    const colours = { accent: style.getPropertyValue("--accent"), voice: style.getPropertyValue("--voice"), none: style.color };
    const reach = width / 2;
    const count = Math.min(BARS, Math.floor((reach - BUTTON_RADIUS) / PITCH));
    for (let i = 0; i < count; i++) {
      // Without motion: as many bars as it is loud, in place.
      const level = this.#calm.matches ? Number(i < this.#levels[0] * count) * 0.4 : this.#levels[i];
      paint.fillStyle = colours[level > 0.03 ? this.#whose[this.#calm.matches ? 0 : i] : "none"];
      const tall = Math.max(BAR, level ** 1.5 * height * 0.8);
      paint.globalAlpha = (level > 0.03 ? 1 : 0.3) * Math.min(1, (1.15 * (count - i)) / count);
      const away = BUTTON_RADIUS + i * PITCH;
      for (const x of [reach + away, reach - away - BAR]) {
        paint.beginPath();
        paint.roundRect(x, (height - tall) / 2, BAR, tall, BAR / 2);
        paint.fill();
      }
    }
  }
}
