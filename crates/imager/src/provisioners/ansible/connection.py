# Ansible's connection "local", led into the volume that is being provisioned.
#
# Ansible finds this plugin before its own of the same name, so that a play with
# `connection: local` or `delegate_to: localhost` changes the image, as it would if
# Ansible ran inside it, and never the host. Modules go in by pipelining; nothing
# listens, and there is no ssh.
#
# What is run goes to the runner, a process in the volume that the descriptor
# KILN_RUNNER leads to. Where there is none (no Python in the volume, or a command line
# that closes descriptors) it is entered for each command by the words in KILN_ENTER;
# they are empty where Ansible itself is inside.

from __future__ import annotations

import array
import ast
import hashlib
import json
import os
import pickle
import shlex
import socket
import subprocess
import types

import ansible.constants as C
from ansible.errors import AnsibleError, AnsibleFileNotFound
from ansible.executor import module_common
from ansible.module_utils.common.text.converters import to_bytes, to_native, to_text
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

DOCUMENTATION = """
    name: local
    short_description: run in the volume that is being provisioned
    description:
        - Runs every command in the volume.
    author: Kiln
    version_added: historical
    options:
        pipelining:
            description: Modules go in by stdin.
            type: boolean
            default: true
"""

display = Display()


class Parsed:
    """Remembers what files of module_utils import, for all tasks of a run.

    Ansible packs each module in a worker process of its own, which parses every file that the module
    imports: some twenty-five, the same ones for nearly all modules. What a file imports follows from its
    text alone. Nothing is remembered where Ansible has other names for these parts.
    """

    def __init__(self):
        # Ansible's own directory for this run, which it removes.
        self.directory = os.path.join(C.DEFAULT_LOCAL_TMP, "kiln-parsed")
        self.compile = compile
        finder = getattr(module_common, "ModuleDepFinder", None)
        if finder is not None and not hasattr(module_common, "compile"):
            os.makedirs(self.directory, exist_ok=True)
            self.find = finder.__init__
            module_common.compile = self.parse_later
            finder.__init__ = lambda finder, *arguments, **named: self.found(finder, *arguments, **named)

    def parse_later(self, source, *arguments, **named):
        """In place of `compile`, which need not be asked for what has been parsed before."""
        if arguments[1:] != ("exec", ast.PyCF_ONLY_AST) or named:
            return self.compile(source, *arguments, **named)
        digest = hashlib.sha256(to_bytes(source)).hexdigest()
        if os.path.exists(os.path.join(self.directory, digest)):
            return types.SimpleNamespace(digest=digest, source=source, arguments=arguments)
        tree = self.compile(source, *arguments)
        tree.digest = digest
        return tree

    def found(self, finder, name, tree, *arguments, **named):
        """In place of ModuleDepFinder's `__init__`, which walks the tree."""
        digest = getattr(tree, "digest", None)
        if digest is None:
            return self.find(finder, name, tree, *arguments, **named)
        # A relative import depends on where the file stands.
        place = hashlib.sha256(repr((name, arguments, sorted(named.items()))).encode()).hexdigest()
        path = os.path.join(self.directory, digest + place)
        try:
            with open(path, "rb") as file:
                finder.submodules, finder.optional_imports = pickle.load(file)
                return
        except (OSError, EOFError, pickle.UnpicklingError):
            pass
        if not isinstance(tree, ast.AST):
            tree = self.compile(tree.source, *tree.arguments)
        self.find(finder, name, tree, *arguments, **named)
        self.write(path, (finder.submodules, finder.optional_imports))
        self.write(os.path.join(self.directory, digest), None)

    def write(self, path, content):
        with open("%s.%d" % (path, os.getpid()), "wb") as file:
            pickle.dump(content, file)
        os.rename(file.name, path)


if "KILN_RUNNER" in os.environ:
    Parsed()


# What is only there for this connection: modules need not see it.
OURS = ("ANSIBLE_CONNECTION_PLUGINS", "KILN_ENTER", "KILN_RUNNER")

# What shells that Ansible was told to use add after a module's interpreter.
SLEEP = " && sleep 0"


