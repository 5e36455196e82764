"""AWS as far as Kiln and Packer's amazon-chroot builder need it, on one machine: moto, disks, and scripted trouble.

moto answers every call. What is added in front of it:

* the identity document of the instance that a builder runs on, for whoever has a token (IMDSv2). With
  custom_endpoint_ec2 set, Packer's SDK asks that endpoint for instance metadata as well;
* what EC2 keeps and refuses where moto does not, see `images`;
* names that AWS gives once, see `unique`;
* DetachVolume without an InstanceId, which EC2 allows and moto does not;
* the disks, see `disks`;
* what EBS's direct API checks and remembers, see `ebs_direct`;
* what a test says of calls to come, see `script`: POST /_script adds a rule, POST /_forget removes all of them, GET
  /_calls is all calls so far.

Usage: python tests/emulator DIRECTORY [DISK]. Volumes are kept in DIRECTORY; with DISK there is an image
`source_ami` that has this disk, and an instance. Prints one line of JSON, {"endpoint", "source_ami", "instance"},
when it is ready, and ends when its stdin does.
"""

import json
import os
import pathlib
import socket
import sys
import threading
import urllib.parse
from io import BytesIO

import unique
from disks import Disks
from ebs_direct import EbsDirect
from images import Strict, keep
from script import Script, name_of, parameters_of, refusal

REGION = "us-east-1"
SOURCE_AMI = "ami-0123456789abcdef0"
TOKEN = "dG9rZW4="
TOKEN_LIFE = "x-aws-ec2-metadata-token-ttl-seconds"
TOKEN_LIFE_ASKED = "HTTP_" + TOKEN_LIFE.upper().replace("-", "_")


class Gateway:
    """A WSGI application in front of moto's."""

    def __init__(self, moto, backends, disks, instance):
        self.moto = moto
        self.strict = Strict(backends)
        self.disks = disks
        self.instance = instance
        self.script = Script()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path.endswith("/instance-identity/document"):
            if environ.get("HTTP_X_AWS_EC2_METADATA_TOKEN") != TOKEN:
                return answer(start_response, "401 Unauthorized", "text/plain", "")
            document = {"instanceId": self.instance, "region": REGION, "availabilityZone": REGION + "a"}
            return answer(start_response, "200 OK", "application/json", json.dumps(document))
        if path.endswith("/api/token") and "HTTP_AUTHORIZATION" not in environ:
            return answer(start_response, "200 OK", "text/plain", TOKEN, [(TOKEN_LIFE, environ[TOKEN_LIFE_ASKED])])
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        if path == "/_script":
            self.script.add(json.loads(body))
            return answer(start_response, "200 OK", "application/json", "{}")
        if path == "/_forget":
            self.script.rules.clear()
            return answer(start_response, "200 OK", "application/json", "{}")
        if path == "/_calls":
            return answer(start_response, "200 OK", "application/json", json.dumps(self.script.calls))
        form = "x-www-form-urlencoded" in environ.get("CONTENT_TYPE", "")
        call = dict(urllib.parse.parse_qsl(body.decode())) if form else {}
        rule = self.script.next(
            name_of(environ, call), call or parameters_of(environ, body), environ.get("HTTP_AMZ_SDK_INVOCATION_ID")
        )
        if rule and rule["do"] == "answer":
            return answer(start_response, f"{rule.get('status', 200)} Scripted", "text/xml", rule["body"])
        if rule and rule["do"] in ("refuse", "throttle"):
            return answer(start_response, f"{rule.get('status', 400)} Refused", *refusal(environ, rule))
        if rule and rule["do"] == "stall":
            hold(environ, rule)
        region = region_of(environ)
        refused = self.strict.refusal(region, call) or unique.refusal(region, call)
        if refused:
            if rule and rule["do"] == "hang":
                hold(environ, rule)
            rule = {"code": refused[0], "message": refused[1]}
            return answer(start_response, "400 Refused", *refusal(environ, rule))
        known = self.strict.answered(call)
        answered = [known.encode()] if known else self.ask(environ, start_response, call, body, rule)
        if known:
            start_response("200 OK", [("Content-Type", "text/xml"), ("Content-Length", str(len(answered[0])))])
        if rule and rule["do"] == "hang":
            hold(environ, rule)
        if rule and rule["do"] == "lose":
            end_without_answer(environ)
        return answered

    def ask(self, environ, start_response, call, body, rule):
        """What moto answers, after the disks have followed, as the rule has it."""
        if call.get("Action") == "DetachVolume":
            self.disks.detach(call["VolumeId"])
            call.setdefault("InstanceId", self.instance)
            body = urllib.parse.urlencode(call).encode()
        environ["CONTENT_LENGTH"] = str(len(body))
        environ["wsgi.input"] = BytesIO(body)
        status = []

        def started(line, headers, exc_info=None):
            status.append((line, headers))

        answered = b"".join(self.moto(environ, started))
        line, headers = status[-1]
        if line.startswith("200") and call:
            self.disks.follow(call, answered.decode())
            self.strict.follow(region_of(environ), call, answered.decode())
        if rule and rule["do"] == "replace":
            answered = answered.replace(rule["old"].encode(), rule["new"].encode())
            headers = [it for it in headers if it[0] != "Content-Length"] + [("Content-Length", str(len(answered)))]
        start_response(line, headers)
        return [answered]


