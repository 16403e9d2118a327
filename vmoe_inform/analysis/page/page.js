// Draws images: each panel has a router, a condition, the image with its patches, and what is known of the one pointed
// at. What the views hold is in page_data.js.

// ---- One panel ----

function addPanel(run, corruption, severity) {
  const panel = newPanel(run, "svg", nextPatch);
  Object.assign(panel, {corruption, severity});
  const corruptions = panel.root.querySelectorAll("select")[1];
  const slider = panel.root.querySelector("input");
  const names = [...new Set(data.conditions.map((condition) => condition.corruption))];
  options(corruptions, names.map((name) => [name, name ? name.replaceAll("_", " ") : "clean"]), corruption);
  corruptions.parentElement.hidden = names.length === 1;
  corruptions.onchange = () =>
    change(() => {
      panel.corruption = corruptions.value;
      const severities = severitiesOf(panel.corruption);
      if (!severities.includes(panel.severity)) panel.severity = severities[severities.length - 1];
    });
  slider.oninput = () => change(() => (panel.severity = severitiesOf(panel.corruption)[slider.value - 1]));
}

const severitiesOf = (corruption) =>
  data.conditions.filter((condition) => condition.corruption === corruption).map(({severity}) => severity);

function nextPatch(key) {
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns}[key];
  const hasClassToken = state.panels.some((panel) => !panel.root.hidden && viewOf(panel)?.classToken);
  const column = ((state.at % columns) + columns) % columns;
  if (state.at === CLASS_TOKEN) return key === "ArrowUp" ? (rows - 1) * columns : CLASS_TOKEN;
  if (key === "ArrowLeft" && column === 0) return state.at;
  if (key === "ArrowRight" && column === columns - 1) return state.at;
  const next = state.at + step;
  if (next < 0) return state.at;
  if (next >= rows * columns) return hasClassToken ? CLASS_TOKEN : state.at;
  return next;
}

// The other picture of the same router: expert 3 of another router has only the number in common.
const otherOf = (panel) => state.panels.find((other) => other !== panel && !other.root.hidden && other.run === panel.run);

function drawPanel(panel) {
  const slider = panel.root.querySelector("input");
  const severities = severitiesOf(panel.corruption);
  slider.parentElement.hidden = !panel.corruption;
  slider.max = severities.length;
  slider.value = severities.indexOf(panel.severity) + 1;
  slider.parentElement.firstChild.textContent = `Severity ${panel.severity} of ${severities[severities.length - 1]}`;
  const view = viewOf(panel);
  const other = otherOf(panel);
  byId("moved").hidden = !other || conditionOf(panel) === conditionOf(other);
  const details = panel.root.querySelector(".details");
  panel.places.replaceChildren();
  if (!view) {
    panel.root.querySelector(".verdict").textContent = "This run was not shown these images.";
    return details.replaceChildren();
  }
  const patches = Array.from({length: rows * columns}, (_, patch) => patch);
  if (view.classToken) patches.push(CLASS_TOKEN);
  const tokens = new Map(patches.map((patch) => [patch, tokenOf(view, patch)]));
  drawVerdict(panel, view, tokens);
  drawImage(panel, view, tokens);
  const token = tokens.get(state.at);
  if (token) drawLinks(panel.places, token);
  drawMarks(panel, other && viewOf(other), tokens);
  details.replaceChildren(...(token ? detailsOf(token, tokens) : [element("p", {}, "This router has no class token.")]));
  const said = token ? expertsOf(token) : "";
  panel.places.setAttribute("aria-label", `Patches of the image; arrow keys move. ${patchName(state.at)}: ${said}`);
}

function drawVerdict(panel, view, tokens) {
  const name = data.names[state.record];
  const said = view.predictions[state.record];
  const wrong = data.labelled && !view.right[state.record];
  const verdict = element("span", wrong ? {class: "wrong"} : {});
  const sure = `(${view.confidence[state.record]} % sure)`;
  if (!data.labelled) verdict.textContent = `${name}: says ${said} ${sure}.`;
  else verdict.textContent = wrong ? `Wrong: says ${said}, is ${name} ${sure}.` : `Right: ${name} ${sure}.`;
  const parts = [verdict];
  const clean = data.views.find((other) => other.run === view.run && !data.conditions[other.condition].corruption);
  if (clean && clean !== view) {
    const moved = [...tokens].filter(([patch, token]) => setOf(token) !== setOf(tokenOf(clean, patch))).length;
    parts.push(` ${Math.round((100 * moved) / tokens.size)} % of the patches have other experts than on the clean image.`);
  }
  panel.root.querySelector(".verdict").replaceChildren(...parts);
}

