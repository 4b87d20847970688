/** The settings dialog: shows the preferences, reads them back, offers what the server has. */

import { has, language, t } from "./i18n.js";
import { normalise, parseVocabulary, spokenLanguages } from "./settings.js";

/** @import { Preferences, SpeakerInfo } from "./types.d.ts" */

export class SettingsDialog {
  /** @type {SpeakerInfo} */
  #speakers = { voices: [], default: null };

  /**
   * @param {HTMLDialogElement} dialog
   * @param {(preferences: Preferences) => void} onSave
   */
  constructor(dialog, onSave) {
    this.dialog = dialog;
    this.form = /** @type {HTMLFormElement} */ (dialog.querySelector("form"));
    this.problem = /** @type {HTMLElement} */ (dialog.querySelector("#settings-problem"));
    /** @type {HTMLElement} */ (dialog.querySelector("#settings-cancel")).onclick = () => dialog.close();
    this.form.addEventListener("submit", () => onSave(this.#read()));
    this.form.addEventListener("input", () => this.#showNumbers());
  }

  get isOpen() {
    return this.dialog.open;
  }

  /**
   * @param {Preferences} preferences
   * @param {string} [problem] why the dialog opened by itself
   * @param {string} [focus] the field to begin with
   */
  open(preferences, problem = "", focus = "") {
    this.problem.textContent = problem;
    this.problem.hidden = problem === "";
    if (!this.isOpen) {
      this.#fill(preferences);
      this.dialog.showModal();
    }
    if (focus) this.#field(focus).focus();
  }

  /** @param {SpeakerInfo} speakers */
  offer(speakers) {
    this.#speakers = speakers;
    if (this.isOpen) this.#fillVoices(this.#field("voice").value);
  }

  /** @param {string} name */
  #field(name) {
    return /** @type {HTMLInputElement} */ (this.form.elements.namedItem(name));
  }

  /** @param {Preferences} preferences */
  #fill(preferences) {
    const languages = new Set([...spokenLanguages, preferences.language].filter((code) => code !== "" && code !== "auto"));
    options(this.#field("language"), [
      ["", t("set.languageDefault")],
      ["auto", t("set.languageAuto")],
      ...[...languages].map((code) => /** @type {[string, string]} */ ([code, languageName(code)])),
    ]);
    this.#field("language").value = preferences.language;
    this.#fillVoices(preferences.voice);
    for (const name of /** @type {const} */ (["speed", "endMs", "instructions", "uiLanguage", "apiKey"])) {
      this.#field(name).value = String(preferences[name]);
    }
    this.#field("vocabulary").value = preferences.vocabulary.join("\n");
    this.#field("pushToTalk").checked = preferences.pushToTalk;
    this.#showNumbers();
  }

  /** @param {string} chosen */
  #fillVoices(chosen) {
    const { voices, default: usual } = this.#speakers;
    /** @type {[string, string][]} */
    const rows = voices.map((voice) => [voice.name, voiceName(voice)]);
    // A voice that was chosen on another day stays on offer while the server's list is not known.
    if (chosen && !voices.some((voice) => voice.name === chosen)) rows.push([chosen, chosen]);
    const none = usual ? t("set.voiceDefaultNamed", { name: usual }) : t("set.voiceDefault");
    options(this.#field("voice"), [["", none], ...rows]);
    this.#field("voice").value = chosen;
  }

  #showNumbers() {
    const [speed, end] = [this.#field("speed"), this.#field("endMs")].map((field) => Number(field.value));
    this.form.querySelector("#speed-out")?.replaceChildren(`${speed.toFixed(2)} ×`);
    this.form.querySelector("#end-out")?.replaceChildren(`${(end / 1000).toFixed(2)} s`);
  }

  /** @returns {Preferences} */
  #read() {
    return normalise({
      ...Object.fromEntries(new FormData(this.form)),
      speed: Number(this.#field("speed").value),
      endMs: Number(this.#field("endMs").value),
      pushToTalk: this.#field("pushToTalk").checked,
      vocabulary: parseVocabulary(this.#field("vocabulary").value),
    });
  }
}

/**
 * @param {HTMLElement} select
 * @param {[string, string][]} rows value and words
 */
function options(select, rows) {
  select.replaceChildren(...rows.map(([value, words]) => new Option(words, value)));
}

/** @param {string} code */
function languageName(code) {
  try {
    return new Intl.DisplayNames([language()], { type: "language" }).of(code) ?? code;
  } catch {
    return code; // a voice may name something that is no language tag
  }
}

/** @param {SpeakerInfo["voices"][number]} voice */
function voiceName({ name, language: code, gender = "" }) {
  const about = [languageName(code), has(`gender.${gender}`) ? t(`gender.${gender}`) : ""].filter(Boolean);
  return `${name} · ${about.join(", ")}`;
}
