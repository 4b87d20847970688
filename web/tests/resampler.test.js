import assert from "node:assert/strict";
import test from "node:test";
import { Resampler, base64ToBytes, floatToPcm16, loudness, pcm16ToFloat } from "../resampler.js";

function sine(hz, rate, seconds) {
  return Float32Array.from({ length: Math.round(rate * seconds) }, (_, n) => 0.5 * Math.sin((2 * Math.PI * hz * n) / rate));
}

function resample(samples, from, to, pieces) {
  const resampler = new Resampler(from, to);
  const out = [];
  for (let at = 0, i = 0; at < samples.length; i++) {
    const size = pieces[i % pieces.length];
    out.push(...resampler.push(samples.subarray(at, at + size)));
    at += size;
  }
  out.push(...resampler.flush());
  return Float32Array.from(out);
}

const energy = (samples) => samples.reduce((sum, x) => sum + x * x, 0) / samples.length;

for (const [from, to] of [[48000, 16000], [44100, 16000], [22050, 24000], [8000, 24000]]) {
  test(`a tone keeps its shape and time from ${from} to ${to} Hz`, () => {
    const out = resample(sine(440, from, 1), from, to, [128]);
    assert.ok(Math.abs(out.length - to) <= 2, `${out.length} samples`);
    const expected = sine(440, to, 1);
    let worst = 0;
    for (let n = 200; n < to - 200; n++) worst = Math.max(worst, Math.abs(out[n] - expected[n]));
    assert.ok(worst < 0.003, `off by ${worst}`);
  });
}

test("what the lower rate cannot hold is removed, not folded down", () => {
  const out = resample(sine(11000, 48000, 1), 48000, 16000, [128]);
  const edge = 200; // where the tone starts and stops there is some of everything
  assert.ok(10 * Math.log10(energy(out.subarray(edge, -edge)) / energy(sine(11000, 48000, 1))) < -60);
});

test("the pieces in which sound comes make no difference", () => {
  const sound = Float32Array.from({ length: 9001 }, (_, n) => Math.sin(n * n * 1e-4) * 0.7);
  const whole = resample(sound, 44100, 16000, [sound.length]);
  const pieced = resample(sound, 44100, 16000, [128, 1, 0, 7, 960]);
  assert.equal(pieced.length, whole.length);
  assert.ok(pieced.every((x, n) => Math.abs(x - whole[n]) < 1e-4));
});

test("equal rates pass through", () => {
  const sound = sine(300, 16000, 0.1);
  assert.deepEqual(resample(sound, 16000, 16000, [128]), sound);
});

test("PCM16: full scale, clipping, little-endian, and back", () => {
  const pcm = floatToPcm16(Float32Array.from([0, 1, -1, 3, -3, 0.5]));
  assert.deepEqual([...pcm], [0, 32767, -32767, 32767, -32767, 16384]);
  const back = pcm16ToFloat(Uint8Array.from([0x00, 0x40, 0x00, 0x80, 0x7f]).buffer);
  assert.deepEqual([...back], [0.5, -1]);
  assert.deepEqual([...new Uint8Array(base64ToBytes("AECA/w=="))], [0, 64, 128, 255]);
});

test("loudness goes from 0 at silence to 1 at full scale, and rises between", () => {
  assert.equal(loudness(new Float32Array(512)), 0);
  assert.equal(loudness(new Float32Array(512).fill(1)), 1);
  const [soft, loud] = [0.01, 0.3].map((gain) => loudness(sine(300, 16000, 0.1).map((x) => x * gain)));
  assert.ok(0 < soft && soft < loud && loud < 1);
});
