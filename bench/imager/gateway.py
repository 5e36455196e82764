"""EC2 as far as Packer's amazon-chroot builder needs it, on one machine: moto, and disks.

moto answers every call. What it lacks for this builder is added in front of it:

* the identity document of the instance that Packer runs on. With custom_endpoint_ec2 set, Packer's SDK
  asks that endpoint for instance metadata as well;
* DetachVolume without an InstanceId, which EC2 allows and moto does not;
* the disks. A volume is a copy of its snapshot without the holes, an attached one a loop device with links
  to it at the name that Packer asked for (NAME, and NAME1 for the root partition), a snapshot a hard link.
  So volumes and snapshots cost Packer no more than the file copy that any builder needs.

Usage: gateway.py DISK DIRECTORY. The source image's disk is DISK; volumes are kept in DIRECTORY. Prints one
line of JSON, {"endpoint", "source_ami"}, when it is ready, and ends when its stdin does.
"""

import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse
from io import BytesIO

REGION = "us-east-1"
SOURCE_AMI = "ami-0123456789abcdef0"


class Disks:
    """The files of volumes and snapshots, and the loop devices of attached volumes."""

    def __init__(self, directory):
        self.directory = directory
        self.attached = {}
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, id):
        return self.directory / id

    def create(self, volume, snapshot):
        subprocess.run(
            ["cp", "--sparse=auto", "--reflink=auto", self.path(snapshot), self.path(volume)], check=True
        )

    def delete(self, id):
        self.path(id).unlink(missing_ok=True)

    def snapshot(self, volume, snapshot):
        os.link(self.path(volume), self.path(snapshot))

    def attach(self, volume, name):
        disk = self.path(volume)
        # Not every kernel scans loop devices for partitions, so each link has a device of its own.
        table = json.loads(subprocess.check_output(["sfdisk", "--json", disk]))["partitiontable"]
        root = next(part for part in table["partitions"] if re.search(r"\D1$", part["node"]))
        sector = table.get("sectorsize", 512)
        extent = [f"--offset={root['start'] * sector}", f"--sizelimit={root['size'] * sector}"]
        self.attached[volume] = links = []
        for link, options in ((name, []), (name + "1", extent)):
            device = subprocess.check_output(["losetup", "--find", "--show", *options, disk], text=True).strip()
            os.symlink(device, link)
            links.append((link, device))

    def detach(self, volume):
        for link, device in self.attached.pop(volume, []):
            os.unlink(link)
            # A device that is still mounted goes when it is unmounted.
            subprocess.run(["losetup", "--detach", device], check=True)

    def close(self):
        for volume in list(self.attached):
            self.detach(volume)
        for path in self.directory.iterdir():
            path.unlink()


class Gateway:
    """A WSGI application in front of moto's."""

    def __init__(self, moto, disks, instance):
        self.moto = moto
        self.disks = disks
        self.instance = instance

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.endswith("/instance-identity/document"):
            return self.identity(start_response)
        if path.endswith("/api/token"):
            # The SDK then does without a token, as on instances that do not demand one.
            start_response("404 Not Found", [("Content-Length", "0")])
            return [b""]
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        call = dict(urllib.parse.parse_qsl(body.decode()))
        action = call.get("Action")
        if action == "DetachVolume":
            self.disks.detach(call["VolumeId"])
            call.setdefault("InstanceId", self.instance)
            body = urllib.parse.urlencode(call).encode()
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = BytesIO(body)

        status = []
        def started(line, headers, exc_info=None):
            status.append(line)
            return start_response(line, headers, exc_info)
        answer = b"".join(self.moto(environ, started))
        if status[-1].startswith("200"):
            self.follow(action, call, answer.decode())
        return [answer]

    def follow(self, action, call, answer):
        """Does to the disks what moto has noted down."""
        def answered(name):
            return re.search(f"<{name}>([^<]+)</{name}>", answer)[1]

        if action == "CreateVolume":
            self.disks.create(answered("volumeId"), call["SnapshotId"])
        elif action == "AttachVolume":
            self.disks.attach(call["VolumeId"], call["Device"])
        elif action == "CreateSnapshot":
            self.disks.snapshot(call["VolumeId"], answered("snapshotId"))
        elif action == "DeleteVolume":
            self.disks.delete(call["VolumeId"])
        elif action == "DeleteSnapshot":
            self.disks.delete(call["SnapshotId"])

    def identity(self, start_response):
        document = {"instanceId": self.instance, "region": REGION, "availabilityZone": REGION + "a"}
        body = json.dumps(document).encode()
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]


def start_moto(directory):
    """moto with the source image and the instance that Packer seems to run on.

    Returns moto's application, the instance's id and the id of the source image's snapshot.
    """
    image = {
        "ami_id": SOURCE_AMI,
        "name": "source",
        "owner_id": "123456789012",
        "state": "available",
        "architecture": "x86_64",
        "image_type": "machine",
        "virtualization_type": "hvm",
        "hypervisor": "xen",
        "root_device_type": "ebs",
        "root_device_name": "/dev/xvda",
    }
    images = directory / "images.json"
    images.write_text(json.dumps([image]))
    # moto reads these when it is imported.
    os.environ["MOTO_AMIS_PATH"] = str(images)
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.ec2.models import ec2_backends
    from moto.server import DomainDispatcherApplication, create_backend_app

    ec2 = ec2_backends[DEFAULT_ACCOUNT_ID][REGION]
    zone = {"placement": REGION + "a", "is_instance_type_default": True}
    machine = ec2.run_instances(SOURCE_AMI, 1, b"", [], **zone).instances[0]
    return DomainDispatcherApplication(create_backend_app), machine.id, ec2.amis[SOURCE_AMI].ebs_snapshot.id


def main():
    disk, directory = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    disks = Disks(directory)
    moto, instance, snapshot = start_moto(directory)
    disks.path(snapshot).symlink_to(disk)

    import logging
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, Gateway(moto, disks, instance), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({"endpoint": f"http://127.0.0.1:{server.port}", "source_ami": SOURCE_AMI}), flush=True)
    sys.stdin.read()
    server.shutdown()
    disks.close()


main()
