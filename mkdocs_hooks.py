"""What MkDocs calls while it builds the site: pages made from the package, the notebooks and the benchmarks."""

from typing import Any

from site_pages import cards, examples, gallery, included, mathematics, messages, navigation, notebooks, reference


def on_config(config: Any) -> Any:
    navigation.complete(config)
    return config


def on_files(files: Any, config: Any) -> Any:
    for maker in (notebooks, examples, cards, reference, included):
        for file in maker.files(config):
            files.append(file)
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    if page.file.src_uri == "troubleshooting.md":
        markdown = markdown.replace("<!-- messages -->", messages.page())
    if page.file.src_uri == "gallery.md":
        markdown = markdown.replace("<!-- gallery -->", gallery.page())
    return included.filled(markdown, page.file.src_uri)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    return mathematics.typeset(html)
