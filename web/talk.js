/** When the microphone's sound is sent: while it is on, or while the button is held. */

import { FRAME_MS, Microphone, MicrophoneError } from "./capture.js";

/** @import { MicTrouble } from "./capture.js" */

const TAIL_MS = 150; // people let go of the button a little early
const SILENCE_MS = 1000;

/**
 * @typedef {object} TalkHandlers
 * @property {(pcm: ArrayBuffer, ms: number) => void} onSound
 * @property {(level: number) => void} onLevel
 * @property {(on: boolean) => void} onChange sound is sent from now on, or no longer
 * @property {() => void} onCommit what was said while the button was held is complete
 * @property {(trouble: MicTrouble) => void} onTrouble
 */

export class Talk {
  #on = false;
  #wanted = false;
  #holding = false;
  #sent = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #tail;

  /** @param {TalkHandlers} handlers */
  constructor(handlers) {
    this.handlers = handlers;
    this.microphone = new Microphone(
      (pcm, level) => {
        if (!this.#on) return;
        this.#sent = true;
        handlers.onLevel(level);
        handlers.onSound(pcm, FRAME_MS);
      },
      () => {
        this.off();
        handlers.onTrouble("micEnded");
      },
    );
  }

  get on() {
    return this.#on;
  }

  toggle() {
    this.#holding = false;
    if (this.#wanted) this.off();
    else void this.#start();
  }

  /** Closes the microphone. */
  off() {
    this.#wanted = false;
    clearTimeout(this.#tail);
    this.microphone.stop();
    if (!this.#on) return;
    this.#set(false);
    if (this.#holding) return this.handlers.onCommit();
    // Turns end by silence, and from a closed microphone there would be none.
    for (let ms = 0; ms < SILENCE_MS; ms += FRAME_MS) {
      this.handlers.onSound(new ArrayBuffer(FRAME_MS * 16 * 2), FRAME_MS);
    }
  }

  /** The button is held. The microphone stays open afterwards, so that the next time begins at once. */
  press() {
    clearTimeout(this.#tail);
    this.#holding = true;
    void this.#start();
  }

  release() {
    this.#wanted = false;
    clearTimeout(this.#tail);
    this.#tail = setTimeout(() => {
      if (!this.#on) return;
      this.#set(false);
      if (this.#sent) this.handlers.onCommit();
    }, TAIL_MS);
  }

  async #start() {
    this.#wanted = true;
    try {
      await this.microphone.start();
    } catch (error) {
      this.#wanted = false;
      this.handlers.onTrouble(error instanceof MicrophoneError ? error.trouble : "micBusy");
      return;
    }
    if (this.#wanted) this.#set(true);
    // else let go, or switched off, while the browser asked for permission
  }

  /** @param {boolean} on */
  #set(on) {
    if (on && !this.#on) this.#sent = false;
    this.#on = on;
    this.handlers.onChange(on);
  }
}
