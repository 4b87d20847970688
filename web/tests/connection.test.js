import assert from "node:assert/strict";
import test from "node:test";
import { Api, ApiError, socketUrl } from "../api.js";
import { Connection } from "../connection.js";

/** The server's end of the sockets that a connection opens. */
class Sockets {
  constructor() {
    const opened = (this.opened = []);
    this.Socket = class {
      constructor(url) {
        this.url = url;
        this.sent = [];
        opened.push(this);
      }
      send(data) {
        this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
      }
      close() {
        this.closed = true;
      }
      open() {
        this.onopen();
      }
      say(message) {
        this.onmessage?.({ data: message instanceof ArrayBuffer ? message : JSON.stringify(message) });
      }
      ready(more = {}) {
        this.say({ type: "session_ready", seq: 0, session_id: "s", heartbeat_s: 15, received_ms: 0, received_messages: 0, settings: {}, ...more });
      }
      drop(code = 1006) {
        this.onclose?.({ code });
      }
    };
  }
  get last() {
    return this.opened.at(-1);
  }
}

/** A connection whose REST calls are answered by `rest(path, init)` → [status, body, headers]. */
function setUp(t, rest = () => [201, { session_id: "s", ws_url: "/ws/s", token: "t0" }]) {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const calls = [];
  const fetcher = async (url, init) => {
    calls.push({ path: url.pathname, ...init });
    const [status, body, headers = {}] = rest(url.pathname, calls.length);
    return new Response(JSON.stringify(body), { status, headers });
  };
  const sockets = new Sockets();
  const seen = { messages: [], audio: [], status: [], refused: [], replaced: 0 };
  const handlers = {
    onMessage: (message) => seen.messages.push(message),
    onAudio: (chunk, sound) => seen.audio.push([chunk.turn_id, sound.byteLength]),
    onStatus: (status) => seen.status.push(status),
    onRefused: (error) => seen.refused.push(error),
    onReplaced: () => seen.replaced++,
  };
  const base = "http://host:8000/";
  const connection = new Connection(new Api(base, () => "key", fetcher), base, () => ({ language: "en" }), handlers, sockets.Socket);
  t.after(() => connection.lost());
  const settle = async () => {
    for (let i = 0; i < 20; i++) await Promise.resolve();
    await new Promise((done) => setImmediate(done));
  };
  const wait = async (ms) => {
    t.mock.timers.tick(ms);
    await settle();
  };
  return { connection, sockets, seen, calls, settle, wait };
}

test("creates a session, connects with its token, and says when it is open", async (t) => {
  const { connection, sockets, seen, calls, settle } = setUp(t);
  connection.restart();
  await settle();
  assert.equal(calls[0].path, "/api/v1/sessions");
  assert.equal(calls[0].headers.get("Authorization"), "Bearer key");
  assert.deepEqual(JSON.parse(calls[0].body), { language: "en" });
  assert.equal(sockets.last.url, "ws://host:8000/ws/s?token=t0");
  sockets.last.open();
  assert.deepEqual(sockets.last.sent, [], "a first connect has nothing to resume");
  sockets.last.ready();
  assert.deepEqual(seen.status, ["connecting", "open"]);
});

test("sound and kept messages from before the session is ready go out in order", async (t) => {
  const { connection, sockets, settle } = setUp(t);
  connection.sendAudio(new ArrayBuffer(2), 32);
  connection.restart();
  await settle();
  sockets.last.open();
  connection.send({ type: "commit" }, { keep: true });
  connection.send({ type: "interrupt" });
  sockets.last.ready();
  connection.send({ type: "interrupt" });
  assert.deepEqual(sockets.last.sent.map((x) => x.type ?? x.byteLength), [2, "commit", "interrupt"]);
});

test("a ping is answered and not passed on", async (t) => {
  const { connection, sockets, seen, settle } = setUp(t);
  connection.restart();
  await settle();
  sockets.last.open();
  sockets.last.ready();
  sockets.last.say({ type: "ping", seq: 0, received_ms: 0, received_messages: 0 });
  assert.deepEqual(sockets.last.sent, [{ type: "pong" }]);
  assert.deepEqual(seen.messages.map((message) => message.type), ["session_ready"]);
});

