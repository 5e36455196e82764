"""What EC2 keeps of images, volumes and requests, and moto does not.

* RegisterImage and CopyImage: moto keeps name and description; here an image also has its tags, its architecture and
  its devices, whose snapshots are those that it was registered with.
* An image's name is unique, and a volume is attached once: EC2 refuses the second.
* A request with the ClientToken of an earlier one is that one: it gets the same answer, and nothing is made.
"""

import re

# What of RegisterImage's parameters an image of moto's has by another name.
FIELDS = {
    "Architecture": "architecture",
    "VirtualizationType": "virtualization_type",
    "RootDeviceName": "root_device_name",
    "BootMode": "boot_mode",
    "KernelId": "kernel_id",
    "RamdiskId": "ramdisk_id",
}


def entries(call, prefix):
    """The members of a list parameter, such as `BlockDeviceMapping.1.Ebs.SnapshotId`: a list of dictionaries."""
    found = {}
    for name, value in call.items():
        match = re.fullmatch(re.escape(prefix) + r"\.(\d+)\.(.+)", name)
        if match:
            found.setdefault(int(match[1]), {})[match[2]] = value
    return [found[number] for number in sorted(found)]


def tags(call, kind):
    """The tags that a call has for what it makes of this kind."""
    specifications = entries(call, "TagSpecification")
    of_kind = next((it for it in specifications if it["ResourceType"] == kind), {})
    return {tag["Key"]: tag.get("Value", "") for tag in entries(of_kind, "Tag")}


class Strict:
    """Goes before and after moto's own answers."""

    def __init__(self, backends):
        self.backends = backends
        self.answers = {}

    def refusal(self, region, call):
        """Why EC2 would refuse the call, as (code, message), if it would."""
        ec2 = self.backends[region]
        action = call.get("Action")
        if action in ("RegisterImage", "CopyImage", "CreateImage"):
            name = call["Name"]
            taken = [ami.id for ami in ec2.amis.values() if ami.name == name]
            if taken:
                return "InvalidAMIName.Duplicate", f"AMI name {name} is already in use by AMI {taken[0]}"
        if action == "AttachVolume":
            volume = ec2.volumes.get(call["VolumeId"])
            if volume and volume.attachment:
                return "VolumeInUse", f"{volume.id} is already attached to an instance"
            instance = ec2.get_instance(call["InstanceId"])
            if call["Device"] in instance.block_device_mapping:
                message = f"Invalid value '{call['Device']}' for unixDevice. Attachment point is already in use"
                return "InvalidParameterValue", message
        if action == "DeleteSnapshot":
            users = [ami.id for ami in ec2.amis.values() if call["SnapshotId"] in getattr(ami, "snapshots", [])]
            if users:
                return "InvalidSnapshot.InUse", f"The snapshot {call['SnapshotId']} is in use by {users[0]}"
        return None

    def answered(self, call):
        """The answer to an earlier request with the same token."""
        return self.answers.get(self.key(call))

    def key(self, call):
        token = call.get("ClientToken")
        return (call.get("Action"), token) if token else None

    def follow(self, region, call, answer):
        """Keeps what moto forgets."""
        if self.key(call):
            self.answers[self.key(call)] = answer
        action = call.get("Action")
        if action not in ("RegisterImage", "CopyImage"):
            return
        ec2 = self.backends[region]
        ami = ec2.amis[re.search(r"<imageId>([^<]+)</imageId>", answer)[1]]
        for name, value in tags(call, "image").items():
            ami.add_tag(name, value)
        if action == "RegisterImage":
            for name, field in FIELDS.items():
                if name in call:
                    setattr(ami, field, call[name])
            ami.ena_support = call.get("EnaSupport") == "true"
            ami.imds_support = call.get("ImdsSupport")
            devices = entries(call, "BlockDeviceMapping")
        else:
            source = self.backends[call["SourceRegion"]].amis[call["SourceImageId"]]
            for field in ("root_device_name", "boot_mode"):
                setattr(ami, field, getattr(source, field))
            devices = self.copied(ec2, call, source)
        ami.root_device_type = "ebs"
        made_by_moto = ami.ebs_snapshot
        keep(ami, devices)
        if ami.snapshots and ami.snapshots[0] in ec2.snapshots:
            ami.ebs_snapshot = ec2.snapshots[ami.snapshots[0]]
        ec2.snapshots.pop(made_by_moto.id, None)

    def copied(self, ec2, call, source):
        """The devices of a copy, with snapshots of its own."""
        devices = [dict(device) for device in getattr(source, "registered", [])]
        for device in devices:
            if "Ebs.SnapshotId" in device:
                volume = ec2.create_volume(size=int(device.get("Ebs.VolumeSize", 1)), zone_name=ec2.region_name + "a")
                encrypted = call.get("Encrypted") == "true"
                snapshot = ec2.create_snapshot(volume.id, "copy")
                snapshot.encrypted, snapshot.kms_key_id = encrypted, call.get("KmsKeyId")
                ec2.delete_volume(volume.id)
                snapshot.add_tags(tags(call, "snapshot"))
                device["Ebs.SnapshotId"] = snapshot.id
        return devices


def keep(ami, devices):
    """Gives the image these devices, where moto has one of its own making."""
    ami.registered = devices
    ami.snapshots = [device["Ebs.SnapshotId"] for device in devices if "Ebs.SnapshotId" in device]
    described = []
    for device in devices:
        ebs = {name[4:]: value for name, value in device.items() if name.startswith("Ebs.")}
        if "VolumeSize" in ebs:
            ebs["VolumeSize"] = int(ebs["VolumeSize"])
        if "DeleteOnTermination" in ebs:
            ebs["DeleteOnTermination"] = ebs["DeleteOnTermination"] == "true"
        one = {"DeviceName": device["DeviceName"], **({"Ebs": ebs} if ebs else {})}
        described.append({**one, **{name: device[name] for name in ("VirtualName", "NoDevice") if name in device}})
    ami.__class__ = of_class(ami.__class__)
    ami.devices = described


def of_class(base):
    """moto computes an image's devices, so an image that has its own is of a class of its own."""
    if hasattr(base, "has_devices"):
        return base
    members = {"has_devices": True, "block_device_mappings": property(lambda ami: ami.devices)}
    return type("Registered" + base.__name__, (base,), members)
