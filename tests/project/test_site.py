"""The site: built once, with warnings as errors; its links, its entries, what its search finds."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import torch
from surface import public_surface
from torch import nn

from pytorch_grad_cam import GradCAM, explain
from pytorch_grad_cam.explanations.methods import available_methods

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.docs,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs MkDocs: pip install '.[docs]'"),
]
# What a newcomer looked for and did not find, and the page that says it.
LOOKED_FOR = {
    "own preprocessing": "start/own_model.html",
    "limits of explain": "start/own_model.html",
    "API reference": "reference/index.html",
    "how to cite BibTeX": "methods/cite.html",
    "contributing": "contribute/contributing.html",
    "requirements Python torch": "start/install.html",
    "install beside upstream": "start/install.html",
    "insertion and deletion": "how-to/metrics.html",
    "which number to trust": "how-to/which_number.html",
}


class _Page(HTMLParser):
    """What a page names (ids), where it leads (links) and what it loads (sources)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.sources: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[name] for name in ("id", "name") if found.get(name)}
        if tag == "a" and "href" in found:
            self.links.add(found["href"])
        is_loaded = tag != "link" or found.get("rel") in ("stylesheet", "icon")
        if tag != "a" and is_loaded:
            self.sources |= {found[name] for name in ("src", "href") if found.get(name)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site):
    files = [
        file for file in sorted(site.rglob("*.html")) if file.name != "404.html"
    ]  # a server's, whose links are its
    return {file: _Page(file.read_text()) for file in files}


@pytest.fixture(scope="module")
def entries(site):
    """The entries of the search: one for each heading."""
    return json.loads((site / "search/search_index.json").read_text())["docs"]


def test_no_link_is_dead(site, pages):
    dead = []
    for file, page in pages.items():
        for link in page.links | page.sources:
            path, anchor = urldefrag(link)
            if urlsplit(path).scheme or path.startswith("//"):
                continue
            target = (file.parent / unquote(path)).resolve() if path else file
            if not target.exists() or (anchor and target in pages and unquote(anchor) not in pages[target].ids):
                dead.append(f"{file.relative_to(site)}: {link}")
    assert dead == []


def test_nothing_is_loaded_from_a_network(site, pages):
    loaded = {source for page in pages.values() for source in page.sources}
    assert {source for source in loaded if urlsplit(source).scheme not in ("", "data")} == set()
    of_styles = re.findall(r"url\([\"']?(\w+):", "".join(file.read_text() for file in site.rglob("*.css")))
    assert set(of_styles) <= {"data"}


@pytest.mark.parametrize("module", public_surface())
def test_every_public_name_has_an_entry(module, site, pages):
    ids = set().union(*(page.ids for file, page in pages.items() if file.parent.parts[-1] == "reference"))
    assert {name for name in public_surface()[module] if f"{module}.{name}" not in ids} == set()


@pytest.mark.parametrize(("words", "page"), LOOKED_FOR.items())
def test_the_search_finds_what_a_newcomer_looked_for(words, page, entries):
    """The page is one of the first five: titles count ten times what the text does, rare words more."""
    asked = [word.lower() for word in words.split() if word not in ("of", "to", "and")]
    texts = [(entry["location"], f"{entry['title']} " * 10 + entry["text"]) for entry in entries]
    counts = [(at, [len(re.findall(rf"\b{word}", text.lower())) for word in asked]) for at, text in texts]
    known = [sum(1 for _, of_words in counts if of_words[i]) for i in range(len(asked))]
    assert all(known), words

    def score(of_words):
        return sum(count / (count + 2) / known[i] for i, count in enumerate(of_words))

    first = sorted(counts, key=lambda entry: -score(entry[1]))
    shown = list(dict.fromkeys(urldefrag(at)[0] for at, _ in first))[:5]
    assert page in shown


@pytest.mark.parametrize(
    "wrong",
    [
        lambda model, x: GradCAM(model)(x, [1, 2]),
        lambda model, x: GradCAM(model)(x, "cat"),
        lambda model, x: GradCAM(model, "2")(x, 0),
        lambda model, x: GradCAM(model, align="middle"),
        lambda model, x: explain(model, x, "gradkam"),
        lambda model, x: explain(model, "no such.jpg"),
    ],
)
def test_what_is_raised_is_a_message_of_troubleshooting(wrong, site):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises((ValueError, TypeError)) as raised:
        wrong(model, torch.rand(1, 3, 16, 16))
    shown = re.sub(r"<[^>]*>", "", (site / "troubleshooting.html").read_text())
    listed = re.findall(r"^(\w+): (.{15,})$", unescape(shown), re.MULTILINE)
    matching = [text for _, text in listed if re.match(re.escape(text).replace(r"\.\.\.", ".*"), str(raised.value))]
    assert matching, raised.value


@pytest.mark.parametrize("name", sorted({method.__name__ for method in available_methods().values()}))
def test_every_method_has_a_card(name, site):
    card = (site / f"methods/{name}.html").read_text()
    for said in ("When to take it:", "Cost:", "Paper:", '<code><span class="nc">@'):
        assert said in card, said
