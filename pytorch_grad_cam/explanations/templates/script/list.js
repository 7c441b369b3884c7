// The list of images: filtered and sorted by what the page says of each

const facts = images.map((item, index) => ({
  index,
  title: titleOf(item),
  probability: Number(item.dataset.probability),
  isRight: item.dataset.truth === undefined ? undefined : item.dataset.truth === item.dataset.predicted,
  isWarned: item.dataset.warned !== undefined,
  words: `${titleOf(item)} ${item.dataset.predicted} ${item.dataset.truth ?? ""}`.toLowerCase(),
}));
const KINDS = {
  all: () => true,
  right: ({ isRight }) => isRight === true,
  wrong: ({ isRight }) => isRight === false,
  warned: ({ isWarned }) => isWarned,
};
const ORDERS = {
  given: (one, other) => one.index - other.index,
  name: (one, other) => one.title.localeCompare(other.title, undefined, { numeric: true }),
  least: (one, other) => one.probability - other.probability,
  most: (one, other) => other.probability - one.probability,
};
let listed = facts;

function list() {
  const text = byId("filter").value.trim().toLowerCase();
  const kind = KINDS[byId("kind").value];
  listed = facts.filter((fact) => kind(fact) && fact.words.includes(text)).sort(ORDERS[byId("order").value]);
  const there = new Set(listed.map(({ index }) => index));
  images.forEach((item, index) => (item.hidden = !there.has(index)));
  byId("images").append(...listed.map(({ index }) => images[index]));
  byId("none").hidden = listed.length > 0;
  namePosition(current.index);
}

function namePosition(index) {
  const at = listed.findIndex((fact) => fact.index === index);
  byId("position").textContent = at < 0 ? `${listed.length} listed` : `${at + 1} of ${listed.length}`;
  byId("previous").disabled = at <= 0;
  byId("next").disabled = listed.length === 0 || at === listed.length - 1;
}

// From an image that is not listed on to the first that is.
function turn(by) {
  const at = listed.findIndex((fact) => fact.index === current.index);
  const next = listed[at < 0 ? 0 : at + by];
  if (next) showImage(next.index);
}

function offerKinds() {
  const offered = { all: true, right: facts.some(KINDS.right), wrong: facts.some(KINDS.wrong), warned: facts.some(KINDS.warned) };
  for (const option of [...byId("kind").options]) if (!offered[option.value]) option.remove();
  byId("kind").hidden = byId("kind").options.length === 1;
}

// Scroll the list, and not the page, to an image.
function reveal(item) {
  const beyond = (low, high, from, to) => Math.max(0, high - to) || Math.min(0, low - from);
  for (const box of [document.querySelector("nav"), byId("images")]) {
    const [inner, outer] = [item.getBoundingClientRect(), box.getBoundingClientRect()];
    box.scrollBy(beyond(inner.left, inner.right, outer.left, outer.right), beyond(inner.top, inner.bottom, outer.top, outer.bottom));
  }
}
