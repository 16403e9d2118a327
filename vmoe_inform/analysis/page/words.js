// The page of words: `state` says what is shown, `draw` makes the page fit it.

const state = {
  text: 0,
  layer: 0,
  color: "expert",
  token: 0,
  kept: false, // whether the word stays when the pointer moves on
  expert: null, // the only one whose words are coloured
  panels: [],
};
const tokensOf = () => data.tokens[state.text];
const viewOf = (panel) => data.views.find((view) => view.run === panel.run);
const shown = (word) => (word.trim() ? word : "␣");

function tokenOf(view, token) {
  const layer = view.layers[state.layer];
  return read(layer, state.text * layer.numTokens + token);
}

// ---- What a language model expects after a word ----

function expectedOf(view, token) {
  const {arrays, numTokens} = view.expected;
  const at = state.text * numTokens + token;
  const words = indices(arrays.likely, at, data.likely.length);
  return {
    nats: arrays.nats[0][at] / data.natsScale,
    likely: words.map((word, i) => ({word: data.likely[word], share: arrays.chances[i][at]})),
  };
}

// ---- One panel: a router, the text with its words, and what is known of the one pointed at ----

function addPanel(run) {
  const root = byId("panel").content.cloneNode(true).firstElementChild;
  const panel = {run, root, words: root.querySelector(".words"), select: root.querySelector("select")};
  options(panel.select, data.runs.map((name) => [name, name]), run);
  panel.select.parentElement.hidden = data.runs.length === 1;
  panel.select.onchange = () => change(() => (panel.run = panel.select.value));
  panel.words.onpointermove = panel.words.onpointerdown = (event) => point(event);
  panel.words.onclick = (event) => keep(event);
  panel.words.onkeydown = (event) => move(event);
  byId("panels").append(root);
  state.panels.push(panel);
}

function wordBelow(event) {
  const found = document.elementFromPoint(event.clientX, event.clientY);
  return found && found.dataset && found.dataset.token !== undefined ? Number(found.dataset.token) : null;
}

function point(event) {
  const token = wordBelow(event);
  const pressed = event.type === "pointerdown" || event.pointerType === "touch";
  if (token === null || token === state.token || (state.kept && !pressed)) return;
  change(() => {
    state.token = token;
    state.kept = pressed && event.pointerType === "touch";
  });
}

function keep(event) {
  const token = wordBelow(event);
  if (token === null) return;
  change(() => {
    state.kept = !(state.kept && token === state.keptToken);
    state.keptToken = state.kept ? token : null;
    state.token = token;
  });
}

function move(event) {
  const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10};
  if (event.key === "Escape") return change(() => (state.kept = false));
  if (!(event.key in steps)) return;
  event.preventDefault();
  const last = tokensOf().length - 1;
  change(() => {
    state.token = Math.min(Math.max(state.token + steps[event.key], 0), last);
    state.kept = true;
    state.keptToken = state.token;
  });
}

function fillOf(view, token, at) {
  const [{expert, weight}] = token.experts;
  if (state.color === "expert") return colorOf(expert);
  if (state.color === "weight") return shade(weight);
  if (state.color === "undecided") return token.undecided === null ? data.noExpert : shade(token.undecided);
  return shade((100 * expectedOf(view, at).nats) / data.mostNats);
}

function drawPanel(panel) {
  const view = viewOf(panel);
  const words = tokensOf();
  const pointed = tokenOf(view, state.token);
  const mixed = new Set(pointed.others.map(({token}) => token));
  panel.words.replaceChildren();
  words.forEach((word, at) => {
    const token = tokenOf(view, at);
    const made = element("span", {class: "word"}, shown(word));
    made.dataset.token = at;
    const color = fillOf(view, token, at);
    // Light enough to read the word, also where the colour is dark.
    made.style.background = state.color === "expert" ? `color-mix(in srgb, ${color} 55%, white)` : color;
    if (state.color !== "expert") made.style.color = isDark(color) ? "#fff" : "#111";
    if (state.expert !== null && !token.experts.some(({expert}) => expert === state.expert)) made.classList.add("faded");
    if (mixed.has(at)) made.classList.add("mixed");
    if (at === state.token) made.classList.add("chosen");
    panel.words.append(made, word === data.endOfLine ? element("br") : " ");
  });
  const said = pointed.experts.map(({expert, weight}) => `${expertName(expert)} ${weight.toFixed(0)} %`).join(", ");
  panel.words.setAttribute("aria-label", `Words of the text; arrow keys move. ${words[state.token]}: ${said}`);
  panel.root.querySelector(".verdict").textContent = verdictOf(view);
  panel.root.querySelector(".details").replaceChildren(...describe(view, pointed));
}

