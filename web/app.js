/** The page: joins the line to the server, the microphone, the loudspeaker and what is shown. */

import { Api } from "./api.js";
import { Connection } from "./connection.js";
import { Conversation } from "./conversation.js";
import { has, pickLanguage, setLanguage, t, translate } from "./i18n.js";
import { notReady, showLoading } from "./loading.js";
import { Meter } from "./meter.js";
import { Player } from "./player.js";
import { pcm16ToFloat } from "./resampler.js";
import { SettingsDialog } from "./settings-dialog.js";
import * as settings from "./settings.js";
import { canStop, initialState, phaseOf, reduce } from "./state.js";
import { bindTalkButton } from "./talk-button.js";
import { Talk } from "./talk.js";
import { Toasts } from "./toasts.js";
import { Transcript } from "./transcript.js";
import { drawWaterfall } from "./waterfall.js";

/** @import { Event } from "./state.js" */
/** @import { Preferences, RoleProgress, ServerMessage } from "./types.d.ts" */

const HEALTH_MS = 1500;

/** @template {HTMLElement} T @param {string} id @param {new () => T} type */
function byId(id, type) {
  const node = document.getElementById(id);
  if (!(node instanceof type)) throw new Error(`the page has no ${id}`);
  return node;
}

const mic = byId("mic", HTMLButtonElement);
const stopButton = byId("stop", HTMLButtonElement);
const textInput = byId("text", HTMLInputElement);
const waterfall = byId("waterfall", HTMLDetailsElement);

let preferences = settings.load();
let state = initialState;
/** @type {RoleProgress[]} */
let roles = [];
/** @type {Record<string, number> | null} */
let latency = null;

const api = new Api(document.baseURI, () => preferences.apiKey);
const toasts = new Toasts(byId("toasts", HTMLElement));
const meter = new Meter(byId("level", HTMLCanvasElement));
const conversation = new Conversation();
const transcript = new Transcript(byId("turns", HTMLElement), byId("conversation", HTMLElement));
const dialog = new SettingsDialog(byId("settings", HTMLDialogElement), changeSettings);

const connection = new Connection(api, document.baseURI, () => settings.toSessionSettings(preferences), {
  onMessage: receive,
  onAudio(chunk, sound) {
    if (player.push(chunk.turn_id, pcm16ToFloat(sound), chunk.sample_rate)) {
      dispatch({ type: "playing", turnId: chunk.turn_id });
    }
  },
  onStatus(status, retryInMs) {
    dispatch({ type: "line", status });
    if (status === "open") showRoles([]);
    const banner = byId("banner", HTMLElement);
    banner.hidden = status === "open" || retryInMs === null;
    byId("banner-text", HTMLElement).textContent =
      status === "reconnecting" ? t("banner.reconnecting") : t("banner.connecting");
  },
  onRefused(error) {
    if (error.retryAfterMs !== null) toasts.show("notice", error.message || t("toast.retry"));
    else if (error.status === 401) {
      dialog.open(preferences, preferences.apiKey ? t("set.apiKeyWrong") : t("set.apiKeyNeeded"), "apiKey");
    } else dialog.open(preferences, t("toast.refused", { message: error.message }));
  },
  onReplaced: startAfresh,
});

const player = new Player({
  onPlayed(turnId, playedMs, drained) {
    connection.send({ type: "playback", turn_id: turnId, played_ms: Math.round(playedMs) }, { keep: drained });
    if (drained) dispatch({ type: "drained", turnId });
  },
  onLevel(level) {
    if (!talk.on || state.hearing === null) meter.show(level, "voice");
  },
  onBroken: () => toasts.show("error", t("toast.noSound")),
});

const talk = new Talk({
  onSound: (pcm, ms) => connection.sendAudio(pcm, ms),
  onLevel(level) {
    if (state.speaking === null || state.hearing !== null) meter.show(level, "accent");
  },
  onChange(on) {
    if (!on && !preferences.pushToTalk && state.hearing !== null) connection.send({ type: "commit" }, { keep: true });
    if (on) document.body.classList.add("muted-once");
    dispatch({ type: "mic", on });
  },
  onCommit() {
    connection.send({ type: "commit" }, { keep: true });
    dispatch({ type: "asked" });
  },
  onTrouble: (trouble) => toasts.show("error", t(`toast.${trouble}`)),
});

/** @param {Event} event */
function dispatch(event) {
  state = reduce(state, event);
  const phase = phaseOf(state);
  if (document.body.dataset.phase !== phase) {
    document.body.dataset.phase = phase;
    showWords();
  }
  stopButton.disabled = !canStop(state);
  mic.setAttribute("aria-pressed", String(state.mic));
}

/** The words that depend on more than their place in the page. */
function showWords() {
  byId("state-text", HTMLElement).textContent = t(`state.${phaseOf(state)}`, { n: state.queued });
  byId("state", HTMLElement).dataset.state = phaseOf(state);
  const label = preferences.pushToTalk ? "mic.hold" : state.mic ? "mic.stop" : "mic.start";
  mic.setAttribute("aria-label", t(label));
  mic.title = t(label);
  mic.classList.toggle("hold", preferences.pushToTalk);
  byId("hint-title", HTMLElement).textContent = t(preferences.pushToTalk ? "hint.titleHold" : "hint.title");
  byId("hint-body", HTMLElement).textContent = t(preferences.pushToTalk ? "hint.bodyHold" : "hint.body");
}

