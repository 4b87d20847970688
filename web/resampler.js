/** Sound as numbers: streaming resampling, PCM16 both ways, loudness. Runs in the page, in worklets and in node. */

const ZERO_CROSSINGS = 16;
const TABLE_STEPS = 512; // points of the kernel per zero crossing; read with linear interpolation

/** Windowed sinc from its centre to its edge. */
const KERNEL = (() => {
  const table = new Float32Array(ZERO_CROSSINGS * TABLE_STEPS + 2);
  for (let i = 0; i < table.length - 1; i++) {
    const x = i / TABLE_STEPS;
    const u = Math.min(1, x / ZERO_CROSSINGS);
    const window = 0.42 + 0.5 * Math.cos(Math.PI * u) + 0.08 * Math.cos(2 * Math.PI * u); // Blackman
    table[i] = window * (x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x));
  }
  return table;
})();

/** Changes the rate of a mono stream given piece by piece, without seams between the pieces. */
export class Resampler {
  /** The newest of what came in, and the next output's place in it. */
  history = new Float32Array(0);
  position = 0;

  /**
   * @param {number} from rate of what comes in, Hz
   * @param {number} to rate of what goes out, Hz
   */
  constructor(from, to) {
    this.step = from / to;
    this.cutoff = Math.min(1, to / from) * 0.94; // leaves room for the filter's slope
    if (this.step === 1) this.cutoff = 1;
    this.reach = Math.ceil(ZERO_CROSSINGS / this.cutoff);
    this.#restart();
  }

  #restart() {
    this.history = new Float32Array(this.reach); // silence before the first sample
    this.position = this.reach;
  }

  /**
   * @param {Float32Array} input
   * @returns {Float32Array} what can be said already; the rest needs samples that are still to come
   */
  push(input) {
    if (this.step === 1) return input;
    const x = new Float32Array(this.history.length + input.length);
    x.set(this.history);
    x.set(input, this.history.length);
    const last = x.length - this.reach - 1; // the last position with all its neighbours
    const count = Math.max(0, Math.floor((last - this.position) / this.step) + 1);
    const out = new Float32Array(count);
    for (let n = 0; n < count; n++) out[n] = this.#at(x, this.position + n * this.step);
    this.position += count * this.step;
    const drop = Math.min(x.length, Math.max(0, Math.floor(this.position) - this.reach));
    this.history = x.slice(drop);
    this.position -= drop;
    return out;
  }

  /** Ends the stream: returns what was held back, and starts afresh. */
  flush() {
    if (this.step === 1) return new Float32Array(0);
    const out = this.push(new Float32Array(this.reach + 1));
    this.#restart();
    return out;
  }

  /**
   * @param {Float32Array} x
   * @param {number} position
   */
  #at(x, position) {
    const scale = this.cutoff * TABLE_STEPS;
    const edge = ZERO_CROSSINGS * TABLE_STEPS;
    let sum = 0;
    for (let i = Math.ceil(position - this.reach); i <= position + this.reach; i++) {
      const t = Math.abs(i - position) * scale;
      if (t >= edge) continue;
      const j = Math.floor(t);
      sum += x[i] * (KERNEL[j] + (t - j) * (KERNEL[j + 1] - KERNEL[j]));
    }
    return sum * this.cutoff;
  }
}

/**
 * @param {Float32Array} samples in [-1, 1]; louder is clipped
 * @returns {Int16Array}
 */
export function floatToPcm16(samples) {
  const out = new Int16Array(samples.length);
  for (let i = 0; i < samples.length; i++) {
    out[i] = Math.round(Math.max(-1, Math.min(1, samples[i])) * 32767);
  }
  return out;
}

/**
 * @param {ArrayBuffer} bytes signed 16-bit little-endian; an odd last byte is left out
 * @returns {Float32Array}
 */
export function pcm16ToFloat(bytes) {
  const view = new DataView(bytes);
  const out = new Float32Array(bytes.byteLength >> 1);
  for (let i = 0; i < out.length; i++) out[i] = view.getInt16(i * 2, true) / 32768;
  return out;
}

/**
 * @param {string} base64
 * @returns {ArrayBuffer}
 */
export function base64ToBytes(base64) {
  const text = atob(base64);
  const out = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) out[i] = text.charCodeAt(i);
  return out.buffer;
}

/**
 * Loudness for a meter: 0 at −60 dBFS and below, 1 at full scale.
 * @param {Float32Array} samples
 */
export function loudness(samples) {
  let sum = 0;
  for (let i = 0; i < samples.length; i++) sum += samples[i] * samples[i];
  const db = 10 * Math.log10(sum / Math.max(1, samples.length) + 1e-12);
  return Math.max(0, Math.min(1, (db + 60) / 60));
}