test("after a drop it resumes the same session, sends what was kept, and drops repetitions with their sound", async (t) => {
  const { connection, sockets, seen, calls, settle, wait } = setUp(t);
  connection.restart();
  await settle();
  const first = sockets.last;
  first.open();
  first.ready();
  const chunk = (seq, frames = 1) => ({ type: "audio_chunk", seq, turn_id: `turn${seq}`, data: null, frames });
  first.say({ type: "llm_token", seq: 1, turn_id: "t", token: "a" });
  first.say(chunk(2));
  first.say(new ArrayBuffer(20));
  first.drop();
  assert.equal(connection.status, "reconnecting");
  connection.sendAudio(new ArrayBuffer(7), 32);
  await wait(500);
  assert.equal(sockets.opened.length, 2);
  assert.equal(calls.length, 1, "no second session");
  const second = sockets.last;
  assert.equal(second.url, first.url);
  second.open();
  assert.deepEqual(second.sent, [{ type: "resume", last_seq: 2 }]);
  second.ready({ resumed: true, seq: 5 });
  assert.deepEqual(second.sent.slice(1).map((x) => x.byteLength), [7]);
  second.say(chunk(2));
  second.say(new ArrayBuffer(20));
  second.say(chunk(3, 2));
  second.say(new ArrayBuffer(30));
  second.say(new ArrayBuffer(31));
  second.say(chunk(4, 0));
  assert.deepEqual(seen.audio, [["turn2", 20], ["turn3", 30], ["turn3", 31]]);
  assert.deepEqual(seen.messages.map((message) => message.seq), [0, 1, 2, 5, 3, 4]);
});

test("what was on its way when the line broke is sent again from where the server has it", async (t) => {
  const { connection, sockets, settle, wait } = setUp(t);
  connection.restart();
  await settle();
  sockets.last.open();
  sockets.last.ready();
  for (const size of [1, 2, 3]) connection.sendAudio(new ArrayBuffer(size), 32);
  connection.send({ type: "commit" }, { keep: true });
  connection.send({ type: "playback", turn_id: "t", played_ms: 5 });
  connection.sendAudio(new ArrayBuffer(4), 32);
  sockets.last.say({ type: "ping", seq: 0, received_ms: 32, received_messages: 0 });
  sockets.last.drop();
  connection.sendAudio(new ArrayBuffer(5), 32);
  await wait(500);
  sockets.last.open();
  connection.sendAudio(new ArrayBuffer(6), 32);
  sockets.last.ready({ resumed: true, received_ms: 64, received_messages: 0 });
  const sent = () => sockets.last.sent.slice(1).map((x) => x.type ?? x.byteLength);
  assert.deepEqual(sent(), [3, "commit", 4, 5, 6]);
  sockets.last.drop();
  await wait(1000);
  sockets.last.open();
  sockets.last.ready({ resumed: true, received_ms: 128, received_messages: 1 });
  assert.deepEqual(sent(), [5, 6]);
});

test("who waits for a place is told, and goes on by itself", async (t) => {
  const { connection, sockets, seen, settle } = setUp(t);
  connection.restart();
  await settle();
  sockets.last.open();
  sockets.last.say({ type: "queued", seq: 0, position: 2, retry_after_s: 10 });
  connection.sendAudio(new ArrayBuffer(2), 32);
  sockets.last.say({ type: "queued", seq: 0, position: 1, retry_after_s: 10 });
  assert.deepEqual([connection.status, sockets.last.sent.length], ["connecting", 0]);
  sockets.last.ready();
  assert.deepEqual(sockets.last.sent.map((x) => x.byteLength), [2]);
  assert.deepEqual(seen.messages.map((m) => m.position ?? m.type), [2, 1, "session_ready"]);
});

test("sound inside the message is passed on as well", async (t) => {
  const { connection, sockets, seen, settle } = setUp(t);
  connection.restart();
  await settle();
  sockets.last.open();
  sockets.last.ready();
  sockets.last.say({ type: "audio_chunk", seq: 1, turn_id: "t", data: "AAAA", frames: 0 });
  assert.deepEqual(seen.audio, [["t", 3]]);
});

test("silence for two and a half heartbeats is a dead line", async (t) => {
  const { connection, sockets, settle, wait } = setUp(t);
  connection.restart();
  await settle();
  sockets.last.open();
  sockets.last.ready({ heartbeat_s: 2 });
  await wait(4900);
  sockets.last.say({ type: "ping", seq: 0 });
  await wait(4900);
  assert.equal(connection.status, "open");
  await wait(200);
  assert.equal(connection.status, "reconnecting");
  assert.equal(sockets.opened[0].closed, true);
});

for (const code of [4404, 4408]) {
  test(`close code ${code} gives a new session`, async (t) => {
    const { connection, sockets, seen, calls, settle, wait } = setUp(t);
    connection.restart();
    await settle();
    sockets.last.open();
    sockets.last.ready();
    sockets.last.say({ type: "llm_token", seq: 9, turn_id: "t", token: "a" });
    sockets.last.drop(code);
    await wait(500);
    assert.equal(seen.replaced, 1);
    assert.equal(calls.length, 2);
    sockets.last.open();
    assert.deepEqual(sockets.last.sent, [], "nothing to resume in it");
    sockets.last.ready();
    sockets.last.say({ type: "llm_token", seq: 1, turn_id: "t", token: "b" });
    assert.equal(seen.messages.at(-1).token, "b", "its numbers begin again");
  });
}

