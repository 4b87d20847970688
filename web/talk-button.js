/** The microphone button and the space bar: a click toggles, or holding talks. */

/**
 * Whether a key press there belongs to the element, so that the page must leave it alone.
 * @param {{ tagName: string, isContentEditable?: boolean }} target
 */
export function ownsSpace({ tagName, isContentEditable = false }) {
  return isContentEditable || ["INPUT", "TEXTAREA", "SELECT", "BUTTON", "SUMMARY", "A"].includes(tagName.toUpperCase());
}

/**
 * @param {HTMLButtonElement} button
 * @param {object} actions
 * @param {() => boolean} actions.holds whether it is held to talk, rather than toggled
 * @param {() => void} actions.onToggle
 * @param {() => void} actions.onPress
 * @param {() => void} actions.onRelease
 * @param {() => boolean} actions.enabled false while a dialog is open
 */
export function bindTalkButton(button, { holds, onToggle, onPress, onRelease, enabled }) {
  let held = false;
  const press = () => {
    if (held) return;
    held = true;
    onPress();
  };
  const release = () => {
    if (!held) return;
    held = false;
    onRelease();
  };

  button.addEventListener("pointerdown", (event) => {
    if (!holds() || event.button !== 0) return;
    button.setPointerCapture(event.pointerId); // a finger that slides off still talks
    press();
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(end, release);
  button.addEventListener("contextmenu", (event) => {
    if (holds()) event.preventDefault(); // a long press on a phone
  });
  button.addEventListener("click", (event) => {
    if (!holds()) onToggle();
    // Assistive technology clicks without a pointer and cannot hold: one click begins, the next ends.
    else if (event.detail === 0) held ? release() : press();
  });

  document.addEventListener("keydown", (event) => {
    if (event.code !== "Space" || event.ctrlKey || event.altKey || event.metaKey || !enabled()) return;
    const target = /** @type {HTMLElement} */ (event.target);
    if (target !== button && ownsSpace(target)) return;
    event.preventDefault(); // neither scroll nor click the button as well
    if (event.repeat) return;
    if (holds()) press();
    else onToggle();
  });
  document.addEventListener("keyup", (event) => {
    if (event.code !== "Space") return;
    if (event.target === button) event.preventDefault();
    release();
  });
  window.addEventListener("blur", release);
}
