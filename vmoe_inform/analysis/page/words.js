// Texts: each panel has a router, the text with its words, and what is known of the one pointed at.

const tokensOf = () => data.tokens[state.record];
const viewOf = (panel) => data.views.find((view) => view.run === panel.run);
const shown = (word) => (word.trim() ? word : "␣");

function tokenOf(view, token) {
  const layer = view.layers[state.layer];
  return read(layer, state.record * layer.numTokens + token);
}

// ---- What a language model expects after a word ----

function expectedOf(view, token) {
  const {arrays, numTokens} = view.expected;
  const at = state.record * numTokens + token;
  const words = indices(arrays.likely, at, data.likely.length);
  return {
    nats: arrays.nats[0][at] / data.natsScale,
    likely: words.map((word, i) => ({word: data.likely[word], share: arrays.chances[i][at]})),
  };
}

// ---- One panel ----

function nextWord(key) {
  const step = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -10, ArrowDown: 10}[key];
  return Math.min(Math.max(state.at + step, 0), tokensOf().length - 1);
}

function colorOfWord(view, token, at) {
  return state.color === "surprise" ? shade((100 * expectedOf(view, at).nats) / data.mostNats) : fillOf(token);
}

function drawPanel(panel) {
  const view = viewOf(panel);
  const words = tokensOf();
  const pointed = tokenOf(view, state.at);
  const mixed = new Set(pointed.others.map(({token}) => token));
  panel.places.replaceChildren();
  words.forEach((word, at) => {
    const token = tokenOf(view, at);
    const made = element("span", {class: "word"}, shown(word));
    made.dataset.at = at;
    const color = colorOfWord(view, token, at);
    // Light enough to read the word, also where the colour is dark.
    made.style.background = state.color === "expert" ? `color-mix(in srgb, ${color} 55%, white)` : color;
    if (state.color !== "expert") made.style.color = isDark(color) ? "#fff" : "#111";
    if (!hasShownExpert(token)) made.classList.add("faded");
    if (mixed.has(at)) made.classList.add("mixed");
    if (at === state.at) made.classList.add("chosen");
    panel.places.append(made, word === data.endOfLine ? element("br") : " ");
  });
  const label = `Words of the text; arrow keys move. ${words[state.at]}: ${expertsOf(pointed)}`;
  panel.places.setAttribute("aria-label", label);
  panel.root.querySelector(".verdict").textContent = verdictOf(view);
  panel.root.querySelector(".details").replaceChildren(...detailsOf(view, pointed));
}

function isDark(color) {
  const [red, green, blue] = [1, 3, 5].map((place) => parseInt(color.slice(place, place + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue < 140;
}

function verdictOf(view) {
  if (view.predictions) {
    const [label, said] = [data.labels[state.record], view.predictions[state.record]];
    return said === label ? `Right: ${label}.` : `Wrong: says ${said}, is ${label}.`;
  }
  const nats = tokensOf().map((_, at) => expectedOf(view, at).nats);
  const mean = nats.reduce((sum, value) => sum + value, 0) / nats.length;
  return `Perplexity of this text: ${Math.exp(mean).toPrecision(3)} a token.`;
}

// What is known of the word pointed at; how far away the others are is said in words.
function detailsOf(view, token) {
  const words = tokensOf();
  const others = token.others.map(({token: at, share}) => {
    const distance = at < state.at ? `−${state.at - at}` : `+${at - state.at}`;
    return {name: `${shown(words[at])} (${distance})`, expert: tokenOf(view, at).experts[0].expert, share};
  });
  const parts = describe(`“${shown(words[state.at])}”`, token, "words", others);
  if (view.expected) {
    const {nats, likely} = expectedOf(view, state.at);
    parts.push(element("h2", {}, "Expects next"));
    for (const {word, share} of likely) parts.push(bar(data.noExpert, shown(word), share));
    const next = shown(data.targets[state.record][state.at]);
    parts.push(element("p", {class: "quiet"}, `Next is “${next}”: ${nats.toFixed(1)} nats.`));
  }
  return parts;
}

// ---- The whole page ----

function begin() {
  beginControls();
  data.tokens.forEach((words, place) => {
    const start = words.slice(0, 6).map(shown).join(" ");
    const button = element("button", {type: "button"}, start.length > 32 ? `${start.slice(0, 31)}…` : start);
    button.onclick = () => change(() => Object.assign(state, {record: place, at: 0, kept: false}));
    byId("records").append(button);
  });
  for (const run of data.runs.slice(0, 2)) newPanel(run, ".words", nextWord);
  state.at = Math.floor(tokensOf().length / 2);
  draw();
  document.body.dataset.ready = "yes";
}

const packedParts = data.views.flatMap((view) => [...view.layers, ...(view.expected ? [view.expected] : [])]);
Promise.all(packedParts.map((part) => unpack(part, data.tokens.length))).then(begin);
