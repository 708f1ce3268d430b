"""Downloads against a server on this machine that delivers, cuts, lies, refuses and breaks off."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from test_data_files import idx

from tinyqnn import data
from tinyqnn.data import ag_news, cifar10, mnist, ptb
from tinyqnn.data.download import DownloadError, Remote, fetch, unpack

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server:
    """Serves `files` under their paths.

    break_after  after how many bytes the first, second, … connection for a path is cut
    ranges       whether parts can be asked for;  lengths  whether the length is told
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.break_after: dict[str, list[int]] = {}
        self.ranges, self.lengths, self.asked = True, True, []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                wanted = self.headers.get("Range")
                outer.asked.append((self.path, wanted))
                body = outer.files.get(self.path)
                if body is None:
                    self.send_error(404)
                    return
                begin = int(wanted[6:-1]) if wanted and outer.ranges else 0
                if begin >= len(body) > 0:
                    self.send_error(416)
                    return
                self.send_response(206 if begin else 200)
                if outer.lengths:
                    self.send_header("Content-Length", str(len(body) - begin))
                self.end_headers()
                cuts = outer.break_after.get(self.path)
                end = begin + cuts.pop(0) if cuts else len(body)
                self.wfile.write(body[begin:end])
                self.wfile.flush()
                if end < len(body):
                    self.connection.shutdown(socket.SHUT_RDWR)

            def log_message(self, *arguments: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/"
        self.thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("TINYQNN_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    server = Server()
    yield server
    server.close()


def remote_of(content: bytes, name: str = "file.bin", kind: str = "md5") -> Remote:
    return Remote(name, f"{kind}:{hashlib.new(kind, content).hexdigest()}", len(content))


def archive(files: dict[str, bytes], folder: str = "cifar-10-batches-bin") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_file_arrives_whole_under_its_own_name(server, tmp_path, kind):
    server.files["/file.bin"] = CONTENT
    path = fetch(remote_of(CONTENT, kind=kind), tmp_path / "new" / "folder", [server.url + "file.bin"])
    assert path.read_bytes() == CONTENT
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_file_that_is_there_is_not_fetched_and_not_touched(server, tmp_path):
    (tmp_path / "file.bin").write_bytes(b"the user's own")
    fetch(remote_of(CONTENT), tmp_path, [server.url + "file.bin"])
    assert (tmp_path / "file.bin").read_bytes() == b"the user's own"
    assert server.asked == []


@pytest.mark.parametrize("lengths", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_connection_is_taken_up_where_it_broke(server, tmp_path, ranges, lengths):
    server.files["/file.bin"], server.break_after["/file.bin"] = CONTENT, [100_000, 50_000]
    server.ranges, server.lengths = ranges, lengths
    path = fetch(remote_of(CONTENT), tmp_path, [server.url + "file.bin"])
    assert path.read_bytes() == CONTENT
    assert len(server.asked) == 3
    assert server.asked[0][1] is None
    assert int(server.asked[1][1][6:-1]) <= 100_000
    assert not (tmp_path / "file.bin.part").exists()


def test_what_a_killed_run_left_is_taken_up_by_the_next(server, tmp_path):
    server.files["/file.bin"] = CONTENT
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:200_000])
    assert fetch(remote_of(CONTENT), tmp_path, [server.url + "file.bin"]).read_bytes() == CONTENT
    assert server.asked == [("/file.bin", "bytes=200000-")]


@pytest.mark.parametrize(("ranges", "complaint"), [(True, "HTTP 416"), (False, "offers 28 bytes")])
def test_a_bad_mirror_does_not_cost_what_a_good_one_has_delivered(server, tmp_path, ranges, complaint):
    server.files["/good"], server.break_after["/good"] = CONTENT, [90_000] * 3
    server.files["/error-page"] = b"<html>come back later</html>"
    server.ranges = ranges
    with pytest.raises(DownloadError, match=rf"(?s)connection lost.*{complaint}"):
        fetch(remote_of(CONTENT), tmp_path, [server.url + "good", server.url + "error-page"])
    assert (tmp_path / "file.bin.part").stat().st_size >= (200_000 if ranges else 80_000)


@pytest.mark.parametrize("left", [b"x" * 1_000, b"x" * 300_000, b"x" * 400_000])
def test_what_another_file_left_is_thrown_away(server, tmp_path, left):
    server.files["/file.bin"] = CONTENT
    (tmp_path / "file.bin.part").write_bytes(left)
    assert fetch(remote_of(CONTENT), tmp_path, [server.url + "file.bin"]).read_bytes() == CONTENT


def test_a_connection_that_never_holds_gives_up_and_keeps_what_came(server, tmp_path):
    server.files["/file.bin"], server.break_after["/file.bin"] = CONTENT, [70_000] * 3
    with pytest.raises(DownloadError, match=r"connection lost after [\d,]+ of 300,000 bytes"):
        fetch(remote_of(CONTENT), tmp_path, [server.url + "file.bin"])
    assert not (tmp_path / "file.bin").exists()
    left = (tmp_path / "file.bin.part").read_bytes()
    assert left == CONTENT[: len(left)]
    assert len(left) > 70_000
    assert fetch(remote_of(CONTENT), tmp_path, [server.url + "file.bin"]).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("served", "complaint"),
    [
        (None, "HTTP 404"),
        (CONTENT[:-1], "offers 299,999 bytes, the real file has 300,000"),
        (CONTENT + b"!", "offers 300,001 bytes"),
        (b"<html>not here any more</html>", "offers 30 bytes"),
        (CONTENT[:-1] + bytes([CONTENT[-1] ^ 1]), "md5 is [0-9a-f]{32}, the real file's is"),
    ],
)
def test_a_bad_mirror_is_followed_by_the_next_and_named_if_there_is_none(server, tmp_path, served, complaint):
    if served is not None:
        server.files["/bad"] = served
    with pytest.raises(DownloadError, match=complaint) as caught:
        fetch(remote_of(CONTENT), tmp_path, [server.url + "bad"])
    assert server.url + "bad" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    server.files["/good"] = CONTENT
    assert fetch(remote_of(CONTENT), tmp_path, [server.url + "bad", server.url + "good"]).read_bytes() == CONTENT


