"use strict";
// The views that render.py has packed, what of them is shown, and helpers that make elements. page.js draws.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const {rows, columns, numExperts, mostNumberedColumns} = data;
const CLASS_TOKEN = -1; // patches are 0, 1, ... row by row
const unit = Math.max(rows, columns) / 9; // size of the class token's square and of letters, in patches

const state = {
  image: 0,
  layer: 0,
  color: "expert",
  strength: 0.55,
  links: true,
  patch: Math.floor(rows / 2) * columns + Math.floor(columns / 2),
  kept: false, // whether the patch stays when the pointer moves on
  expert: null, // the only one whose patches are coloured
  panels: [],
};

// ---- What a view holds ----

async function unpack(layer, numImages) {
  const packed = Uint8Array.from(atob(layer.data), (letter) => letter.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const bytes = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = numImages * layer.numTokens;
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

const viewOf = (panel) =>
  data.views.find((view) => view.run === panel.run && view.condition === conditionOf(panel));

function conditionOf({corruption, severity}) {
  return data.conditions.findIndex((c) => c.corruption === corruption && (!corruption || c.severity === severity));
}

// What is known of a patch of the shown image in a view, shares in percent.
function tokenOf(view, patch) {
  const layer = view.layers[state.layer];
  const {arrays, numTokens} = layer;
  const at = state.image * numTokens + patch + view.classToken;
  const values = (name) => (arrays[name] || []).map((plane) => plane[at]);
  const experts = indices(arrays.experts, at, numExperts);
  return {
    experts: experts.map((expert, i) => ({expert, weight: values("weights")[i] * layer.scale})),
    own: arrays.own ? indices(arrays.own, at, numExperts) : null,
    undecided: arrays.undecided ? values("undecided")[0] : null,
    itself: arrays.itself ? values("itself")[0] : null,
    others: arrays.others
      ? indices(arrays.others, at, numTokens - 1)
          .map((token, i) => ({patch: token - view.classToken, share: values("shares")[i]}))
          .filter(({share}) => share > 0)
      : [],
  };
}

const setOf = (token) => token.experts.map(({expert}) => expert).sort((a, b) => a - b).join();

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

function patchName(patch) {
  if (patch === CLASS_TOKEN) return "class token";
  return `row ${Math.floor(patch / columns) + 1}, column ${(patch % columns) + 1}`;
}

// Left upper corner and size of a patch, in patches; the class token has a square below the image.
function placeOf(patch) {
  if (patch === CLASS_TOKEN) return {x: 0, y: rows + 0.3 * unit, size: unit};
  return {x: patch % columns, y: Math.floor(patch / columns), size: 1};
}

function middleOf(patch) {
  const {x, y, size} = placeOf(patch);
  return {x: x + size / 2, y: y + size / 2};
}
