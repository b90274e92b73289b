"use strict";
// What the page holds, and how packed tokens become tokens again. Everything is read from elements of this file.
const report = {};

report.json = (name) => JSON.parse(document.getElementById(`data-${name}`).textContent);

report.data = report.json("explorer");

// The bytes of a chunk, inflated by the browser when they are first asked for; a few stay at hand.
report.chunks = new Map();
report.chunk = (number) => {
  if (!report.chunks.has(number)) {
    if (report.chunks.size > 24) report.chunks.delete(report.chunks.keys().next().value);
    report.chunks.set(number, report.inflate(document.getElementById(`chunk-${number}`).textContent));
  }
  return report.chunks.get(number);
};

report.inflate = async (text) => {
  const packed = Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
};

// The tokens of a rollout in one set of answers: {texts, scores, segments, edge}, or null if there are none.
report.tokens = async (name, id) => {
  const place = Object.hasOwn(report.data.index, name) && Object.hasOwn(report.data.index[name], id) ? report.data.index[name][id] : null;
  if (place === null) return null;
  const [number, first, count, runs] = place;
  const bytes = await report.chunk(number);
  const { width, steps, vocabulary, segments } = report.data;
  const total = bytes.length / (width + 1);
  const view = new DataView(bytes.buffer);
  const texts = [];
  const scores = [];
  for (let token = first; token < first + count; token += 1) {
    texts.push(vocabulary[width === 2 ? view.getUint16(2 * token, true) : view.getUint32(4 * token, true)]);
    const score = bytes[total * width + token];
    scores.push(score > steps ? null : score / steps);
  }
  const spans = [];
  let start = 0;
  let edge = -1;
  for (const [segment, length] of runs) {
    spans.push({ name: segments[segment], start, end: start + length });
    start += length;
    if (segments[segment] === "close") edge = start - 1;
  }
  return { texts, scores, spans, edge };
};

// The plain texts [prompt, thinking, response] of a rollout without tokens, or null.
report.texts = async (name, id) => {
  if (!Object.hasOwn(report.data.texts, name)) return null;
  const all = JSON.parse(new TextDecoder().decode(await report.chunk(report.data.texts[name])));
  return Object.hasOwn(all, id) ? all[id] : null;
};

// Elements are made by name, and text is only ever set as text.
report.element = (name, text = "", kind = "") => {
  const made = document.createElement(name);
  if (text !== "") made.textContent = text;
  if (kind !== "") made.className = kind;
  return made;
};
