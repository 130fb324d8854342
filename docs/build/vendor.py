"""Fetch the browser files that the site carries, at the versions of manifest.json: `python docs/build/vendor.py`.

Needs npm, and is needed only to change a version: the files are committed, and a test compares them with their hashes.
"""

import base64
import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[1] / "assets" / "vendor"
MANIFEST = FOLDER / "manifest.json"


def read_manifest() -> dict[str, dict[str, Any]]:
    """Package → version, licence, integrity of its archive, and files: name here → name in the archive and SHA-256."""
    manifest: dict[str, dict[str, Any]] = json.loads(MANIFEST.read_text(encoding="utf-8"))
    return manifest


def sha256(path: Path) -> str:
    """Of a file, in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def fetch(name: str, package: dict[str, Any]) -> None:
    """Write the package's files; refuse an archive that is not the one that was reviewed."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", f"{name}@{package['version']}"], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        (archive,) = Path(folder).glob("*.tgz")
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
        if found != package["integrity"]:
            raise SystemExit(f"{archive.name} has integrity {found}, but manifest.json says {package['integrity']}.")
        with tarfile.open(archive) as packed:
            for target, file in package["files"].items():
                member = packed.extractfile(f"package/{file['from']}")
                assert member is not None, f"{name} has no {file['from']}"
                path = FOLDER / name / target
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(member.read())
                file["sha256"] = sha256(path)


if __name__ == "__main__":
    packages = read_manifest()
    for name, package in packages.items():
        fetch(name, package)
        print(f"{name} {package['version']}: {len(package['files'])} files")
    MANIFEST.write_text(json.dumps(packages, indent=2) + "\n", encoding="utf-8")
