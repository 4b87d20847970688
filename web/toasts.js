/** Short messages over the page. Errors stay until dismissed, the rest leave by themselves. */

import { t } from "./i18n.js";

const MOST = 3;
const STAYS_MS = 9000;

export class Toasts {
  /** @param {HTMLElement} region */
  constructor(region) {
    this.region = region;
  }

  /**
   * A toast of the same text replaces the one before.
   * @param {"error" | "notice"} kind
   * @param {string} text
   * @param {string} [small] for whoever looks into it: a trace id
   */
  show(kind, text, small = "") {
    for (const other of [...this.region.children]) {
      if (other.getAttribute("data-text") === text) other.remove();
    }
    const toast = document.createElement("div");
    toast.className = `toast ${kind}`;
    toast.dataset.text = text;
    toast.dataset.testid = "toast";
    toast.setAttribute("role", kind === "error" ? "alert" : "status");
    const words = document.createElement("div");
    words.append(text);
    if (small) {
      const line = document.createElement("small");
      line.textContent = small;
      words.append(line);
    }
    toast.append(words, this.#dismissButton(toast));
    this.region.append(toast);
    while (this.region.children.length > MOST) this.region.firstElementChild?.remove();
    if (kind === "notice") setTimeout(() => toast.remove(), STAYS_MS);
  }

  clear() {
    this.region.replaceChildren();
  }

  /** @param {HTMLElement} toast */
  #dismissButton(toast) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "icon-button";
    button.setAttribute("aria-label", t("toast.dismiss"));
    const icon = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    icon.setAttribute("viewBox", "0 0 24 24");
    icon.setAttribute("aria-hidden", "true");
    const cross = document.createElementNS("http://www.w3.org/2000/svg", "path");
    cross.setAttribute("d", "M6 6l12 12M18 6L6 18");
    icon.append(cross);
    button.append(icon);
    button.onclick = () => toast.remove();
    return button;
  }
}