def test_a_server_that_does_not_stop_is_stopped(server, tmp_path):
    server.files["/file.bin"], server.lengths = CONTENT + CONTENT, False
    with pytest.raises(DownloadError, match="sends more than the 300,000 bytes"):
        fetch(remote_of(CONTENT), tmp_path, [server.url + "file.bin"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lengths", [True, False])
def test_a_file_of_unknown_length_is_taken_at_the_servers_word_and_then_checked(server, tmp_path, lengths):
    server.files["/file.bin"], server.lengths = CONTENT, lengths
    remote = Remote("file.bin", remote_of(CONTENT).checksum)
    assert fetch(remote, tmp_path, [server.url + "file.bin"]).read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/file.bin", "nonsense"])
def test_an_address_nobody_answers_at_is_named(server, tmp_path, url):
    with pytest.raises(DownloadError, match=url):
        fetch(remote_of(CONTENT), tmp_path, [url])


def test_unpacking_takes_the_named_files_and_nothing_else(tmp_path):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(archive({"wanted": b"1", "../../escaped": b"2", "other": b"3"}))
    unpack(path, tmp_path / "out", {"wanted": 10})
    assert [p.name for p in tmp_path.rglob("*") if p.is_file() and p != path] == ["wanted"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (archive({"wanted": b"1"}), "lacks missing"),
        (archive({"wanted": b"1" * 11, "missing": b""}), "wanted has 11 bytes, expected at most 10"),
        (archive({"wanted": b"1", "missing": b"2"})[:-30], "cannot be unpacked"),
        (b"<html>", "cannot be unpacked"),
    ],
)
def test_a_bad_archive_leaves_nothing_behind(tmp_path, content, complaint):
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=complaint) as caught:
        unpack(path, tmp_path / "out", {"wanted": 10, "missing": 10})
    assert "a.tar.gz" in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_in_an_archive_is_not_followed(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        member = tarfile.TarInfo("wanted")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(member)
    (tmp_path / "a.tar.gz").write_bytes(out.getvalue())
    with pytest.raises(ValueError, match="lacks wanted"):
        unpack(tmp_path / "a.tar.gz", tmp_path / "out", {"wanted": 10})


def test_mnist_is_downloaded_only_when_asked_and_then_found(server, tmp_path, monkeypatch):
    rng, remotes = np.random.default_rng(0), []
    for name, n in zip(mnist.FILES, (5, 5, 3, 3)):
        content = gzip.compress(idx(rng.integers(0, 256, (n, 28, 28)) if "images" in name else np.arange(n)))
        server.files[f"/m/{name}.gz"] = content
        remotes.append(remote_of(content, f"{name}.gz"))
    monkeypatch.setattr(mnist, "REMOTES", tuple(remotes))
    with pytest.raises(FileNotFoundError):
        data.load("mnist", root=tmp_path)
    assert server.asked == []
    mirrors = (server.url + "gone/", server.url + "m/")
    fetched = data.load("mnist", root=tmp_path, download=True, mirrors=mirrors)
    assert fetched.source == str(tmp_path / "mnist")
    asked = len(server.asked)
    assert asked == 8  # four files, each refused once
    assert np.array_equal(data.load("mnist", root=tmp_path, download=True, mirrors=mirrors).train.x, fetched.train.x)
    assert len(server.asked) == asked
    (tmp_path / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    data.load("mnist", root=tmp_path, download=True, mirrors=mirrors)
    assert [path for path, _ in server.asked[asked:]] == [f"/{d}/t10k-labels-idx1-ubyte.gz" for d in ("gone", "m")]


def test_cifar10_is_downloaded_unpacked_and_the_archive_removed(server, tmp_path):
    records = np.random.default_rng(1).integers(0, 10, 2 * cifar10.RECORD, np.uint8).tobytes()
    files = dict.fromkeys(cifar10.BIN_FILES, records)
    content = archive(files | {"readme.html": b"", "batches.meta.txt": b""})
    server.files["/bin"] = content
    remote = remote_of(content, "cifar-10-binary.tar.gz")
    sources = [(remote, server.url + path) for path in ("gone", "bin")]
    loaded = data.load("cifar10", root=tmp_path, download=True, sources=sources)
    assert (len(loaded.train), len(loaded.test)) == (10, 2)
    assert sorted(p.name for p in (tmp_path / "cifar10").iterdir()) == ["cifar-10-batches-bin"]
    with pytest.raises(DownloadError, match=r"(?s)HTTP 404.*unpack cifar-10-binary"):
        data.load("cifar10", root=tmp_path / "other", download=True, sources=sources[:1])


def test_text_sets_are_downloaded(server, tmp_path, monkeypatch):
    texts = {"ptb.train.txt": b" a <unk> \n", "ptb.valid.txt": b" a \n", "ptb.test.txt": b" a \n"}
    news = dict.fromkeys(("train.csv", "test.csv"), b'"1","t","x"\n"2","t","y"\n')
    server.files |= {f"/{name}": content for name, content in (texts | news).items()}
    monkeypatch.setattr(ptb, "REMOTES", tuple(remote_of(content, name) for name, content in texts.items()))
    monkeypatch.setattr(ptb, "TOKENS", {"ptb.train.txt": 3, "ptb.valid.txt": 2, "ptb.test.txt": 2})
    monkeypatch.setattr(ptb, "WORDS", 3)
    monkeypatch.setattr(ag_news, "REMOTES", tuple(remote_of(content, name) for name, content in news.items()))
    assert data.load("ptb", root=tmp_path, download=True, mirrors=(server.url,)).train.tolist() == [0, 1, 2]
    assert len(data.load("ag_news", root=tmp_path, download=True, mirrors=(server.url,)).train) == 2
