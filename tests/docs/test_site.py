"""The built site: strict, in two languages, and nothing of it lies elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the site needs the extra docs: make docs")

ROOT = Path(__file__).parents[2]
SOURCES = ("mkdocs.yml", "mkdocs.ko.yml", "README.md", "CHANGELOG.md", "docs", "spec", "examples", "looplm", "kernels", "tests")
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "embed": "src"}
LOADING_RELATIONS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}


def copy_of(folder: Path) -> Path:
    """The sources of the site, with the outputs of walkthroughs that are known already."""
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder / name)
    if (ROOT / "build" / "walkthroughs").exists():
        shutil.copytree(ROOT / "build" / "walkthroughs", folder / "build" / "walkthroughs")
    return folder


def build(folder: Path, config: str = "mkdocs.yml") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "-f", config]
    environment = {**os.environ, "PYTHONPATH": str(folder), "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )  # a machine may be busy


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = copy_of(tmp_path_factory.mktemp("site"))
    for config in ("mkdocs.yml", "mkdocs.ko.yml"):
        done = build(folder, config)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "build" / "site"


class Loaded(HTMLParser):
    """Collects what a page makes a browser load, and its links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in LOADS and LOADS[tag] in values:
            self.found.append(values[LOADS[tag]])
        if tag == "link" and set(values.get("rel", "").split()) & LOADING_RELATIONS:
            self.found.append(values["href"])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


def read(page: Path) -> Loaded:
    parser = Loaded()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in (page for page in pages if page.name != "404.html"):
        for address in read(page).found:
            assert not re.match(r"(\w+:)?//", address), f"{page.relative_to(site)} loads {address}"
            assert (page.parent / address.split("?")[0].split("#")[0]).exists(), f"{page.relative_to(site)} lacks {address}"
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"url\(\s*[\"']?(https?:)?//|@import", text), sheet.relative_to(site)


@pytest.mark.slow
def test_each_page_leads_to_itself_in_the_other_language(site: Path) -> None:
    for page in sorted(site.rglob("*.html")):
        name = page.relative_to(site)
        if name.name != "404.html":
            twin = name.relative_to("ko") if name.parts[0] == "ko" else Path("ko") / name
            targets = {(page.parent / link).resolve() for link in read(page).links if ":" not in link}
            assert (site / twin).resolve() in targets, name


@pytest.mark.slow
def test_a_clause_and_its_code_and_its_test_lead_to_each_other(site: Path) -> None:
    for folder in (site, site / "ko"):
        clause = read(folder / "spec" / "halting.html").links
        assert "../api/model.html#looplm.loop.halting.fixed.Fixed" in clause
        assert any(link.startswith("../tests.html#tests.loop.test_halting.") for link in clause)
        assert "../spec/halting.html#halting.fixed" in read(folder / "api" / "model.html").links
        assert "spec/halting.html#halting.fixed" in read(folder / "tests.html").links
        assert "spec/halting.html#halting.fixed" in read(folder / "matrix.html").links


@pytest.mark.slow
def test_a_wrong_id_fails_the_build_wherever_it_stands(site: Path) -> None:
    folder = copy_of(site.parents[1] / "wrong")
    names = {"docs/index.md": "index", "looplm/loop/halting/fixed.py": "docstring", "examples/01_one_loop.py": "walkthrough"}
    for name, id in names.items():
        right = (folder / name).read_text(encoding="utf-8")
        wrong = re.sub(r"\[halting\.[a-z-]+\]\[\]", f"[halting.{id}][]", right, count=1)
        assert wrong != right
        (folder / name).write_text(wrong, encoding="utf-8")
    done = build(folder)
    assert done.returncode != 0
    for id in names.values():
        assert f"Could not find cross-reference target 'halting.{id}'" in done.stdout + done.stderr
