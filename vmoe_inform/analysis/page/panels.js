// What the pages of images and of words do alike: panels side by side in which one points at a place, a patch or a word,
// and the controls of all panels. A page adds to `state` what else it shows, and has a function `drawPanel`.

const state = {
  record: 0, // the image or text
  layer: 0,
  color: "expert",
  at: 0, // the place pointed at
  kept: false, // whether it stays when the pointer moves on
  keptAt: null,
  expert: null, // the only one whose places are coloured
  panels: [],
};

function change(update) {
  update();
  draw();
}

// ---- Pointing ----

// The place below the pointer: a touch that moves keeps reporting the element where it began.
function placeBelow(event) {
  const found = document.elementFromPoint(event.clientX, event.clientY);
  return found && found.dataset && found.dataset.at !== undefined ? Number(found.dataset.at) : null;
}

function point(event) {
  const at = placeBelow(event);
  const pressed = event.type === "pointerdown" || event.pointerType === "touch";
  if (at === null || at === state.at || (state.kept && !pressed)) return;
  change(() => Object.assign(state, {at, kept: pressed && event.pointerType === "touch"}));
}

function keep(event) {
  const at = placeBelow(event);
  if (at === null) return;
  const kept = !(state.kept && at === state.keptAt);
  change(() => Object.assign(state, {at, kept, keptAt: kept ? at : null}));
}

// `next` says to which place an arrow key leads.
function listen(root, next) {
  root.onpointermove = root.onpointerdown = point;
  root.onclick = keep;
  root.onkeydown = (event) => {
    if (event.key === "Escape") return change(() => (state.kept = false));
    if (!["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    const at = next(event.key);
    change(() => Object.assign(state, {at, kept: true, keptAt: at}));
  };
}

// ---- Panels ----

// A panel of a run, whose places are below its element `selector`.
function newPanel(run, selector, next) {
  const root = byId("panel").content.cloneNode(true).firstElementChild;
  const panel = {run, root, places: root.querySelector(selector)};
  const select = root.querySelector("select");
  options(select, data.runs.map((name) => [name, name]), run);
  select.parentElement.hidden = data.runs.length === 1;
  select.onchange = () => change(() => (panel.run = select.value));
  listen(panel.places, next);
  byId("panels").append(root);
  state.panels.push(panel);
  return panel;
}

const hasShownExpert = (token) => state.expert === null || token.experts.some(({expert}) => expert === state.expert);

const expertsOf = (token) => token.experts.map(({expert, weight}) => `${expertName(expert)} ${weight.toFixed(0)} %`).join(", ");

function fillOf(token) {
  const [{expert, weight}] = token.experts;
  if (state.color === "expert") return colorOf(expert);
  if (state.color === "weight") return shade(weight);
  return token.undecided === null ? data.noExpert : shade(token.undecided);
}

// What is known of a token in words and bars: its experts, and the others that it attends to, each with its first expert.
function describe(title, token, places, others) {
  const parts = [element("h2", {}, title + (state.kept ? " (kept)" : ""))];
  for (const {expert, weight} of token.experts) parts.push(bar(colorOf(expert), expertName(expert), weight));
  parts.push(...notes(token), element("h2", {}, "Attends to"));
  if (token.itself === null) {
    parts.push(element("p", {}, `only itself: with this router ${places} do not attend to each other.`));
    return parts;
  }
  parts.push(bar(colorOf(token.experts[0].expert), "itself", token.itself));
  for (const {name, expert, share} of others) parts.push(bar(colorOf(expert), name, share));
  return parts;
}

// ---- Controls ----

function press(id, chosen) {
  for (const [place, button] of [...byId(id).children].entries()) button.setAttribute("aria-pressed", place === chosen);
}

// Panels and controls as `state` has them.
function draw() {
  press("records", state.record);
  press("experts", state.expert);
  const two = byId("compare").checked;
  byId("panels").classList.toggle("two", two);
  if (state.panels[1]) state.panels[1].root.hidden = !two;
  byId("of-experts").hidden = state.color !== "expert";
  byId("of-shades").hidden = state.color === "expert";
  byId("most").textContent = {
    weight: "100 %: all of the weight",
    undecided: `100 %: all ${numExperts} experts equally probable`,
    surprise: `${(data.mostNats ?? 0).toFixed(1)} nats: all words equally probable`,
  }[state.color];
  for (const panel of state.panels) if (!panel.root.hidden) drawPanel(panel);
}

function beginControls() {
  options(byId("layer"), data.layers.map(({name}, place) => [String(place), name]), "0");
  byId("layer").onchange = () => change(() => Object.assign(state, {layer: Number(byId("layer").value), expert: null}));
  byId("color").onchange = () => change(() => (state.color = byId("color").value));
  byId("compare").onchange = draw;
  byId("compare").checked = data.views.length > 1;
  byId("compare").parentElement.hidden = data.views.length === 1;
  byId("gradient").style.background = `linear-gradient(to right, ${data.shades.join()})`;
  data.colors.forEach((color, expert) => {
    const swatch = element("span", {class: "swatch"});
    swatch.style.background = color;
    const button = element("button", {type: "button", "aria-label": `expert ${expert}`}, swatch, String(expert));
    button.onclick = () => change(() => (state.expert = state.expert === expert ? null : expert));
    byId("experts").append(button);
  });
}
