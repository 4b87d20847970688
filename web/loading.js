/** How far the models are. */

import { has, t } from "./i18n.js";

/** @import { RoleProgress } from "./types.d.ts" */

/** @param {RoleProgress[]} roles */
export function notReady(roles) {
  return roles.some((role) => role.state !== "ready");
}

/** @param {RoleProgress} role */
export function howFar(role) {
  const words = t(`model.${role.state}`);
  return role.state === "fetching" ? `${words} ${Math.round(role.progress * 100)} %` : words;
}

/**
 * @param {HTMLElement} panel
 * @param {RoleProgress[]} roles empty: nothing to show
 */
export function showLoading(panel, roles) {
  panel.hidden = !notReady(roles);
  if (panel.hidden) return;
  const [title, body, list] = /** @type {[Element, Element, Element]} */ ([...panel.children]);
  const failed = roles.some((role) => role.state === "failed");
  title.textContent = t(failed ? "loading.failedTitle" : "loading.title");
  body.textContent = t(failed ? "loading.failedBody" : "loading.body");
  list.replaceChildren(
    ...roles.map((role) => {
      const item = document.createElement("li");
      item.dataset.model = role.role;
      item.dataset.state = role.state;
      const name = document.createElement("span");
      name.textContent = has(`role.${role.role}`) ? t(`role.${role.role}`) : role.role;
      name.title = role.model;
      const far = document.createElement("span");
      far.className = "how-far";
      far.textContent = howFar(role);
      item.append(name, far);
      if (role.state === "failed") {
        const why = document.createElement("span");
        why.className = "why";
        why.textContent = role.message;
        item.append(why);
      } else {
        const bar = document.createElement("progress");
        bar.max = 1;
        // While it is loaded nobody knows how long it takes: a bar without a value moves by itself.
        if (role.state !== "loading") bar.value = role.state === "ready" ? 1 : role.progress;
        bar.setAttribute("aria-label", name.textContent);
        item.append(bar);
      }
      return item;
    }),
  );
}
