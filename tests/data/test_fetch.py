"""Single files arrive whole or not at all, by HTTP and FTP, and nobody waits without end."""

import base64
import hashlib
import time

import pytest

from umr_jax.data.fetch import AbsentError, Fetcher, UnreachableError

CONTENT = bytes(range(256)) * 40


@pytest.fixture(params=["http", "ftp"])
def either(request):
  """One server of each kind, with a file in a folder of it."""
  state = request.getfixturevalue({"http": "server", "ftp": "ftp_server"}[request.param])
  (state.folder / "sets").mkdir()
  (state.folder / "sets" / "A+b.bin").write_bytes(CONTENT)
  return state


def _left(folder):
  return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_a_file_arrives_in_a_folder_that_is_made(either, tmp_path):
  path = tmp_path / "data" / "deep" / "A+b.bin"
  Fetcher().fetch(f"{either.url}/sets/A+b.bin", path, sha256=hashlib.sha256(CONTENT).hexdigest())
  assert path.read_bytes() == CONTENT and _left(path.parent) == ["A+b.bin"]
  # Others may read it as any file that is made here.
  (tmp_path / "other").write_text("")
  assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_file_that_the_server_lacks_is_told_from_a_server_that_is_not_there(either, tmp_path):
  with pytest.raises(AbsentError, match=r"sets/none\.bin cannot be fetched: .*(404|550)"):
    Fetcher().fetch(f"{either.url}/sets/none.bin", tmp_path / "data" / "none.bin")
  dead = f"{either.url.partition(':')[0]}://127.0.0.1:9/none.bin"
  with pytest.raises(UnreachableError, match="cannot be fetched"):
    Fetcher().fetch(dead, tmp_path / "data" / "none.bin")
  assert _left(tmp_path / "data") == []


def test_a_silent_server_is_given_up(either, tmp_path, monkeypatch):
  monkeypatch.setattr("umr_jax.data.fetch.PATIENCE", 0.2)
  either.silent.add("sets/A+b.bin")
  start = time.monotonic()
  with pytest.raises(UnreachableError, match="cannot be fetched"):
    Fetcher().fetch(f"{either.url}/sets/A+b.bin", tmp_path / "data" / "A+b.bin")
  assert time.monotonic() - start < 5.0
  assert _left(tmp_path / "data") == []


def test_half_a_file_is_not_kept(either, tmp_path):
  either.cut.add("sets/A+b.bin")
  with pytest.raises(UnreachableError, match="cannot be fetched"):
    Fetcher().fetch(f"{either.url}/sets/A+b.bin", tmp_path / "data" / "A+b.bin")
  assert _left(tmp_path / "data") == []


def test_a_server_that_is_busy_is_there(server, tmp_path):
  server.busy.add("a.bin")
  with pytest.raises(OSError, match="503") as caught:
    Fetcher().fetch(f"{server.url}/a.bin", tmp_path / "data" / "a.bin")
  assert not isinstance(caught.value, (AbsentError, UnreachableError))


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
  def interrupted(self, url):
    yield 100, b""
    yield b"half of it"
    raise KeyboardInterrupt

  monkeypatch.setattr(Fetcher, "_http", interrupted)
  with pytest.raises(KeyboardInterrupt):
    Fetcher().fetch("http://127.0.0.1:9/a.bin", tmp_path / "data" / "a.bin")
  assert _left(tmp_path / "data") == []


@pytest.mark.parametrize("content", [CONTENT, b"other"])
def test_the_md5_that_a_server_names_is_compared(server, tmp_path, content):
  (server.folder / "a.bin").write_bytes(content)
  named = base64.b64encode(hashlib.md5(CONTENT).digest()).decode()
  server.headers["a.bin"] = {"x-goog-hash": f"crc32c=n03x6A==,md5={named}"}
  path = tmp_path / "data" / "a.bin"
  if content == CONTENT:
    Fetcher().fetch(f"{server.url}/a.bin", path)
    assert path.read_bytes() == CONTENT
  else:
    with pytest.raises(OSError, match="arrived damaged"):
      Fetcher().fetch(f"{server.url}/a.bin", path)
    assert _left(tmp_path / "data") == []


@pytest.mark.parametrize("content", [b"<html>sign in</html>", b""])
def test_a_page_in_place_of_the_file_is_not_kept(server, tmp_path, content):
  (server.folder / "a.jpg").write_bytes(content)
  with pytest.raises(OSError, match=r"another kind of file|is empty"):
    Fetcher().fetch(f"{server.url}/a.jpg", tmp_path / "data" / "a.jpg", begins=[b"\xff\xd8"])
  assert _left(tmp_path / "data") == []


def test_a_connection_that_the_server_has_closed_is_opened_again(server, tmp_path, monkeypatch):
  for name in "ab":
    (server.folder / name).write_bytes(CONTENT)
  fetcher = Fetcher()
  fetcher.fetch(f"{server.url}/a", tmp_path / "data" / "a")
  # As when it is closed between the look whether it is open and the question.
  monkeypatch.setattr(
    "urllib3.connectionpool.is_connection_dropped", lambda _: False, raising=False
  )
  for pool in fetcher._sessions.session.get_adapter(
    server.url
  ).poolmanager.pools._container.values():
    connection = pool.pool.get_nowait()
    connection.sock.shutdown(2)
    pool.pool.put(connection)
  fetcher.fetch(f"{server.url}/b", tmp_path / "data" / "b")
  assert (tmp_path / "data" / "b").read_bytes() == CONTENT
