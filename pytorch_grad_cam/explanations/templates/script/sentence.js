// What a model answered: a button for each word, whose map is shown while it is pointed at, and stays when it is pressed

function fillSentence() {
  const { sentence } = current.explanation;
  byId("sentence").hidden = sentence.length === 0;
  byId("sentence").replaceChildren(...sentence.flatMap(wordOf));
  byId("class-label").textContent = sentence.length ? "Word" : "Class";
}

// Words and classes have one order. The space in front of a word, if there is one, is none of the button's.
function wordOf(text, rank) {
  const word = button([text.trim()], () => choose("rank", rank));
  word.addEventListener("pointerenter", () => peek(rank));
  word.addEventListener("pointerleave", () => peek(wanted.rank));
  return [text.startsWith(text.trim()) ? "" : " ", word];
}

function peek(rank) {
  current.panel = nearest(current.explanation.panels.filter((panel) => panel.rank === rank));
  namePanel();
  arrange();
}
