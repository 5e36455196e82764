"""What a test says beforehand of calls to come: that one is throttled, that an answer is lost, or what is answered.

A rule is a JSON object:

* "call": a pattern (fnmatch) of calls by name, see `name_of`;
* "with": a parameter that they must have, such as `VolumeId.1`;
* "skip": how many of these calls pass before it holds, 0 if not given;
* "times": for how many calls it holds, 1 if not given; with "each": true, for how many of each name;
* "do": "throttle" (refused, not carried out), "lose" (carried out, and then the connection ends without an
  answer), "refuse" (with "status", "code" and "message"), "answer" (with "status" and "body", not carried out), "hang"
  (carried out, and no answer comes) or "stall" (not carried out, and no answer comes).

Rules are asked in the order in which they came; the first that fits and is not used up decides.
"""

import collections
import fnmatch
import json
import threading
import urllib.parse
from xml.sax.saxutils import escape

THROTTLED = {"status": 400, "code": "ThrottlingException", "message": "Rate exceeded"}


def name_of(environ, call):
    """A call's name: `ec2:RunInstances` where the protocol has actions, else `s3:PUT /bucket/key`.

    What begins an upload in parts is `s3:POST /bucket/key?uploads`; what sends, completes or aborts one ends in
    `?uploadId`.
    """
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
    service = scope[3] if len(scope) > 3 else "unsigned"
    target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    action = call.get("Action") or target
    query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    upload = next((f"?{name}" for name in ("uploads", "uploadId") if name in query), "")
    return f"{service}:{action or environ['REQUEST_METHOD'] + ' ' + environ['PATH_INFO'] + upload}"


def refusal(environ, rule):
    """The answer that refuses a call, in the form of its protocol. Returns (content type, body)."""
    code, message = rule["code"], rule.get("message", "")
    kind = environ.get("CONTENT_TYPE", "")
    if "json" in kind or "HTTP_X_AMZ_TARGET" in environ:
        return "application/json", json.dumps({"__type": code, "code": code, "message": message})
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    service = name_of(environ, {}).partition(":")[0]
    if service == "ec2":
        body = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>0</RequestID></Response>"
    elif service == "s3":
        body = f"<Error>{error}<RequestId>0</RequestId></Error>"
    else:
        body = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>0</RequestId></ErrorResponse>"
    return "text/xml", body


class Script:
    """The rules, and a record of all calls."""

    def __init__(self):
        self.rules = collections.deque()
        self.calls = []
        self.lock = threading.Lock()

    def add(self, rule):
        with self.lock:
            self.rules.append({"times": 1, "skip": 0, **rule, "used": collections.Counter()})

    def next(self, name, call):
        """Notes the call down and returns the rule that decides over it, if there is one."""
        with self.lock:
            self.calls.append({"call": name, "parameters": call})
            for rule in self.rules:
                if not fnmatch.fnmatchcase(name, rule["call"]) or ("with" in rule and rule["with"] not in call):
                    continue
                if rule["skip"] > 0:
                    rule["skip"] -= 1
                    continue
                count = name if rule.get("each") else ""
                if rule["used"][count] < rule["times"]:
                    rule["used"][count] += 1
                    return {**THROTTLED, **rule} if rule["do"] == "throttle" else rule
        return None