test("refused twice before opening, it asks whether the session is still known", async (t) => {
  let known = [200, { session_id: "s", state: "listening" }];
  const { connection, sockets, seen, calls, settle, wait } = setUp(t, (path) =>
    path.endsWith("/s") ? known : [201, { session_id: "s", ws_url: "/ws/s", token: "t0" }],
  );
  connection.restart();
  await settle();
  sockets.last.open();
  sockets.last.ready();
  sockets.last.drop();
  for (const delay of [500, 1000, 2000]) {
    await wait(delay);
    sockets.last.drop();
  }
  assert.equal(seen.replaced, 0);
  assert.deepEqual(calls.map((call) => call.path).slice(1), ["/api/v1/sessions/s"]);
  known = [404, { code: "NOT_FOUND", message: "there is no such session" }];
  await wait(8000);
  assert.equal(seen.replaced, 1);
});

test("a server that cannot be reached is not a lost session", async (t) => {
  const { connection, sockets, seen, settle, wait } = setUp(t, (path) => {
    if (path.endsWith("/s")) throw new TypeError("network");
    return [201, { session_id: "s", ws_url: "/ws/s", token: "t0" }];
  });
  connection.restart();
  await settle();
  sockets.last.open();
  sockets.last.ready();
  sockets.last.drop();
  for (let i = 0; i < 12; i++) {
    await wait(8000);
    sockets.last.drop();
  }
  assert.equal(seen.replaced, 0);
  assert.equal(connection.status, "reconnecting");
});

test("a refusal is told; only a busy server is asked again", async (t) => {
  let answer = [503, { code: "BUSY", message: "full" }, { "Retry-After": "3" }];
  const { connection, seen, calls, settle, wait } = setUp(t, () => answer);
  connection.restart();
  await settle();
  assert.deepEqual([seen.refused[0].message, seen.refused[0].retryAfterMs], ["full", 3000]);
  await wait(2900);
  assert.equal(calls.length, 1);
  answer = [401, { code: "NOT_ALLOWED", message: "key" }];
  await wait(200);
  assert.deepEqual([seen.refused[1].status, connection.status], [401, "refused"]);
  await wait(60_000);
  assert.equal(calls.length, 2);
});

test("an answer that comes after a restart is not taken", async (t) => {
  const { connection, sockets, settle } = setUp(t);
  connection.restart();
  connection.restart();
  await settle();
  assert.equal(sockets.opened.length, 1);
});

test("retrying now, and the network going away", async (t) => {
  const { connection, sockets, settle } = setUp(t);
  connection.restart();
  await settle();
  sockets.last.open();
  sockets.last.ready();
  connection.lost();
  connection.lost();
  assert.equal(connection.status, "reconnecting");
  connection.retryNow();
  connection.retryNow();
  await settle();
  assert.equal(sockets.opened.length, 2);
});

test("where to connect", () => {
  const to = (ws_url, base) => socketUrl({ session_id: "s", ws_url, token: "a b" }, base);
  assert.equal(to("/ws/s", "https://x.org/talk/"), "wss://x.org/ws/s?token=a+b");
  assert.equal(to("ws/s", "http://x.org/talk/"), "ws://x.org/talk/ws/s?token=a+b");
  assert.equal(to("ws://y.org/ws/s?v=1", "http://x.org/"), "ws://y.org/ws/s?v=1&token=a+b");
  assert.equal(to("ws://x.org/ws/s", "https://x.org/"), "wss://x.org/ws/s?token=a+b");
});

test("health is read even from a server that is not well, other failures are errors with their words", async () => {
  const answers = [[503, { status: "loading", roles: [] }], [422, { code: "BAD_INPUT", message: "no such voice" }], [500, null]];
  const api = new Api("http://h/", () => "", async (_, init) => {
    assert.equal(init.headers.has("Authorization"), false);
    const [status, body] = answers.shift();
    return new Response(body ? JSON.stringify(body) : "oops", { status, statusText: "Internal" });
  });
  assert.equal((await api.health()).status, "loading");
  await assert.rejects(api.speakerInfo(), { code: "BAD_INPUT", message: "no such voice", retryAfterMs: null });
  await assert.rejects(api.speakerInfo(), (error) => error instanceof ApiError && error.code === "HTTP_500" && error.retryAfterMs === 0);
});
