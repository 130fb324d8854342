"""Translations: neither language changes alone without being seen."""

from pathlib import Path

import pytest
import translations

ROOT = Path(__file__).parents[2]
CELLS = '''"""A script."""

# %% [markdown] lang="en"
# # Title {#title}
# Words, and more of them.

# %% [markdown] lang="ko"
# # 제목 {#title}
# 말.

# %%
x = 1

# %% [markdown] lang="en"
# The end.

# %% [markdown] lang="ko"
# 끝.
'''
PAGE = "# A {#a}\n\nOne.\n\n```sh\nls  # all\n```\n\n## B {#b}\n\nTwo.\n"
PAGE_KO = "# 가 {#a}\n\n하나.\n\n```sh\nls  # 모두\n```\n\n## 나 {#b}\n\n둘.\n"
SPEC = "# R\n\nOn rules.\n\n### r.one {#r.one}\nIt MUST be.\n\nNote: why.\n"
SPEC_KO = "# 규칙\n\n규칙에 대하여.\n\n### r.one {#r.one}\n그래야 한다(MUST).\n"


def test_every_translation_is_of_the_text_that_stands_beside_it() -> None:
    found = [f"{unit} {what}" for unit, what in translations.changes(ROOT).items()]
    assert found == [], "translate what needs it, then run `python docs/build/translations.py --accept`"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small checkout, all of it accepted."""
    for name, text in {
        "docs/page.md": PAGE,
        "docs/page.ko.md": PAGE_KO,
        "spec/r.md": SPEC,
        "spec/r.ko.md": SPEC_KO,
        "examples/01_x.py": CELLS,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    translations.accept(tmp_path, tmp_path / "lock.json")
    return tmp_path


def changes_after(tree: Path, *edits: tuple[str, str, str]) -> dict[str, str]:
    for name, old, new in edits:
        text = (tree / name).read_text(encoding="utf-8")
        assert old in text
        (tree / name).write_text(text.replace(old, new), encoding="utf-8")
    return translations.changes(tree, tree / "lock.json")


ENGLISH_ALONE = "has changed in English, and its Korean has not"


@pytest.mark.parametrize(
    ("name", "old", "new", "unit"),
    [
        ("docs/page.md", "Two.", "Three.", "docs/page.md#b"),
        ("examples/01_x.py", "# The end.", "# An end.", "examples/01_x.py#title, 2"),
        ("spec/r.md", "It MUST be.", "It MUST not be.", "spec/r.md#r.one"),
        ("spec/r.md", "On rules.", "On a rule.", "spec/r.md#"),
    ],
)
def test_english_that_changes_alone_is_seen_where_it_stands(tree: Path, name: str, old: str, new: str, unit: str) -> None:
    assert changes_after(tree, (name, old, new)) == {unit: ENGLISH_ALONE}
    translations.accept(tree, tree / "lock.json")
    assert changes_after(tree) == {}


def test_a_text_that_changes_in_both_languages_is_to_be_accepted_anew(tree: Path) -> None:
    found = changes_after(tree, ("docs/page.md", "Two.", "Three."), ("docs/page.ko.md", "둘.", "셋."))
    assert found == {"docs/page.md#b": "has changed in both languages"}
    found = changes_after(tree, ("examples/01_x.py", "# 끝.", "# 마침."))
    assert found["examples/01_x.py#title, 2"] == "has changed in Korean, and its English has not"


def test_new_and_removed_sections_are_seen(tree: Path) -> None:
    found = changes_after(tree, ("docs/page.md", "{#b}", "{#c}"), ("docs/page.ko.md", "{#b}", "{#c}"))
    assert found == {"docs/page.md#b": "is gone", "docs/page.md#c": "is new"}


def test_code_notes_and_line_breaks_need_no_translation(tree: Path) -> None:
    assert (
        changes_after(
            tree,
            ("docs/page.md", "# all", "# everything"),
            ("examples/01_x.py", "Words, and more of them.", "Words, and\n# more of them."),
            ("examples/01_x.py", "x = 1", "x = 2"),
            ("spec/r.md", "Note: why.", "Note: because."),
        )
        == {}
    )
