"""The disks behind EC2's volumes and snapshots: files, and loop devices where a volume is attached.

A volume is a copy of its snapshot without the holes, an attached one a loop device with links to it at the name
that was asked for (NAME, and NAME1 for the root partition), a snapshot a hard link. So volumes and snapshots cost a
builder no more than the file copy that any builder needs.
"""

import json
import os
import re
import subprocess


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

    def follow(self, call, answer):
        """Does to the disks what moto has noted down."""

        def answered(name):
            return re.search(f"<{name}>([^<]+)</{name}>", answer)[1]

        action = call.get("Action")
        if action == "CreateVolume" and "SnapshotId" in call:
            self.create(answered("volumeId"), call["SnapshotId"])
        elif action == "AttachVolume":
            self.attach(call["VolumeId"], call["Device"])
        elif action == "CreateSnapshot":
            self.snapshot(call["VolumeId"], answered("snapshotId"))
        elif action == "DeleteVolume":
            self.delete(call["VolumeId"])
        elif action == "DeleteSnapshot":
            self.delete(call["SnapshotId"])
