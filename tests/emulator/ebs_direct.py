"""What EBS's direct API does and moto's does not, in front of moto's.

* StartSnapshot made twice with one ClientToken is one snapshot, and with other parameters a conflict;
* a snapshot is pending in EC2 until it is completed, and takes no block after that;
* the checksum of a block, and that of the whole (LINEAR: SHA-256 over the digests of the blocks that were written,
  in the order of their index), must be true;
* an encrypted snapshot says so.

What moto keeps of a snapshot are the blocks that were written to it: a parent's are not among them.
"""

import base64
import hashlib
import json
import re
import threading

BLOCK = 512 * 1024
ZEROS = bytes(BLOCK)


class Refused(Exception):
    def __init__(self, status, code, message, reason=None):
        super().__init__(message)
        self.line = f"{status} Refused"
        self.body = json.dumps({"__type": code, "Message": message, "Reason": reason}).encode()
        self.code = code


class EbsDirect:
    """A WSGI application in front of moto's."""

    def __init__(self, moto, backends, snapshots):
        self.moto = moto
        # The snapshots as EBS and as EC2 know them, by region.
        self.ebs = backends
        self.ec2 = snapshots
        self.started = {}
        self.lock = threading.Lock()

    def __call__(self, environ, start_response):
        scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
        if len(scope) < 4 or scope[3] != "ebs":
            return self.moto(environ, start_response)
        asked = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"
        try:
            if asked == "POST /snapshots":
                return self.start(environ, start_response, scope[2])
            if block := re.fullmatch(r"PUT /snapshots/([^/]+)/blocks/(\d+)", asked):
                return self.put(environ, start_response, scope[2], block[1], block[2])
            if completion := re.fullmatch(r"POST /snapshots/completion/([^/]+)", asked):
                return self.complete(environ, start_response, scope[2], completion[1])
        except Refused as refused:
            headers = [("Content-Type", "application/json"), ("x-amzn-errortype", refused.code)]
            start_response(refused.line, headers + [("Content-Length", str(len(refused.body)))])
            return [refused.body]
        return self.moto(environ, start_response)

    def start(self, environ, start_response, region):
        stream = environ["wsgi.input"]
        body = stream.read(int(environ.get("CONTENT_LENGTH") or 0))
        stream.seek(0)
        asked = json.loads(body)
        if "ParentSnapshotId" in asked and "Encrypted" in asked:
            raise Refused(400, "ValidationException", "Encrypted with ParentSnapshotId", "INVALID_PARAMETER_VALUE")
        with self.lock:
            before = self.started.get(asked["ClientToken"])
            if before is None:
                answer = self.started_by_moto(environ, region, asked)
                self.started[asked["ClientToken"]] = (asked, answer)
            elif before[0] == asked:
                answer = before[1]
            else:
                raise Refused(409, "ConflictException", "The ClientToken was used with other parameters")
        body = json.dumps(answer).encode()
        start_response("201 Created", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    def started_by_moto(self, environ, region, asked):
        parent = self.ec2(region).get(asked.get("ParentSnapshotId"))
        if "ParentSnapshotId" in asked and (parent is None or parent.status != "completed"):
            raise Refused(404, "ResourceNotFoundException", "There is no such parent", "SNAPSHOT_NOT_FOUND")
        answer = json.loads(b"".join(self.moto(environ, lambda *_: None)))
        snapshot = self.ec2(region)[answer["SnapshotId"]]
        snapshot.status = "pending"
        snapshot.encrypted = asked.get("Encrypted", False) or bool(parent and parent.encrypted)
        if parent:
            answer["ParentSnapshotId"] = parent.id
        if snapshot.encrypted:
            snapshot.kms_key_id = asked.get("KmsKeyArn") or (parent and parent.kms_key_id) or "arn:aws:kms:default"
            answer["KmsKeyArn"] = snapshot.kms_key_id
        # moto says 512, which is KiB.
        answer["BlockSize"] = BLOCK
        return answer

    def pending(self, region, id):
        snapshot = self.ec2(region).get(id)
        if snapshot is None:
            raise Refused(404, "ResourceNotFoundException", f"The snapshot '{id}' does not exist", "SNAPSHOT_NOT_FOUND")
        if snapshot.status != "pending":
            raise Refused(400, "ValidationException", f"The snapshot '{id}' is not pending", "INVALID_SNAPSHOT_ID")
        return snapshot

    def put(self, environ, start_response, region, id, index):
        self.pending(region, id)
        stream = environ["wsgi.input"]
        block = stream.read()
        stream.seek(0)
        digest = base64.b64encode(hashlib.sha256(block).digest()).decode()
        if len(block) != BLOCK or environ.get("HTTP_X_AMZ_CHECKSUM") != digest:
            raise Refused(400, "ValidationException", "The block is not what its checksum says", "INVALID_BLOCK")
        answered = self.moto(environ, start_response)
        if block == ZEROS:
            # An encrypted snapshot has thousands of these.
            self.ebs(region)[id].blocks[int(index)].block_data = ZEROS
        return answered

    def complete(self, environ, start_response, region, id):
        snapshot = self.pending(region, id)
        blocks = self.ebs(region)[id].blocks
        digests = b"".join(hashlib.sha256(blocks[index].block_data).digest() for index in sorted(blocks))
        whole = base64.b64encode(hashlib.sha256(digests).digest()).decode()
        if environ.get("HTTP_X_AMZ_CHANGEDBLOCKSCOUNT") != str(len(blocks)):
            raise Refused(400, "ValidationException", f"{len(blocks)} blocks were written", "INVALID_PARAMETER_VALUE")
        if environ.get("HTTP_X_AMZ_CHECKSUM") != whole:
            raise Refused(400, "ValidationException", "The checksum is not that of the blocks", "INVALID_PARAMETER_VALUE")
        answered = self.moto(environ, start_response)
        snapshot.status = "completed"
        return answered
