// Images, and the panels of each: a map by a method, at a layer, for a class

const images = [...byId("images").children];
const titleOf = (item) => item.firstElementChild.title;

// A class is its number and its name; of targets with one name, such as two lambdas, the first, the second...
function explanationOf(item) {
  const explanation = JSON.parse(item.querySelector("script").textContent);
  const classes = [];
  const counts = {};
  for (const panel of explanation.panels) {
    const target = [panel.category, panel.name];
    const row = JSON.stringify([panel.method, panel.layer, ...target]);
    counts[row] = (counts[row] ?? 0) + 1;
    const key = JSON.stringify([...target, counts[row]]);
    if (!classes.includes(key)) classes.push(key);
    panel.rank = classes.indexOf(key);
  }
  return explanation;
}

const percent = (probability) => (probability === null ? "" : `${(100 * probability).toFixed(1)}%`);
const className = (panel) => panel.name || (panel.category === null ? "No class" : `Class ${panel.category}`);
const captionOf = (panel) =>
  [className(panel), percent(panel.probability), panel.method, panel.layer].filter(Boolean).join(", ");
