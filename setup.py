"""The one build step that pyproject.toml cannot say: the wheel carries a copy of spec/, docs/data/ and tests/vectors/."""

from pathlib import Path
from shutil import copytree

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithSpec(build_py):
    """Copies what `looplm.resources` looks for outside a checkout."""

    def run(self) -> None:
        """Build as usual, then copy."""
        super().run()
        if self.editable_mode:
            return
        here = Path(__file__).resolve().parent
        for name in ("spec", "docs/data", "tests/vectors"):
            copytree(here / name, Path(self.build_lib) / "looplm" / "_bundled" / name, dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithSpec})