def answer(start_response, status, content_type, body, headers=()):
    body = body.encode()
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *headers])
    return [body]


def hold(environ, rule):
    """Keeps the client waiting until it is gone, and notes that down."""
    rule["entry"]["held"] = True
    environ["werkzeug.socket"].recv(1)
    end_without_answer(environ)


def end_without_answer(environ):
    # The server would keep the connection for the next call.
    environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError("scripted")


def region_of(environ):
    """The region that a request is signed for."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
    return scope[2] if len(scope) > 2 else REGION


def start_moto(directory, disks, disk):
    """moto's application, its EC2 by region, and the id of the instance that builders seem to run on."""
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
    from moto.ebs.models import ebs_backends
    from moto.ec2.models import ec2_backends
    from moto.server import DomainDispatcherApplication, create_backend_app

    application = EbsDirect(
        DomainDispatcherApplication(create_backend_app),
        lambda region: ebs_backends[DEFAULT_ACCOUNT_ID][region].snapshots,
        lambda region: ec2_backends[DEFAULT_ACCOUNT_ID][region].snapshots,
    )
    ec2 = ec2_backends[DEFAULT_ACCOUNT_ID][REGION]
    zone = {"placement": REGION + "a", "is_instance_type_default": True}
    machine = ec2.run_instances(SOURCE_AMI, 1, b"", [], **zone).instances[0]
    if disk:
        source = ec2.amis[SOURCE_AMI]
        disks.path(source.ebs_snapshot.id).symlink_to(disk)
        gib = -(-os.stat(disk).st_size // 2**30)
        ebs = {"Ebs.SnapshotId": source.ebs_snapshot.id, "Ebs.VolumeSize": str(gib), "Ebs.VolumeType": "gp3"}
        keep(source, [{"DeviceName": "/dev/xvda", **ebs}])
    return application, ec2_backends[DEFAULT_ACCOUNT_ID], machine.id


def main():
    directory = pathlib.Path(sys.argv[1])
    disks = Disks(directory)
    moto, backends, instance = start_moto(directory, disks, sys.argv[2] if len(sys.argv) > 2 else None)

    import logging
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    server = make_server("127.0.0.1", 0, Gateway(moto, backends, disks, instance), threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    ready = {"endpoint": f"http://127.0.0.1:{server.port}", "source_ami": SOURCE_AMI, "instance": instance}
    print(json.dumps(ready), flush=True)
    sys.stdin.read()
    server.shutdown()
    disks.close()


main()
