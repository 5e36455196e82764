# Ansible's connection "local", led into the volume that is being provisioned.
#
# Ansible finds this plugin before its own of the same name, so that a play with
# `connection: local` or `delegate_to: localhost` changes the image, as it would if
# Ansible ran inside it, and never the host. Modules go in by pipelining; nothing
# listens, and there is no ssh.

from __future__ import annotations

import json
import os
import shlex
import subprocess

from ansible.errors import AnsibleError, AnsibleFileNotFound
from ansible.module_utils.common.text.converters import to_bytes, to_native
from ansible.plugins.connection import ConnectionBase
from ansible.utils.display import Display

DOCUMENTATION = """
    name: local
    short_description: run in the volume that is being provisioned
    description:
        - Runs every command in the chroot of a provisioning session, entered by the words in KILN_ENTER.
    author: Kiln
    version_added: historical
    extends_documentation_fragment:
        - connection_pipelining
"""

display = Display()


class Connection(ConnectionBase):
    transport = "local"
    has_pipelining = True

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._enter = [to_bytes(word) for word in json.loads(os.environ["KILN_ENTER"])]
        self.cwd = None

    def _connect(self):
        # We are root in the chroot; a play that becomes root has nothing to do.
        self._play_context.remote_user = "root"
        self._connected = True
        return self

    def _run(self, words, stdin):
        display.vvv("KILN %s" % " ".join(map(shlex.quote, words)), host=self._play_context.remote_addr)
        # Left-over children of the command may keep its output open for ever: the
        # output goes to files, and only the command itself is waited for.
        with open(os.memfd_create("stdout"), "w+b") as out, open(os.memfd_create("stderr"), "w+b") as err:
            process = subprocess.Popen(
                self._enter + [to_bytes(word) for word in words], stdin=stdin, stdout=out, stderr=err
            )
            process.wait()
            out.seek(0)
            err.seek(0)
            return process.returncode, out.read(), err.read()

    def exec_command(self, cmd, in_data=None, sudoable=True):
        super().exec_command(cmd, in_data=in_data, sudoable=sudoable)
        if in_data is None:
            return self._run(["/bin/sh", "-c", cmd], subprocess.DEVNULL)
        with open(os.memfd_create("stdin"), "w+b") as stdin:
            stdin.write(to_bytes(in_data))
            stdin.seek(0)
            return self._run(["/bin/sh", "-c", cmd], stdin)

    def put_file(self, in_path, out_path):
        super().put_file(in_path, out_path)
        try:
            source = open(to_bytes(in_path, errors="surrogate_or_strict"), "rb")
        except FileNotFoundError:
            raise AnsibleFileNotFound("file or module does not exist: %s" % to_native(in_path)) from None
        with source:
            code, _, err = self._run(["/bin/sh", "-c", 'cat > "$1"', "sh", out_path], source)
        if code != 0:
            raise AnsibleError("could not put %s into the volume: %s" % (to_native(out_path), to_native(err)))

    def fetch_file(self, in_path, out_path):
        super().fetch_file(in_path, out_path)
        code, out, err = self._run(["/bin/cat", in_path], subprocess.DEVNULL)
        if code != 0:
            raise AnsibleError("could not fetch %s from the volume: %s" % (to_native(in_path), to_native(err)))
        with open(to_bytes(out_path, errors="surrogate_or_strict"), "wb") as target:
            target.write(out)

    def reset(self):
        pass

    def close(self):
        self._connected = False
