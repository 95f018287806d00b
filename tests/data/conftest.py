"""Servers on this machine that stand for those of published data sets."""

import contextlib
import ftplib
import functools
import http.server
import socket
import socketserver
import threading

import pytest

_FTP_HOST = "ftp.invalid"


class _Server:
  """What a server has, what it was asked for, and what is wrong with it."""

  def __init__(self, folder):
    self.folder = folder
    self.url = ""
    self.asked = []  # paths
    self.silent = set()  # beginnings of paths on which it never answers
    self.cut = set()  # paths of which it sends the first half
    self.busy = set()  # paths that it answers with 503
    self.headers = {}  # by path
    self.closing = threading.Event()


class _Handler(http.server.SimpleHTTPRequestHandler):
  protocol_version = "HTTP/1.1"

  def __init__(self, state, *args):
    self.state = state
    super().__init__(*args, directory=str(state.folder))

  def do_GET(self):
    state, path = self.state, self.path.lstrip("/")
    state.asked.append(path)
    if any(path.startswith(start) for start in state.silent):
      state.closing.wait()
      self.close_connection = True
    elif path in state.busy:
      self.send_error(503)
    elif path in state.cut:
      content = (state.folder / path).read_bytes()
      self.send_response(200)
      self.send_header("Content-Length", str(len(content)))
      super().end_headers()
      self.wfile.write(content[: len(content) // 2])
      self.close_connection = True
    else:
      super().do_GET()

  def end_headers(self):
    for name, value in self.state.headers.get(self.path.lstrip("/"), {}).items():
      self.send_header(name, value)
    super().end_headers()

  def log_message(self, *args):
    pass


class _FtpHandler(socketserver.StreamRequestHandler):
  """As much of the protocol as fetching a file takes."""

  def handle(self):
    state = self.server.state
    self._say("220 ready")
    for line in self.rfile:
      verb, _, value = line.decode().strip().partition(" ")
      path = value.lstrip("/")
      if verb == "PASV":
        listening = socket.create_server(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        self._say(f"227 passive (127,0,0,1,{port // 256},{port % 256})")
      elif verb == "SIZE" and (state.folder / path).is_file():
        self._say(f"213 {(state.folder / path).stat().st_size}")
      elif verb == "RETR" and (state.folder / path).is_file():
        state.asked.append(path)
        self._send(listening, state, path)
      elif verb == "QUIT":
        with contextlib.suppress(BrokenPipeError):  # of a client that has given up
          self._say("221 bye")
        return
      else:
        known = {"USER": "331 password?", "PASS": "230 welcome", "TYPE": "200 so be it"}
        self._say(known.get(verb, "550 no such file"))

  def _send(self, listening, state, path):
    content = (state.folder / path).read_bytes()
    self._say(f"150 sending ({len(content)} bytes)")
    connection, _ = listening.accept()
    if path in state.silent:
      state.closing.wait()
    connection.sendall(content[: len(content) // 2] if path in state.cut else content)
    connection.close()
    listening.close()
    self._say("226 sent")

  def _say(self, text):
    self.wfile.write(f"{text}\r\n".encode())


def _run(running, state, scheme):
  running.state = state
  state.url = f"{scheme}://127.0.0.1:{running.server_address[1]}"
  thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
  thread.start()
  yield state
  state.closing.set()
  running.shutdown()
  thread.join()


class _Http(http.server.ThreadingHTTPServer):
  daemon_threads = True


class _Ftp(socketserver.ThreadingTCPServer):
  daemon_threads = True


@pytest.fixture
def server(tmp_path):
  """Serves a folder by HTTP."""
  (folder := tmp_path / "served").mkdir()
  state = _Server(folder)
  with _Http(("127.0.0.1", 0), functools.partial(_Handler, state)) as running:
    yield from _run(running, state, "http")


@pytest.fixture
def ftp_server(tmp_path, monkeypatch):
  """Serves a folder by FTP under a name of its own: pooch knows FTP's standard port alone."""
  (folder := tmp_path / "served_by_ftp").mkdir()
  connect = ftplib.FTP.connect

  def redirected(self, host="", port=0, **options):
    if host == _FTP_HOST:
      host, port = running.server_address
    return connect(self, host, port, **options)

  monkeypatch.setattr(ftplib.FTP, "connect", redirected)
  with _Ftp(("127.0.0.1", 0), _FtpHandler) as running:
    for state in _run(running, _Server(folder), "ftp"):
      state.url = f"ftp://{_FTP_HOST}"
      yield state
