# Runs what Ansible wants run in the volume, from one process that stays.
#
# A module usually pays for a new interpreter, for the imports that it has in common
# with all others, and for compiling module_utils anew from its zip. Here each is run
# in a fork of a process that has the interpreter and the standard library loaded and
# remembers compiled code by the digest of its source. What a module sees is otherwise
# what it would see in a new interpreter; where that cannot be so, one is started.
#
# stdin is a SOCK_SEQPACKET socket. Each packet is a request in JSON, with descriptors:
# the command's stdin, stdout and stderr, and one for the reply: the byte "s" when it
# has been started, and its exit code as text when it has ended. The socket's end is
# the end of this process.

import array
import atexit
import hashlib
import json
import locale
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import types
import zipfile
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

# What nearly every module imports of the standard library. None of it looks at the
# machine when it is imported.
for name in (
    "__future__ ast base64 collections collections.abc copy ctypes datetime errno fcntl fnmatch functools getpass glob "
    "grp inspect itertools logging ntpath operator pickle pkgutil platform posixpath pwd queue random re runpy "
    "select selectors shlex shutil stat string struct syslog tempfile textwrap typing uuid"
).split():
    try:
        __import__(name)
    except ImportError:
        pass

# The request with its environment and command line; descriptors come beside it.
MOST = 256 * 1024

compiled = {}


class Payload(MetaPathFinder, Loader):
    """Imports from the zip that a module comes with, as zipimport would, but compiles nothing twice."""

    def __init__(self):
        self.path = None
        self.learned = {}

    def archive(self):
        # AnsiballZ puts it first, once the module has been unpacked.
        if self.path is None and sys.path[0].endswith(".zip"):
            self.path = sys.path[0]
            with zipfile.ZipFile(self.path) as archive:
                self.sources = {name: archive.read(name) for name in archive.namelist() if name.endswith(".py")}
        return self.path

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] not in ("ansible", "ansible_collections") or not self.archive():
            return None
        stem = fullname.replace(".", "/")
        for name, is_package in ((stem + "/__init__.py", True), (stem + ".py", False)):
            if name in self.sources:
                origin = os.path.join(self.path, name)
                spec = ModuleSpec(fullname, self, origin=origin, is_package=is_package)
                spec.has_location = True
                if is_package:
                    spec.submodule_search_locations[:] = [os.path.join(self.path, stem)]
                spec.loader_state = name
                return spec
        return None

    def found(self, fullname):
        spec = self.find_spec(fullname)
        if spec is None:
            raise ImportError("there is no %s in the module's payload" % fullname, name=fullname)
        return spec

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.get_code(module.__name__), module.__dict__)

    def get_code(self, fullname):
        spec = self.found(fullname)
        source = self.sources[spec.loader_state]
        key = hashlib.sha256(source).digest()
        if key not in compiled:
            compiled[key] = self.learned[key] = compile(source, spec.origin, "exec", dont_inherit=True)
        return compiled[key]

    def get_source(self, fullname):
        return self.sources[self.found(fullname).loader_state].decode()

    def is_package(self, fullname):
        return self.found(fullname).submodule_search_locations is not None

    def get_filename(self, fullname):
        return self.found(fullname).origin

    def get_data(self, path):
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(os.path.relpath(path, self.path))


def fingerprint():
    """Changes when a new interpreter might see other libraries than this one."""
    seen = []
    for path in [sys.executable] + [path for path in sys.path if path]:
        try:
            found = os.stat(path)
            seen.append((path, found.st_ino, found.st_mtime_ns))
        except OSError:
            seen.append((path, None, None))
    return seen


def in_virtual_environment(interpreter):
    beside = os.path.dirname(os.path.abspath(interpreter))
    places = (beside, os.path.dirname(beside))
    return any(os.path.exists(os.path.join(place, "pyvenv.cfg")) for place in places)


def can_run_here(interpreter, environment):
    """Whether a new interpreter would be as this one is."""
    def of_python(variables):
        return {
            name: value for name, value in variables.items()
            if name.startswith("PYTHON") and name not in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE")
        }

    try:
        same = os.path.samefile(interpreter, sys.executable)
    except OSError:
        return False
    return same and not in_virtual_environment(interpreter) and of_python(environment) == of_python(os.environ)


def run_module(environment, payload, learned):
    """Runs a module's text as a new interpreter would that has it on stdin; returns the exit code."""
    os.environ.clear()
    # As the shell does that would start the interpreter.
    os.environ.update(environment, PWD=os.getcwd())
    sys.dont_write_bytecode = bool(environment.get("PYTHONDONTWRITEBYTECODE"))
    time.tzset()
    try:
        locale.setlocale(locale.LC_CTYPE, "")
    except locale.Error:
        pass
    sys.argv = [""]
    if sys.path[:1] != [""]:
        sys.path.insert(0, "")
    main = types.ModuleType("__main__")
    main.__builtins__ = __builtins__
    sys.modules["__main__"] = main
    importer = Payload()
    sys.meta_path.insert(0, importer)
    try:
        exec(compile(payload, "<stdin>", "exec", dont_inherit=True), main.__dict__)
        code = 0
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            code = (end.code or 0) & 0xFF
        else:
            print(end.code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
    if learned is not None and importer.learned:
        os.write(learned, marshal.dumps(importer.learned))
    return code


def serve(request, descriptors, learned):
    """One request, in a process of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    stdin, stdout, stderr, reply = descriptors
    os.write(reply, b"s")
    for number, descriptor in enumerate((stdin, stdout, stderr)):
        os.dup2(descriptor, number)
    environment = request["environment"] or dict(os.environ)
    os.chdir(request["directory"])
    module = request["module"]
    if module and can_run_here(module["interpreter"], dict(environment, **module["variables"])):
        with open(0, "rb", closefd=False) as file:
            payload = file.read()
        code = run_module(dict(environment, **module["variables"]), payload, learned)
    else:
        code = subprocess.run(request["words"], env=environment).returncode
    os.write(reply, b"%d\n" % code)


def receive(requests):
    room = socket.CMSG_SPACE(4 * array.array("i").itemsize)
    data, ancillary, _, _ = requests.recvmsg(MOST, room, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for _, _, content in ancillary:
        descriptors.frombytes(content)
    return data, list(descriptors)


def learn(files):
    """Takes over what modules have compiled; returns the files of those that may still be at it."""
    waiting = []
    for file in files:
        size = os.fstat(file).st_size
        if size == 0:
            waiting.append(file)
            continue
        compiled.update(marshal.loads(os.pread(file, size, 0)))
        os.close(file)
    while len(waiting) > 8:
        os.close(waiting.pop(0))
    return waiting


def main():
    requests = socket.socket(fileno=os.dup(0))
    # Nobody else is to hold the socket, or its end would not be seen.
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    # Each request's process waits for what it runs and replies by itself.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    began = fingerprint()
    files = []
    while True:
        select.select([requests], [], [])
        if fingerprint() != began:
            # A task has installed something: what is loaded here may not be what is there now.
            os.dup2(requests.fileno(), 0)
            with open("/proc/self/cmdline", "rb") as words:
                os.execv(sys.executable, words.read().split(b"\0")[:-1])
        data, descriptors = receive(requests)
        if not data:
            return
        files = learn(files)
        learned = os.memfd_create("compiled") if hasattr(os, "memfd_create") else None
        if os.fork() == 0:
            try:
                requests.close()
                serve(json.loads(data.decode()), descriptors, learned)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        for descriptor in descriptors:
            os.close(descriptor)
        if learned is not None:
            files.append(learned)


main()
