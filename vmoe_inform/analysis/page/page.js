// Draws the page and changes it: `state` (page_data.js) says what is shown, `draw` makes the page fit it.

// ---- One panel: a router, a condition, the image with its patches, and what is known of the one pointed at ----

function addPanel(run, corruption, severity) {
  const root = byId("panel").content.cloneNode(true).firstElementChild;
  const panel = {run, corruption, severity, root, svg: root.querySelector("svg")};
  const [runs, corruptions] = root.querySelectorAll("select");
  const slider = root.querySelector("input");
  const names = [...new Set(data.conditions.map((condition) => condition.corruption))];
  options(runs, data.runs.map((name) => [name, name]), run);
  options(corruptions, names.map((name) => [name, name ? name.replaceAll("_", " ") : "clean"]), corruption);
  runs.parentElement.hidden = data.runs.length === 1;
  corruptions.parentElement.hidden = names.length === 1;
  runs.onchange = () => change(() => (panel.run = runs.value));
  corruptions.onchange = () =>
    change(() => {
      panel.corruption = corruptions.value;
      const severities = severitiesOf(panel.corruption);
      if (!severities.includes(panel.severity)) panel.severity = severities[severities.length - 1];
    });
  slider.oninput = () => change(() => (panel.severity = severitiesOf(panel.corruption)[slider.value - 1]));
  panel.svg.onpointermove = panel.svg.onpointerdown = (event) => point(event);
  panel.svg.onclick = (event) => keep(event);
  panel.svg.onkeydown = (event) => move(event);
  panel.rects = new Map();
  byId("panels").append(root);
  state.panels.push(panel);
}

const severitiesOf = (corruption) =>
  data.conditions.filter((condition) => condition.corruption === corruption).map(({severity}) => severity);

// The element below the pointer: a touch that moves keeps reporting the one where it began.
function patchBelow(event) {
  const found = document.elementFromPoint(event.clientX, event.clientY);
  return found && found.dataset && found.dataset.patch !== undefined ? Number(found.dataset.patch) : null;
}

function point(event) {
  const patch = patchBelow(event);
  const pressed = event.type === "pointerdown" || event.pointerType === "touch";
  if (patch === null || patch === state.patch || (state.kept && !pressed)) return;
  change(() => {
    state.patch = patch;
    state.kept = pressed && event.pointerType === "touch";
  });
}

function keep(event) {
  const patch = patchBelow(event);
  if (patch === null) return;
  change(() => {
    state.kept = !(state.kept && patch === state.keptPatch);
    state.keptPatch = state.kept ? patch : null;
    state.patch = patch;
  });
}

function move(event) {
  const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns};
  if (event.key === "Escape") return change(() => (state.kept = false));
  if (!(event.key in steps)) return;
  event.preventDefault();
  const hasClassToken = state.panels.some((panel) => !panel.root.hidden && viewOf(panel)?.classToken);
  const column = ((state.patch % columns) + columns) % columns;
  let next = state.patch + steps[event.key];
  if (state.patch === CLASS_TOKEN) next = event.key === "ArrowUp" ? (rows - 1) * columns : CLASS_TOKEN;
  else if (event.key === "ArrowLeft" && column === 0) next = state.patch;
  else if (event.key === "ArrowRight" && column === columns - 1) next = state.patch;
  else if (next < 0) next = state.patch;
  else if (next >= rows * columns) next = hasClassToken ? CLASS_TOKEN : state.patch;
  change(() => {
    state.patch = next;
    state.kept = true;
    state.keptPatch = next;
  });
}

function drawPanel(panel) {
  const slider = panel.root.querySelector("input");
  const severities = severitiesOf(panel.corruption);
  slider.parentElement.hidden = !panel.corruption;
  slider.max = severities.length;
  slider.value = severities.indexOf(panel.severity) + 1;
  slider.parentElement.firstChild.textContent = `Severity ${panel.severity} of ${severities[severities.length - 1]}`;
  const view = viewOf(panel);
  const details = panel.root.querySelector(".details");
  panel.svg.replaceChildren();
  panel.rects.clear();
  if (!view) {
    panel.root.querySelector(".verdict").textContent = "This run was not shown these images.";
    return details.replaceChildren();
  }
  const patches = Array.from({length: rows * columns}, (_, patch) => patch);
  if (view.classToken) patches.push(CLASS_TOKEN);
  const tokens = new Map(patches.map((patch) => [patch, tokenOf(view, patch)]));
  drawVerdict(panel, view, tokens);
  drawImage(panel, view, tokens);
  const token = tokens.get(state.patch);
  if (token) drawLinks(panel.svg, token);
  drawMarks(panel, view, tokens);
  details.replaceChildren(...(token ? describe(token, tokens) : [element("p", {}, "This router has no class token.")]));
  const said = token ? token.experts.map(({expert, weight}) => `${expertName(expert)} ${weight.toFixed(0)} %`).join(", ") : "";
  panel.svg.setAttribute("aria-label", `Patches of the image; arrow keys move. ${patchName(state.patch)}: ${said}`);
}

