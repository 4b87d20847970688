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
 * @param {HTMLElement} list
 * @param {RoleProgress[]} roles empty: nothing to show
 */
export function showLoading(panel, list, roles) {
  panel.hidden = !notReady(roles);
  if (panel.hidden) return;
  list.replaceChildren(
    ...roles.map((role) => {
      const item = document.createElement("li");
      item.className = role.state;
      item.dataset.roleName = role.role;
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
        bar.value = role.state === "fetching" ? role.progress : role.state === "absent" ? 0 : 1;
        bar.setAttribute("aria-label", name.textContent);
        item.append(bar);
      }
      return item;
    }),
  );
}