function drawImage(panel, view, tokens) {
  const bottom = view.classToken ? rows + 1.4 * unit : rows;
  panel.places.setAttribute("viewBox", `0 0 ${columns} ${bottom}`);
  const href = data.images[view.condition][state.record];
  const picture = element("image", {href, width: columns, height: rows, preserveAspectRatio: "none"});
  // Below strong colours the image is grey and nowhere dark: mixed with its own colours or with black, those of the
  // experts could not be told apart.
  const grey = Math.min(2 * state.strength, 1);
  picture.style.filter = `grayscale(${grey}) contrast(${1 - 0.4 * grey}) brightness(${1 + 0.25 * grey})`;
  panel.places.append(picture);
  for (const [patch, token] of tokens) {
    const {x, y, size} = placeOf(patch);
    const rect = element("rect", {class: "patch", x, y, width: size, height: size, fill: fillOf(token)});
    rect.dataset.at = patch;
    rect.setAttribute("fill-opacity", patch === CLASS_TOKEN ? 1 : state.strength);
    if (!hasShownExpert(token)) rect.classList.add("faded");
    panel.places.append(rect);
  }
  if (view.classToken) {
    const caption = {class: "caption", x: 1.25 * unit, y: rows + 0.82 * unit, "font-size": 0.42 * unit};
    panel.places.append(element("text", caption, "class token"));
  }
}

// Numbers of the experts where there is room, and dots where the other picture shows other experts.
function drawMarks(panel, otherView, tokens) {
  for (const [patch, token] of tokens) {
    const {x, y, size} = placeOf(patch);
    if (state.color === "expert" && (columns <= mostNumberedColumns || patch === CLASS_TOKEN)) {
      const {expert} = token.experts[0];
      const text = {class: "number", x: x + size / 2, y: y + size / 2, "font-size": 0.32 * size, "stroke-width": 0.08 * size};
      panel.places.append(element("text", text, expert < numExperts ? String(expert) : "–"));
    }
    const known = otherView && (patch !== CLASS_TOKEN || otherView.classToken);
    if (known && setOf(token) !== setOf(tokenOf(otherView, patch))) {
      const dot = {class: "moved", cx: x + 0.84 * size, cy: y + 0.16 * size, r: 0.09 * size, "stroke-width": 0.04 * size};
      panel.places.append(element("circle", dot));
    }
  }
}

function drawLinks(svg, token) {
  const from = middleOf(state.at);
  for (const {patch, share} of state.links ? [...token.others].reverse() : []) {
    const to = middleOf(patch);
    const width = unit * (0.08 + (0.27 * share) / 100);
    for (const [name, wide] of [["link", width + 0.07 * unit], ["link inner", width]]) {
      svg.append(element("line", {class: name, x1: from.x, y1: from.y, x2: to.x, y2: to.y, "stroke-width": wide}));
    }
    svg.append(element("circle", {class: "moved", cx: to.x, cy: to.y, r: 0.12 * unit, "stroke-width": 0.06 * unit}));
  }
  const {x, y, size} = placeOf(state.at);
  for (const [name, wide] of [["chosen", 0.2 * unit], ["chosen-inner", 0.09 * unit]]) {
    svg.append(element("rect", {class: name, x, y, width: size, height: size, "stroke-width": wide}));
  }
}

function detailsOf(token, tokens) {
  const name = patchName(state.at);
  const others = token.others.map(({patch, share}) => {
    return {name: patchName(patch).replace("column", "col."), expert: tokens.get(patch).experts[0].expert, share};
  });
  return describe(name[0].toUpperCase() + name.slice(1), token, "patches", others);
}

// ---- The whole page ----

function begin() {
  beginControls();
  byId("strength").oninput = () => change(() => (state.strength = byId("strength").value / 100));
  byId("links").onchange = () => change(() => (state.links = byId("links").checked));
  document.body.classList.toggle("pixelated", data.pixelated);
  data.names.forEach((name, place) => {
    const picture = element("img", {src: data.images[0][place], alt: `Image ${place + 1}: ${name}`, title: name});
    const button = element("button", {type: "button"}, picture);
    button.onclick = () => change(() => (state.record = place));
    byId("records").append(button);
  });
  // Beside the first run's clean images: the second run, or else the worst images.
  const first = data.conditions[data.views[0].condition];
  const worst = data.conditions[data.conditions.length - 1];
  const second = data.runs.length > 1 ? first : worst;
  addPanel(data.runs[0], first.corruption, first.severity);
  addPanel(data.runs[Math.min(1, data.runs.length - 1)], second.corruption, second.severity);
  byId("links").parentElement.hidden = !data.views.some((view) => view.layers.some(({arrays}) => arrays.others));
  draw();
  document.body.dataset.ready = "yes";
}

Promise.all(data.views.flatMap((view) => view.layers.map((layer) => unpack(layer, data.names.length)))).then(begin);