function drawVerdict(panel, view, tokens) {
  const name = data.names[state.image];
  const said = view.predictions[state.image];
  const wrong = data.labelled && !view.right[state.image];
  const verdict = element("span", wrong ? {class: "wrong"} : {});
  const sure = `(${view.confidence[state.image]} % sure)`;
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

function fillOf(token) {
  const [{expert, weight}] = token.experts;
  if (state.color === "expert") return colorOf(expert);
  if (state.color === "weight") return shade(weight);
  return token.undecided === null ? data.noExpert : shade(token.undecided);
}

function drawImage(panel, view, tokens) {
  const bottom = view.classToken ? rows + 1.4 * unit : rows;
  panel.svg.setAttribute("viewBox", `0 0 ${columns} ${bottom}`);
  const href = data.images[view.condition][state.image];
  const picture = element("image", {href, width: columns, height: rows, preserveAspectRatio: "none"});
  // Below strong colours the image is grey and nowhere dark: mixed with its own colours or with black, those of the
  // experts could not be told apart.
  const grey = Math.min(2 * state.strength, 1);
  picture.style.filter = `grayscale(${grey}) contrast(${1 - 0.4 * grey}) brightness(${1 + 0.25 * grey})`;
  panel.svg.append(picture);
  for (const [patch, token] of tokens) {
    const {x, y, size} = placeOf(patch);
    const rect = element("rect", {class: "patch", x, y, width: size, height: size, fill: fillOf(token)});
    rect.dataset.patch = patch;
    rect.setAttribute("fill-opacity", patch === CLASS_TOKEN ? 1 : state.strength);
    if (state.expert !== null && !token.experts.some(({expert}) => expert === state.expert)) rect.classList.add("faded");
    panel.rects.set(patch, rect);
    panel.svg.append(rect);
  }
  if (view.classToken) {
    const caption = {class: "caption", x: 1.25 * unit, y: rows + 0.82 * unit, "font-size": 0.42 * unit};
    panel.svg.append(element("text", caption, "class token"));
  }
}

// Numbers of the experts where there is room, and dots where the other picture shows other experts.
function drawMarks(panel, view, tokens) {
  // Experts can be compared where the router is the same one: expert 3 of another has only the number in common.
  const other = state.panels.find((candidate) => candidate !== panel && !candidate.root.hidden && candidate.run === panel.run);
  const otherView = other && viewOf(other);
  for (const [patch, token] of tokens) {
    const {x, y, size} = placeOf(patch);
    if (state.color === "expert" && (columns <= mostNumberedColumns || patch === CLASS_TOKEN)) {
      const {expert} = token.experts[0];
      const text = {class: "number", x: x + size / 2, y: y + size / 2, "font-size": 0.32 * size, "stroke-width": 0.08 * size};
      panel.svg.append(element("text", text, expert < numExperts ? String(expert) : "–"));
    }
    const known = otherView && (patch !== CLASS_TOKEN || otherView.classToken);
    if (known && setOf(token) !== setOf(tokenOf(otherView, patch))) {
      const dot = {class: "moved", cx: x + 0.84 * size, cy: y + 0.16 * size, r: 0.09 * size, "stroke-width": 0.04 * size};
      panel.svg.append(element("circle", dot));
    }
  }
}

function drawLinks(svg, token) {
  const from = middleOf(state.patch);
  for (const {patch, share} of state.links ? [...token.others].reverse() : []) {
    const to = middleOf(patch);
    const width = unit * (0.08 + (0.27 * share) / 100);
    for (const [name, wide] of [["link", width + 0.07 * unit], ["link inner", width]]) {
      svg.append(element("line", {class: name, x1: from.x, y1: from.y, x2: to.x, y2: to.y, "stroke-width": wide}));
    }
    svg.append(element("circle", {class: "moved", cx: to.x, cy: to.y, r: 0.12 * unit, "stroke-width": 0.06 * unit}));
  }
  const {x, y, size} = placeOf(state.patch);
  for (const [name, wide] of [["chosen", 0.2 * unit], ["chosen-inner", 0.09 * unit]]) {
    svg.append(element("rect", {class: name, x, y, width: size, height: size, "stroke-width": wide}));
  }
}

// What is known of the patch pointed at, in words and bars.
function describe(token, tokens) {
  const name = patchName(state.patch);
  const parts = [element("h2", {}, name[0].toUpperCase() + name.slice(1) + (state.kept ? " (kept)" : ""))];
  for (const {expert, weight} of token.experts) parts.push(bar(colorOf(expert), expertName(expert), weight));
  parts.push(...notes(token));
  parts.push(element("h2", {}, "Attends to"));
  if (token.itself === null) {
    parts.push(element("p", {}, "only itself: with this router patches do not attend to each other."));
    return parts;
  }
  parts.push(bar(colorOf(token.experts[0].expert), "itself", token.itself));
  for (const {patch, share} of token.others) {
    const other = tokens.get(patch).experts[0].expert;
    parts.push(bar(colorOf(other), patchName(patch).replace("column", "col."), share));
  }
  return parts;
}

// ---- The whole page ----

function draw() {
  for (const [place, button] of [...byId("images").children].entries()) {
    button.setAttribute("aria-pressed", place === state.image);
  }
  for (const [expert, button] of [...byId("experts").children].entries()) {
    button.setAttribute("aria-pressed", expert === state.expert);
  }
  const two = byId("compare").checked;
  byId("panels").classList.toggle("two", two);
  if (state.panels[1]) state.panels[1].root.hidden = !two;
  const [one, other] = state.panels;
  byId("moved").hidden = !two || one.run !== other.run || conditionOf(one) === conditionOf(other);
  byId("of-experts").hidden = state.color !== "expert";
  byId("of-shades").hidden = state.color === "expert";
  byId("most").textContent =
    state.color === "weight" ? "100 %: all of the weight" : `100 %: all ${numExperts} experts equally probable`;
  for (const panel of state.panels) if (!panel.root.hidden) drawPanel(panel);
}

function change(update) {
  update();
  draw();
}

function begin() {
  options(byId("layer"), data.layers.map(({name}, place) => [String(place), name]), "0");
  byId("layer").onchange = () => change(() => ((state.layer = Number(byId("layer").value)), (state.expert = null)));
  byId("color").onchange = () => change(() => (state.color = byId("color").value));
  byId("strength").oninput = () => change(() => (state.strength = byId("strength").value / 100));
  byId("links").onchange = () => change(() => (state.links = byId("links").checked));
  byId("compare").onchange = () => draw();
  byId("gradient").style.background = `linear-gradient(to right, ${data.shades.join()})`;
  document.body.classList.toggle("pixelated", data.pixelated);
  data.names.forEach((name, place) => {
    const picture = element("img", {src: data.images[0][place], alt: `Image ${place + 1}: ${name}`, title: name});
    const button = element("button", {type: "button"}, picture);
    button.onclick = () => change(() => (state.image = place));
    byId("images").append(button);
  });
  data.colors.forEach((color, expert) => {
    const swatch = element("span", {class: "swatch"});
    swatch.style.background = color;
    const button = element("button", {type: "button", "aria-label": `expert ${expert}`}, swatch, String(expert));
    button.onclick = () => change(() => (state.expert = state.expert === expert ? null : expert));
    byId("experts").append(button);
  });
  // Beside the first run's clean images: the second run, or else the worst images.
  const first = data.conditions[data.views[0].condition];
  const worst = data.conditions[data.conditions.length - 1];
  const second = data.runs.length > 1 ? first : worst;
  addPanel(data.runs[0], first.corruption, first.severity);
  addPanel(data.runs[Math.min(1, data.runs.length - 1)], second.corruption, second.severity);
  byId("compare").checked = data.views.length > 1;
  byId("compare").parentElement.hidden = data.views.length === 1;
  byId("links").parentElement.hidden = !data.views.some((view) => view.layers.some(({arrays}) => arrays.others));
  draw();
  document.body.dataset.ready = "yes";
}

Promise.all(data.views.flatMap((view) => view.layers.map((layer) => unpack(layer, data.names.length)))).then(begin);
