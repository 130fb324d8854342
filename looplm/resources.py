"""Where the files live that are not Python: the spec, and the committed results.

In a checkout these are the folders beside the package, so that an edited clause counts at once. A wheel carries a
copy (made by setup.py) inside the package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def resource(name: str) -> Path:
    """Path of a file or folder given relative to the checkout, such as `spec/presets` or `docs/data`.

    Raises:
        FileNotFoundError: if neither a checkout nor the installed package has it.
    """
    in_checkout = (_CHECKOUT / "spec" / "VERSION").exists()
    path = (_CHECKOUT if in_checkout else _PACKAGE / "_bundled") / name
    if not path.exists():
        raise FileNotFoundError(f"`{name}` is neither in a checkout nor in the installed package; reinstall looplm.")
    return path


def asset(name: str) -> Path:
    """Path of a file that the package itself carries, such as the shipped adder."""
    return _PACKAGE / "assets" / name