def module_command(command):
    """The interpreter and the variables of a command that is nothing but `NAME=VALUE … INTERPRETER`, else None."""
    words = shlex.split(command)
    if len(words) == 3 and words[:2] == ["/bin/sh", "-c"]:
        command = words[2]
    command = command[: -len(SLEEP)] if command.endswith(SLEEP) else command
    words = shlex.split(command)
    variables = {}
    while words and "=" in words[0] and words[0].partition("=")[0].isidentifier():
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    # A shell may see more in it than words: then it is not of this form.
    plain = [name + "=" + shlex.quote(value) for name, value in variables.items()] + words
    if len(words) != 1 or not os.path.isabs(words[0]) or " ".join(plain) != command.strip():
        return None
    return {"interpreter": words[0], "variables": variables}


class Connection(ConnectionBase):
    transport = "local"
    has_pipelining = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._enter = json.loads(os.environ["KILN_ENTER"])
        self.cwd = None

    def _connect(self):
        # We are root in the volume; a play that becomes root has nothing to do.
        self._play_context.remote_user = "root"
        self._connected = True
        return self

    def _run(self, words, stdin, module=None):
        display.vvv("KILN %s" % " ".join(map(shlex.quote, words)), host=self._play_context.remote_addr)
        # Left-over children of the command may keep its output open for ever: the
        # output goes to files, and only the command itself is waited for.
        with open(os.memfd_create("stdout"), "w+b") as out, open(os.memfd_create("stderr"), "w+b") as err:
            files = [stdin.fileno(), out.fileno(), err.fileno()]
            code = self._ask_runner(words, files, module)
            if code is None:
                code = subprocess.Popen(self._enter + words, stdin=stdin, stdout=out, stderr=err).wait()
            out.seek(0)
            err.seek(0)
            return code, out.read(), err.read()

    def _ask_runner(self, words, files, module):
        """Has the runner run it. None if it did not begin to."""
        inside = not self._enter
        request = {
            "words": words,
            "directory": os.getcwd() if inside else "/",
            "environment": {name: os.environ[name] for name in os.environ if name not in OURS} if inside else None,
            "module": module,
        }
        reply, theirs = os.pipe()
        with open(reply, "rb") as reply:
            try:
                with socket.socket(fileno=os.dup(int(os.environ["KILN_RUNNER"]))) as runner:
                    descriptors = array.array("i", files + [theirs])
                    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
                    runner.sendmsg([json.dumps(request).encode()], rights)
            except (KeyError, OSError):
                return None
            finally:
                os.close(theirs)
            if reply.read(1) != b"s":
                return None
            code = reply.readline()
            # It was ended from outside, as by the kernel where memory is short.
            return int(code) if code else -9

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        words = ["/bin/sh", "-c", to_text(cmd)]
        if in_data is None:
            with open(os.devnull, "rb") as nothing:
                return self._run(words, nothing)
        with open(os.memfd_create("stdin"), "w+b") as stdin:
            stdin.write(to_bytes(in_data))
            stdin.seek(0)
            return self._run(words, stdin, module_command(to_text(cmd)))

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        try:
            source = open(to_bytes(in_path, errors="surrogate_or_strict"), "rb")
        except FileNotFoundError:
            raise AnsibleFileNotFound("file or module does not exist: %s" % to_native(in_path)) from None
        with source:
            code, _, err = self._run(["/bin/sh", "-c", 'cat > "$1"', "sh", to_text(out_path)], source)
        if code != 0:
            raise AnsibleError("could not put %s into the volume: %s" % (to_native(out_path), to_native(err)))

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        with open(os.devnull, "rb") as nothing:
            code, out, err = self._run(["/bin/cat", to_text(in_path)], nothing)
        if code != 0:
            raise AnsibleError("could not fetch %s from the volume: %s" % (to_native(in_path), to_native(err)))
        with open(to_bytes(out_path, errors="surrogate_or_strict"), "wb") as target:
            target.write(out)

    def reset(self):
        pass

    def close(self):
        self._connected = False
