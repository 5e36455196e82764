"""The disks behind EC2's volumes and snapshots: files, and loop devices where a volume is attached.

A volume is a copy of its snapshot without the holes, an attached one a loop device with links to it: the one that udev
makes for an EBS volume, and those at the name that was asked for (NAME, and NAME1 for the root partition). A snapshot is a
hard link. So volumes and snapshots cost a builder no more than the file copy that any builder needs.
"""

import os
import re
import subprocess


# How the names of the links begin that udev makes for EBS volumes.
NVME = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_"


def run(*command):
    return subprocess.check_output(command, text=True)


class Disks:
    """The files of volumes and snapshots, and the loop devices of attached volumes."""

    def __init__(self, directory):
        self.directory = directory
        self.attached = {}
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, id):
        return self.directory / id

    def create(self, volume, snapshot, size):
        disk = self.path(volume)
        if snapshot:
            subprocess.run(["cp", "--sparse=auto", "--reflink=auto", self.path(snapshot), disk], check=True)
        with open(disk, "ab") as file:
            file.truncate(max(size, file.tell()))

    def delete(self, id):
        self.path(id).unlink(missing_ok=True)

    def snapshot(self, volume, snapshot):
        # An attached volume is still written to, and its snapshot is not.
        copy = ["cp", "--sparse=auto", "--reflink=auto"] if volume in self.attached else ["ln"]
        subprocess.run([*copy, self.path(volume), self.path(snapshot)], check=True)

    def attach(self, volume, name):
        disk = self.path(volume)
        device = run("losetup", "--find", "--show", "--partscan", disk).strip()
        # Not every kernel scans loop devices for partitions.
        subprocess.run(["partx", "--update", device], stderr=subprocess.DEVNULL)
        # Packer looks for the name that it has asked for. The names of EC2's own are Xen's: like a Nitro instance, this
        # machine calls its devices otherwise, and has udev's links to them.
        names = [(NVME + volume.replace("-", ""), device)]
        if not re.fullmatch(r"/dev/(sd|xvd)[a-z]", name):
            names += [(name, device), (name + "1", device + "p1")]
        for link, target in names:
            os.makedirs(os.path.dirname(link), exist_ok=True)
            os.symlink(target, link)
        self.attached[volume] = device, [link for link, _ in names]

    def detach(self, volume):
        device, links = self.attached.pop(volume, (None, []))
        for link in links:
            os.unlink(link)
        if device:
            # A device that is still mounted goes when it is unmounted.
            subprocess.run(["partx", "--delete", device], stderr=subprocess.DEVNULL)
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
        if action == "CreateVolume":
            self.create(answered("volumeId"), call.get("SnapshotId"), int(call.get("Size", 0)) << 30)
        elif action == "AttachVolume":
            self.attach(call["VolumeId"], call["Device"])
        elif action == "CreateSnapshot":
            self.snapshot(call["VolumeId"], answered("snapshotId"))
        elif action == "DeleteVolume":
            self.delete(call["VolumeId"])
        elif action == "DeleteSnapshot":
            self.delete(call["SnapshotId"])
