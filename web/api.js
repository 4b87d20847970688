/** The REST calls of the page. Addresses are relative to the page, so that a proxy may put it under a path. */

/** @import { Health, SessionCreated, SessionSettings, SpeakerInfo } from "./types.d.ts" */

/** A refusal by the server: `message` is for the person, `retryAfterMs` set where trying again makes sense. */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   * @param {number | null} retryAfterMs
   */
  constructor(status, code, message, retryAfterMs) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfterMs = retryAfterMs;
  }
}

export class Api {
  /**
   * @param {string} base the page's address
   * @param {() => string} key the API key, or ""
   * @param {typeof fetch} [fetcher]
   */
  constructor(base, key, fetcher = (...args) => fetch(...args)) {
    this.base = base;
    this.key = key;
    this.fetcher = fetcher;
  }

  /**
   * @param {SessionSettings} settings
   * @returns {Promise<SessionCreated>}
   */
  createSession(settings) {
    return this.#call("api/v1/sessions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(settings),
    });
  }

  /**
   * Whether the server still knows a session as ours; null where it could not be asked.
   * @param {string} sessionId
   * @returns {Promise<boolean | null>}
   */
  async knowsSession(sessionId) {
    try {
      const session = await this.#call(`api/v1/sessions/${encodeURIComponent(sessionId)}`);
      return session.state !== "ended";
    } catch (error) {
      return error instanceof ApiError && [403, 404].includes(error.status) ? false : null;
    }
  }

  /** @returns {Promise<Health>} */
  health() {
    return this.#call("api/v1/health", {}, [503]);
  }

  /** @returns {Promise<SpeakerInfo>} */
  speakerInfo() {
    return this.#call("speaker_info");
  }

  /**
   * @param {string} path
   * @param {RequestInit} [init]
   * @param {number[]} [alsoGood] statuses beside 2xx whose body is the answer
   */
  async #call(path, init = {}, alsoGood = []) {
    const headers = new Headers(init.headers);
    if (this.key()) headers.set("Authorization", `Bearer ${this.key()}`);
    const response = await this.fetcher(new URL(path, this.base), { ...init, headers, cache: "no-store" });
    if (response.ok || alsoGood.includes(response.status)) return response.json();
    const body = await response.json().catch(() => ({}));
    const seconds = Number(response.headers.get("Retry-After"));
    const busy = response.status === 429 || response.status >= 500;
    throw new ApiError(
      response.status,
      String(body.code ?? `HTTP_${response.status}`),
      String(body.message ?? response.statusText),
      busy ? seconds * 1000 : null,
    );
  }
}

/**
 * Where to connect: `ws_url` may be a path, and a page that came over TLS may only speak TLS.
 * @param {SessionCreated} session
 * @param {string} base the page's address
 */
export function socketUrl(session, base) {
  const url = new URL(session.ws_url, base);
  const secure = url.protocol === "https:" || url.protocol === "wss:" || new URL(base).protocol === "https:";
  url.protocol = secure ? "wss:" : "ws:";
  url.searchParams.set("token", session.token);
  return url.href;
}