function isDark(color) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(color.slice(place, place + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue < 140;
}

function verdictOf(view) {
  if (view.predictions) {
    const [label, said] = [data.labels[state.text], view.predictions[state.text]];
    return said === label ? `Right: ${label}.` : `Wrong: says ${said}, is ${label}.`;
  }
  const nats = tokensOf().map((_, at) => expectedOf(view, at).nats);
  const mean = nats.reduce((sum, value) => sum + value, 0) / nats.length;
  return `Perplexity of this text: ${Math.exp(mean).toPrecision(3)} a token.`;
}

// What is known of the word pointed at, in words and bars.
function describe(view, token) {
  const words = tokensOf();
  const parts = [element("h2", {}, `“${shown(words[state.token])}”${state.kept ? " (kept)" : ""}`)];
  for (const {expert, weight} of token.experts) parts.push(bar(colorOf(expert), expertName(expert), weight));
  parts.push(...notes(token));
  parts.push(element("h2", {}, "Attends to"));
  if (token.itself === null) {
    parts.push(element("p", {}, "only itself: with this router words do not attend to each other."));
  } else {
    parts.push(bar(colorOf(token.experts[0].expert), "itself", token.itself));
    for (const {token: at, share} of token.others) {
      const other = tokenOf(view, at).experts[0].expert;
      const distance = at < state.token ? `−${state.token - at}` : `+${at - state.token}`;
      parts.push(bar(colorOf(other), `${shown(words[at])} (${distance})`, share));
    }
  }
  if (view.expected) {
    const {nats, likely} = expectedOf(view, state.token);
    parts.push(element("h2", {}, "Expects next"));
    for (const {word, share} of likely) parts.push(bar(data.noExpert, shown(word), share));
    const next = shown(data.targets[state.text][state.token]);
    parts.push(element("p", {class: "quiet"}, `Next is “${next}”: ${nats.toFixed(1)} nats.`));
  }
  return parts;
}

// ---- The whole page ----

function draw() {
  for (const [place, button] of [...byId("texts").children].entries()) {
    button.setAttribute("aria-pressed", place === state.text);
  }
  for (const [expert, button] of [...byId("experts").children].entries()) {
    button.setAttribute("aria-pressed", expert === state.expert);
  }
  const two = byId("compare").checked;
  byId("panels").classList.toggle("two", two);
  if (state.panels[1]) state.panels[1].root.hidden = !two;
  byId("of-experts").hidden = state.color !== "expert";
  byId("of-shades").hidden = state.color === "expert";
  byId("most").textContent = {
    weight: "100 %: all of the weight",
    undecided: `100 %: all ${numExperts} experts equally probable`,
    surprise: `${data.mostNats.toFixed(1)} nats: all words equally probable`,
  }[state.color];
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
  byId("compare").onchange = () => draw();
  byId("gradient").style.background = `linear-gradient(to right, ${data.shades.join()})`;
  data.tokens.forEach((words, place) => {
    const start = words.slice(0, 6).map(shown).join(" ");
    const button = element("button", {type: "button"}, start.length > 32 ? `${start.slice(0, 31)}…` : start);
    button.onclick = () => change(() => Object.assign(state, {text: place, token: 0, kept: false}));
    byId("texts").append(button);
  });
  data.colors.forEach((color, expert) => {
    const swatch = element("span", {class: "swatch"});
    swatch.style.background = color;
    const button = element("button", {type: "button", "aria-label": `expert ${expert}`}, swatch, String(expert));
    button.onclick = () => change(() => (state.expert = state.expert === expert ? null : expert));
    byId("experts").append(button);
  });
  data.runs.slice(0, 2).forEach(addPanel);
  byId("compare").checked = data.runs.length > 1;
  byId("compare").parentElement.hidden = data.runs.length === 1;
  state.token = Math.floor(tokensOf().length / 2);
  draw();
  document.body.dataset.ready = "yes";
}

const packedParts = data.views.flatMap((view) => [...view.layers, ...(view.expected ? [view.expected] : [])]);
Promise.all(packedParts.map((part) => unpack(part, data.tokens.length))).then(begin);
