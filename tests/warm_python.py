"""Processes that begin with torch loaded: forked from one that has loaded it, where a new Python would take 3 s to.

`serving()` gives the path of a program to start in place of `sys.executable`. It hands its words, folder, environment,
stdin, stdout and stderr to the server, this file, whose fork runs them as a new Python would, in a session of its own;
it passes signals on and ends as that process does. What is started otherwise: `sys.executable` of such a process is
this program again, and the environment is not read by what torch reads while it is imported.
"""

import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

IS_POSSIBLE = hasattr(os, "pidfd_open")  # Linux
CLIENT = """#!{python} -IS
import json, os, signal, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({address!r})
    asked = {{"words": sys.argv, "folder": os.getcwd(), "environment": dict(os.environ)}}
    socket.send_fds(line, [b"f"], [0, 1, 2])
    line.sendall(json.dumps(asked).encode() + b"\\n")
    child = int.from_bytes(line.recv(8), "big")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: os.kill(child, number))
    code = int.from_bytes(line.recv(8) or b"\\1", "big", signed=True)
if code < 0:
    if code != -signal.SIGKILL:
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
sys.exit(code)
"""


@contextmanager
def serving():
    """The program that stands for `sys.executable`, as long as the context."""
    with tempfile.TemporaryDirectory(prefix="warm-") as folder:  # a socket's path must be short
        yield from _serving(Path(folder))


def _serving(folder):
    address, program = folder / "socket", folder / "python"
    program.write_text(CLIENT.format(python=sys.executable, address=str(address)))
    program.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    paths = os.pathsep.join([str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")])
    words = [sys.executable, __file__, str(address)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(words, env={**environment, "PYTHONPATH": paths}, **pipes) as server:
        assert server.stdout.readline() == b"ready\n"
        yield program
        server.stdin.close()  # which ends it


def serve(address):
    """Wait for clients until stdin closes; returns only in the process that is to run a client's words."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        print("ready", flush=True)
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            line, _ = listener.accept()
            if os.fork() == 0:
                return _process_of(line, address)
            line.close()
    sys.exit()


def _process_of(line, address):
    """Fork the client's process, which returns, and tell the client how it ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, descriptors, _, _ = socket.recv_fds(line, 1, 3)
    with line.makefile("rb") as told:
        asked = json.loads(told.readline())
    child = os.fork()
    if child == 0:
        os.setsid()
        for standard, given in enumerate(descriptors):
            os.dup2(given, standard)
            os.close(given)
        line.close()
        sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)
        sys.stderr = open(2, "w", closefd=False, errors="backslashreplace", buffering=1)
        os.chdir(asked["folder"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        sys.executable, tempfile.tempdir = asked["words"][0], None
        return asked["words"][1:]
    for given in descriptors:
        os.close(given)
    line.sendall(child.to_bytes(8, "big"))
    end = os.pidfd_open(child)
    if end in select.select([line, end], [], [])[0]:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        line.sendall(code.to_bytes(8, "big", signed=True))
    else:  # the client was killed
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os._exit(0)


def run(words):
    """What Python does with its words: `-m module`, `-c code` or a file, each with arguments."""
    words = words[1:] if words[0] == "-u" else words
    told = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [path for path in told if path] + [path for path in sys.path if path not in told]
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    if words[0] == "-m":
        sys.argv = words[1:]
        sys.path.insert(0, str(Path.cwd()))
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        sys.path.insert(0, "")
        exec(words[1], {"__name__": "__main__"})
    else:
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).resolve().parent))
        runpy.run_path(words[0], run_name="__main__")


if __name__ == "__main__":
    import gc

    import torch._dynamo  # as every trace does before it begins

    import vramfit.script.believing  # noqa: F401

    torch._dynamo.trace_rules.get_torch_obj_rule_map()

    del sys.path[0]  # this folder
    gc.freeze()
    run(serve(sys.argv[1]))
