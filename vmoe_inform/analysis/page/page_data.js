// Images: the views that are shown, and what of them. page.js draws.

const {rows, columns, mostNumberedColumns} = data;
const CLASS_TOKEN = -1; // patches are 0, 1, ... row by row
const unit = Math.max(rows, columns) / 9; // size of the class token's square and of letters, in patches

Object.assign(state, {
  strength: 0.55,
  links: true,
  at: Math.floor(rows / 2) * columns + Math.floor(columns / 2),
});

// ---- What a view holds ----

const viewOf = (panel) =>
  data.views.find((view) => view.run === panel.run && view.condition === conditionOf(panel));

function conditionOf({corruption, severity}) {
  return data.conditions.findIndex((c) => c.corruption === corruption && (!corruption || c.severity === severity));
}

// What is known of a patch of the shown image in a view, shares in percent.
function tokenOf(view, patch) {
  const layer = view.layers[state.layer];
  const found = read(layer, state.record * layer.numTokens + patch + view.classToken);
  return {...found, others: found.others.map(({token, share}) => ({patch: token - view.classToken, share}))};
}

const setOf = (token) => token.experts.map(({expert}) => expert).sort((a, b) => a - b).join();

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
