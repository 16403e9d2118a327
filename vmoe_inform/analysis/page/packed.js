"use strict";
// What the pages of images and of words share: the views that packing.py has packed, and helpers that make elements.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const {numExperts} = data;

async function unpack(layer, numSequences) {
  const packed = Uint8Array.from(atob(layer.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = numSequences * layer.numTokens;
  let place = 0;
  layer.arrays = {};
  for (const [name, count] of layer.planes) {
    layer.arrays[name] = Array.from({length: count}, (_, i) => bytes.subarray((place + i) * size, (place + i + 1) * size));
    place += count;
  }
  delete layer.data;
}

// Numbers that may exceed 255 have two planes each, the low bytes and the high.
function indices(planes, at, largest) {
  if (largest <= 255) return planes.map((plane) => plane[at]);
  return planes.flatMap((plane, i) => (i % 2 ? [] : [plane[at] + 256 * planes[i + 1][at]]));
}

// What a layer holds of one token, shares in percent.
function read(layer, at) {
  const {arrays, numTokens} = layer;
  const values = (name) => (arrays[name] || []).map((plane) => plane[at]);
  const experts = indices(arrays.experts, at, numExperts);
  return {
    experts: experts.map((expert, i) => ({expert, weight: values("weights")[i] * layer.scale})),
    own: arrays.own ? indices(arrays.own, at, numExperts) : null,
    undecided: arrays.undecided ? values("undecided")[0] : null,
    itself: arrays.itself ? values("itself")[0] : null,
    others: arrays.others
      ? indices(arrays.others, at, numTokens - 1)
          .map((token, i) => ({token, share: values("shares")[i]}))
          .filter(({share}) => share > 0)
      : [],
  };
}

// ---- Small helpers that make elements ----

function element(name, attributes = {}, ...children) {
  const svg = ["rect", "line", "image", "text", "g", "circle", "title"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function options(select, names, value) {
  select.replaceChildren(...names.map(([key, name]) => element("option", {value: key}, name)));
  select.value = value;
}

const colorOf = (expert) => (expert < numExperts ? data.colors[expert] : data.noExpert);
const shade = (percent) =>
  data.shades[Math.round((Math.min(percent, 100) / 100) * (data.shades.length - 1))];
const expertName = (expert) => (expert < numExperts ? `expert ${expert}` : "no expert");

function bar(color, name, percent) {
  const swatch = element("span", {class: "swatch"});
  swatch.style.background = color;
  const fill = element("div", {class: "fill"});
  fill.style.background = color;
  fill.style.width = `${Math.min(percent, 100)}%`;
  return element(
    "div",
    {class: "bar"},
    element("span", {class: "name"}, swatch, name),
    element("div", {class: "track"}, fill),
    element("span", {class: "value"}, `${percent.toFixed(0)} %`),
  );
}

// The router's entropy, and what it would have chosen by the token alone.
function notes(token) {
  const found = [];
  if (token.undecided !== null) found.push(`Entropy: ${token.undecided} % of its maximum, all experts equally probable.`);
  if (token.own && token.own.join() !== token.experts.map(({expert}) => expert).join()) {
    found.push(`Before informing it would have chosen ${token.own.join(", ")}.`);
  }
  return found.length ? [element("p", {class: "quiet"}, found.join(" "))] : [];
}
