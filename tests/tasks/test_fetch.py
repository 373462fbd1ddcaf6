"""Fetching from registries: digests, caching, archives read without unpacking, and what is said when it cannot be done."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from outlay.errors import InputError
from outlay.tasks import fetch as room
from outlay.tasks.fetch import Package, Unavailable, cache_dir, fetch, member, members

CONTENT = b"the pinned bytes"


def package(content: bytes = CONTENT, file: str = "thing-1.0.tgz", registry: str = "npm") -> Package:
    return Package(registry=registry, name="thing", version="1.0", sha256=hashlib.sha256(content).hexdigest(), file=file)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OUTLAY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Package]]:
    """Put ``content`` behind the npm registry; the returned list grows by one with every download."""

    def install(content: bytes, name: str = "anything.tgz") -> list[Package]:
        asked: list[Package] = []

        def download(wanted: Package, aside: Path) -> None:
            asked.append(wanted)
            (aside / name).write_bytes(content)

        monkeypatch.setitem(room._DOWNLOAD, "npm", download)
        return asked

    return install


def tar_of(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            opened.addfile(info, io.BytesIO(content))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            opened.addfile(info)
    return buffer.getvalue()


def files_under(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_cache_is_where_the_user_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_dir() == tmp_path / "cache"
    monkeypatch.delenv("OUTLAY_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "outlay"


def test_downloads_once_and_keeps_only_the_archive(serve: Callable[..., list[Package]], own_cache: Path) -> None:
    asked = serve(CONTENT)
    first, second = fetch(package()), fetch(package())
    assert first == second and first.read_bytes() == CONTENT
    assert len(asked) == 1
    assert files_under(own_cache) == [f"downloads/npm/{package().sha256[:16]}-thing-1.0.tgz"]


def test_other_bytes_are_refused_by_name_and_removed(serve: Callable[..., list[Package]], own_cache: Path) -> None:
    serve(b"something else")
    with pytest.raises(InputError, match=r"npm package thing 1\.0 was refused") as caught:
        fetch(package())
    assert not isinstance(caught.value, Unavailable)
    assert package().sha256 in str(caught.value) and hashlib.sha256(b"something else").hexdigest() in str(caught.value)
    assert files_under(own_cache) == []


def test_a_spoilt_cached_file_is_replaced(serve: Callable[..., list[Package]]) -> None:
    asked = serve(CONTENT)
    fetch(package()).write_bytes(b"torn")
    assert fetch(package()).read_bytes() == CONTENT
    assert len(asked) == 2


def test_many_at_once_all_read_the_whole_file(serve: Callable[..., list[Package]], own_cache: Path) -> None:
    content = os.urandom(1 << 20)
    serve(content)
    read: list[bytes] = []
    threads = [threading.Thread(target=lambda: read.append(fetch(package(content)).read_bytes())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert read == [content] * 8
    assert len(files_under(own_cache)) == 1


def test_a_file_name_cannot_lead_out_of_the_cache() -> None:
    with pytest.raises(InputError, match="bare name"):
        fetch(package(file="../thing.tgz"))


def test_members_of_a_tar_archive(serve: Callable[..., list[Package]], own_cache: Path) -> None:
    files = {"package/b.txt": b"B", "package/a.txt": b"A", "package/c.md": b"C", "../../evil.txt": b"E"}
    content = tar_of(files, links={"package/link.txt": "/etc/hostname"})
    serve(content)
    wanted = package(content)
    assert list(members(wanted, "package/*.txt")) == [("package/a.txt", b"A"), ("package/b.txt", b"B")]
    assert [path for path, _ in members(wanted, "*.txt")] == ["../../evil.txt", "package/a.txt", "package/b.txt"]
    assert len(files_under(own_cache.parent)) == 1  # nothing was unpacked, inside the cache or out of it
    assert member(wanted, "package/c.md") == b"C"
    with pytest.raises(InputError, match=r"holds no file like 'package/\*\.rst'"):
        list(members(wanted, "package/*.rst"))


def test_member_takes_its_path_literally(serve: Callable[..., list[Package]]) -> None:
    content = tar_of({"a[1]*.txt": b"this", "a1x.txt": b"not this"})
    serve(content)
    assert member(package(content), "a[1]*.txt") == b"this"


def test_members_of_a_wheel(serve: Callable[..., list[Package]]) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("thing/z.txt", "Z")
        opened.writestr("thing/", "")
        opened.writestr("thing/y.txt", "Y")
    serve(buffer.getvalue(), "thing.whl")
    wanted = package(buffer.getvalue(), file="thing-1.0-py3-none-any.whl")
    assert list(members(wanted, "thing/*")) == [("thing/y.txt", b"Y"), ("thing/z.txt", b"Z")]


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is not installed")
def test_members_of_a_debian_package(serve: Callable[..., list[Package]], tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text("Package: thing\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n")
    (tree / "usr" / "share").mkdir(parents=True)
    (tree / "usr" / "share" / "words").write_text("ein = one\n")
    built = tmp_path / "thing.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", str(tree), str(built)], check=True, capture_output=True)
    serve(built.read_bytes(), "thing.deb")
    assert list(members(package(built.read_bytes(), file="thing.deb"), "usr/share/*")) == [("usr/share/words", b"ein = one\n")]


def local_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """A folder of wheels that pip treats as its whole index."""
    folder.mkdir()
    wheel = folder / "outlaything-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as opened:
        opened.writestr("outlaything/data.txt", "real data")
        info = "outlaything-1.0.dist-info"
        opened.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: outlaything\nVersion: 1.0\nRequires-Python: >=99\n")
        opened.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        opened.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return wheel.read_bytes()


def test_pip_downloads_from_the_users_own_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = local_index(tmp_path / "index", monkeypatch)
    digest = hashlib.sha256(content).hexdigest()
    file = "outlaything-1.0-py3-none-any.whl"
    wanted = Package(registry="pypi", name="outlaything", version="1.0", sha256=digest, file=file)
    assert member(wanted, "outlaything/data.txt") == b"real data"
    gone = Package(registry="pypi", name="outlaything", version="2.0", sha256=digest, file=file.replace("1.0", "2.0"))
    changed = Package(registry="pypi", name="outlaything", version="1.0", sha256="0" * 64, file=file)
    with pytest.raises(Unavailable, match=r"pypi package outlaything 2\.0 could not be downloaded: ERROR"):
        fetch(gone)
    with pytest.raises(InputError, match="was refused and removed"):
        fetch(changed)


def test_source_archives_are_not_asked_of_pip() -> None:
    with pytest.raises(InputError, match="only wheels"):
        fetch(package(registry="pypi", file="thing-1.0.tar.gz"))


def script(folder: Path, name: str, body: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{body}\n")
    (folder / name).chmod(0o755)


def test_a_debian_version_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin", "apt-get", "echo \"E: Version '1.0' for 'thing' was not found\" >&2; exit 100")
    script(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(Unavailable, match=r"debian package thing 1\.0 .*Version '1\.0' for 'thing' was not found.*apt-get update"):
        fetch(package(registry="debian", file="thing.deb"))


def test_debian_asks_for_the_pinned_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin", "apt-get", 'printf "$1 $2" > thing.deb')
    script(tmp_path / "bin", "dpkg-deb", "exit 1")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    content = b"download thing=1.0"
    assert fetch(package(content, registry="debian", file="thing.deb")).read_bytes() == content


def test_npm_asks_for_the_pinned_version_and_runs_no_scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin", "npm", 'printf "$1 $2 $3" > thing.tgz')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    content = b"pack thing@1.0 --ignore-scripts"
    assert fetch(package(content)).read_bytes() == content


@pytest.mark.parametrize(("registry", "file", "tool"), [("npm", "thing.tgz", "npm"), ("debian", "thing.deb", "apt-get")])
def test_a_missing_client_is_named(registry: str, file: str, tool: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unavailable, match=f"thing 1.0 needs the program {tool}"):
        fetch(package(registry=registry, file=file))
