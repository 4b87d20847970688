import assert from "node:assert/strict";
import test from "node:test";
import { Ledger, PlaybackQueue } from "../playback.js";

const ramp = (from, count) => Float32Array.from({ length: count }, (_, i) => (from + i) / 1000);

test("pieces are rendered without a gap, and silence follows", () => {
  const queue = new PlaybackQueue();
  queue.push("a", ramp(1, 100));
  queue.push("a", ramp(101, 60));
  const first = new Float32Array(128).fill(9);
  const second = new Float32Array(128).fill(9);
  assert.deepEqual(queue.render(first), [{ turnId: "a", at: 0, samples: 128 }]);
  assert.deepEqual(queue.render(second), [{ turnId: "a", at: 0, samples: 32 }]);
  assert.deepEqual([...first, ...second.subarray(0, 32)], [...ramp(1, 160)]);
  assert.ok(second.subarray(32).every((x) => x === 0));
  assert.equal(queue.played.get("a"), 160);
  assert.deepEqual(queue.render(first), []);
});

test("each turn is counted by what was rendered of it", () => {
  const queue = new PlaybackQueue();
  queue.push("a", ramp(1, 50));
  queue.push("b", ramp(1, 500));
  assert.deepEqual(queue.render(new Float32Array(128)), [
    { turnId: "a", at: 0, samples: 50 },
    { turnId: "b", at: 50, samples: 78 },
  ]);
  assert.deepEqual([...queue.played], [["a", 50], ["b", 78]]);
});

test("a flush fades out within one quantum and leaves nothing behind", () => {
  const queue = new PlaybackQueue(120);
  queue.push("a", new Float32Array(10_000).fill(0.8));
  queue.render(new Float32Array(128));
  queue.flush("a");
  const out = new Float32Array(128).fill(9);
  assert.deepEqual(queue.render(out), []);
  assert.ok(out[0] > 0.75 && out[60] < 0.5 && out[60] > 0.3, "fades");
  for (let i = 1; i < 120; i++) assert.ok(out[i] < out[i - 1], "falls all the way");
  assert.ok(out.subarray(119).every((x) => x === 0));
  assert.deepEqual(queue.render(out), []);
  assert.ok(out.every((x) => x === 0));
  assert.equal(queue.played.get("a"), 128);
});

test("held, it is silent within one quantum, and then goes on with the next sample", () => {
  const queue = new PlaybackQueue(120);
  queue.push("a", Float32Array.from({ length: 1000 }, (_, i) => 0.5 + i / 10_000));
  const out = new Float32Array(128);
  queue.render(out);
  queue.hold("a");
  assert.deepEqual(queue.render(out), []);
  assert.ok(out[0] > 0.5 && out.subarray(119).every((x) => x === 0), "fades out");
  queue.push("a", new Float32Array(50).fill(0.1));
  assert.deepEqual(queue.render(out), []);
  assert.ok(out.every((x) => x === 0));
  assert.equal(queue.played.get("a"), 128, "what was faded is not counted");
  queue.release();
  assert.deepEqual(queue.render(out), [{ turnId: "a", at: 0, samples: 128 }]);
  assert.equal(out[0], 0, "fades in");
  assert.deepEqual(out.subarray(120), Float32Array.from({ length: 8 }, (_, i) => 0.5 + (248 + i) / 10_000));
  assert.equal(queue.played.get("a"), 256);
});

test("a held reply that is stopped is gone, and another turn's sound is not held", () => {
  const queue = new PlaybackQueue(120);
  const out = new Float32Array(128);
  queue.push("a", new Float32Array(400).fill(0.8));
  queue.render(out);
  queue.hold("a");
  queue.flush("a");
  queue.push("b", new Float32Array(300).fill(0.1));
  assert.deepEqual(queue.render(out), [{ turnId: "b", at: 120, samples: 8 }]);
  queue.hold("b");
  queue.push("c", new Float32Array(300).fill(0.1));
  queue.render(out); // the fade that the hold had begun
  assert.equal(queue.render(out).length, 1);
});

test("a flush of one turn spares the next", () => {
  const queue = new PlaybackQueue(120);
  queue.push("a", new Float32Array(400).fill(0.8));
  queue.push("b", new Float32Array(300).fill(0.1));
  queue.render(new Float32Array(128));
  queue.flush("a");
  assert.deepEqual(queue.render(new Float32Array(128)), [{ turnId: "b", at: 120, samples: 8 }]);
  queue.flush("a"); // nothing of it is left; b goes on
  assert.deepEqual(queue.render(new Float32Array(128)), [{ turnId: "b", at: 0, samples: 128 }]);
});

test("a flush before the first render plays nothing at all", () => {
  const queue = new PlaybackQueue(120);
  queue.push("a", new Float32Array(400).fill(0.8));
  queue.flush(null);
  const out = new Float32Array(128).fill(9);
  assert.deepEqual(queue.render(out), []);
  assert.ok(out.every((x) => x === 0));
});

test("the ledger asks for a report every 200 ms and at the end", () => {
  const ledger = new Ledger(24000, 200);
  ledger.give("a", 24000);
  const reports = [];
  for (let ms = 50; ms <= 1000; ms += 50) {
    const news = ledger.played("a", ms * 24, 5000 + ms);
    if (news.due) reports.push([ms, news.playedMs, news.drained]);
  }
  assert.deepEqual(reports.map(([, played]) => played), [50, 250, 450, 650, 850, 1000]);
  assert.deepEqual(reports.map(([, , drained]) => drained), [false, false, false, false, false, true]);
});

test("the ledger is not drained when more was given meanwhile, and ignores what it does not know", () => {
  const ledger = new Ledger(24000);
  ledger.give("a", 2400);
  ledger.give("a", 2400);
  assert.equal(ledger.played("a", 2400, 0).drained, false);
  assert.equal(ledger.played("a", 2400, 50), null);
  assert.equal(ledger.played("b", 10, 60), null);
  assert.equal(ledger.playedMs("a"), 100);
  assert.equal(ledger.playedMs("b"), 0);
});