/** @param {ServerMessage} message */
function receive(message) {
  dispatch({ type: "server", message });
  const turn = conversation.apply(message);
  if (turn) {
    transcript.show(turn, conversation.turns);
    byId("hint", HTMLElement).hidden = true;
  }
  switch (message.type) {
    case "loading":
      return showRoles(message.roles);
    case "queued":
      showWords();
      return;
    case "reply_paused":
      return player.hold(message.turn_id);
    case "reply_resumed":
      return player.release();
    case "interrupted":
      player.stop(message.turn_id);
      return;
    case "turn_dropped":
      if (preferences.pushToTalk) toasts.show("notice", t("notice.NOTHING_HEARD"));
      return;
    case "turn_complete":
      if (Object.keys(message.latency).length) latency = message.latency;
      if (state.speaking === message.turn_id && !player.running) {
        player.stop(message.turn_id); // it would only be heard much too late
        dispatch({ type: "drained", turnId: message.turn_id });
      }
      return showWaterfall();
    case "notice":
      return toasts.show("notice", has(`notice.${message.code}`) ? t(`notice.${message.code}`) : message.message);
    case "error":
      return toasts.show("error", message.message, t("toast.trace", { code: message.code, trace: message.trace_id }));
  }
}

/** Stops what is being said or prepared, here at once and then on the server. */
function stop() {
  if (!canStop(state)) return;
  const turnId = state.speaking;
  if (turnId !== null) {
    const playedMs = Math.round(player.stop(turnId));
    connection.send({ type: "playback", turn_id: turnId, played_ms: playedMs });
  }
  connection.send({ type: "interrupt" });
  dispatch({ type: "stopped" });
}

function sendText() {
  const text = textInput.value.trim();
  if (!text) return;
  player.unlock();
  if (state.speaking !== null) stop();
  textInput.value = "";
  transcript.show(conversation.say(text), conversation.turns);
  byId("hint", HTMLElement).hidden = true;
  connection.send({ type: "text", text }, { keep: true });
  dispatch({ type: "asked" });
}

/** The session is a new one: what was open in the old one will not be answered. */
function startAfresh() {
  player.stopAll();
  const unsent = connection.outbox.parcels.filter((parcel) => "message" in parcel && parcel.message.type === "text");
  for (const turn of conversation.closeAll(unsent.length)) transcript.show(turn, conversation.turns);
  dispatch({ type: "replaced" });
  if (conversation.turns.length) toasts.show("notice", t("toast.replaced"));
}

/** @param {RoleProgress[]} news */
function showRoles(news) {
  roles = news;
  showLoading(byId("loading", HTMLElement), roles);
  dispatch({ type: "loading", busy: notReady(roles) });
}

function showWaterfall() {
  waterfall.classList.toggle("empty", latency === null);
  if (latency) drawWaterfall(byId("waterfall-headline", HTMLElement), byId("waterfall-rows", HTMLElement), latency);
}

/** @param {Preferences} chosen */
function changeSettings(chosen) {
  const before = preferences;
  preferences = chosen;
  settings.save(chosen);
  speak(chosen.uiLanguage);
  if (before.pushToTalk !== chosen.pushToTalk) talk.off();
  if (before.apiKey !== chosen.apiKey || connection.status === "refused") {
    if (connection.status !== "refused") startAfresh();
    connection.restart();
    offerVoices();
  } else {
    connection.send({ type: "configure", settings: settings.toSessionSettings(chosen) }, { keep: true });
  }
}

/** @param {string} wish "auto", "en" or "zh" */
function speak(wish) {
  setLanguage(pickLanguage(wish, navigator.languages));
  translate(document);
  showWords();
  showRoles(roles);
  showWaterfall();
  transcript.showAll(conversation.turns);
}

function offerVoices() {
  api.speakerInfo().then((speakers) => dialog.offer(speakers), () => {}); // then only the server's choice is on offer
}

/** While there is no session, the server's health says how far it is. */
async function watchHealth() {
  const waiting = () => ["connecting", "reconnecting"].includes(connection.status);
  if (waiting()) {
    const health = await api.health().catch(() => null);
    if (health && waiting()) showRoles(health.roles);
  }
  setTimeout(watchHealth, HEALTH_MS);
}

bindTalkButton(mic, {
  holds: () => preferences.pushToTalk,
  onToggle() {
    player.unlock();
    talk.toggle();
  },
  onPress() {
    player.unlock();
    stop();
    talk.press();
  },
  onRelease: () => talk.release(),
  enabled: () => !dialog.isOpen,
});
byId("compose", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  sendText();
});
stopButton.addEventListener("click", stop);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !dialog.isOpen) stop();
});
byId("settings-open", HTMLButtonElement).addEventListener("click", () => {
  dialog.open(preferences);
  offerVoices();
});
byId("banner-retry", HTMLButtonElement).addEventListener("click", () => connection.retryNow());
window.addEventListener("online", () => connection.retryNow());
window.addEventListener("offline", () => connection.lost());
waterfall.open = matchMedia("(min-width: 1200px)").matches;

speak(preferences.uiLanguage);
dispatch({ type: "mic", on: false });
connection.restart();
void watchHealth();
