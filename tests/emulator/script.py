"""What a test says beforehand of calls to come: that one is throttled, that an answer is lost, or what is answered.

A rule is a JSON object:

* "call": a pattern (fnmatch) of calls by name, see `name_of`;
* "only": "changes", or "reads" (Describe, Get, List, HEAD): the others are no such calls;
* "with": parameters that they must have, with a pattern for each, such as {"VolumeId.1": "*"};
* "after": how many such calls it lets pass first;
* "times": for how many calls it holds, 1 if not given;
* "each": it holds once for every such call, whatever "times" says, which is its first attempt unless another rule has
  decided over that; if it is "name", once for every name;
* "do": one of
  * "throttle": refused, not carried out;
  * "refuse": the same, with "status", "code" and "message";
  * "answer": answered with "status" and "body", not carried out;
  * "replace": carried out, and what is "old" in the answer is "new";
  * "lose": carried out, and then the connection ends without an answer;
  * "hang": carried out, and then the client waits for the answer as long as it lives;
  * "stall": it waits the same way, and nothing was carried out. In both cases the call is noted as "held".

Rules are asked in the order in which they came; the first that fits and is not used up decides.
"""

import collections
import fnmatch
import json
import re
import threading
import urllib.parse
from xml.sax.saxutils import escape

THROTTLED = {"status": 400, "code": "ThrottlingException", "message": "Rate exceeded"}


def name_of(environ, call):
    """A call's name: `ec2:RunInstances` where the protocol has actions, else `s3:PUT /bucket/key`."""
    scope = environ.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split("/")
    service = scope[3] if len(scope) > 3 else "unsigned"
    target = environ.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
    action = call.get("Action") or target
    query = urllib.parse.parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True)
    upload = next((f"?{name}" for name in ("uploads", "uploadId") if name in query), "")
    return f"{service}:{action or environ['REQUEST_METHOD'] + ' ' + environ['PATH_INFO'] + upload}"


def parameters_of(environ, body):
    """The parameters of a call without a form: its query, its `x-amz-` headers (in lower case) and its JSON.

    A batch of record changes is the parameter `batch`, as it came.
    """
    parameters = dict(urllib.parse.parse_qsl(environ.get("QUERY_STRING", "")))
    for name, value in environ.items():
        header = name.removeprefix("HTTP_").lower().replace("_", "-")
        if name.startswith("HTTP_X_AMZ_") and header not in ("x-amz-date", "x-amz-security-token"):
            parameters[header] = value
    if "json" in environ.get("CONTENT_TYPE", "") and body:
        parameters.update(json.loads(body))
    if environ["PATH_INFO"].endswith("/rrset") and environ["REQUEST_METHOD"] == "POST":
        parameters["batch"] = body.decode()
    return parameters


def refusal(environ, rule):
    """The answer that refuses a call, in the form of its protocol. Returns (content type, body)."""
    code, message = rule["code"], rule.get("message", "")
    kind = environ.get("CONTENT_TYPE", "")
    service = name_of(environ, {}).partition(":")[0]
    if "json" in kind or "HTTP_X_AMZ_TARGET" in environ or service == "ebs":
        return "application/json", json.dumps({"__type": code, "code": code, "message": message})
    error = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
    if service == "ec2":
        body = f"<Response><Errors><Error>{error}</Error></Errors><RequestID>0</RequestID></Response>"
    elif service == "s3":
        body = f"<Error>{error}<RequestId>0</RequestId></Error>"
    else:
        body = f"<ErrorResponse><Error><Type>Sender</Type>{error}</Error><RequestId>0</RequestId></ErrorResponse>"
    return "text/xml", body


def is_change(name):
    """Whether a call changes something, as its name has it: `ec2:RunInstances`, or `s3:PUT /bucket/key`."""
    return not re.match(r"[^:]*:(Describe|Get|List|GET |HEAD )", name)


class Script:
    """The rules, and a record of all calls."""

    def __init__(self):
        self.rules = collections.deque()
        self.calls = []
        self.lock = threading.Lock()

    def add(self, rule):
        with self.lock:
            self.rules.append({"times": 1, **rule})

    def next(self, name, call, invocation=None):
        """Notes the call down and returns the rule that decides over it, if there is one.

        All attempts at a call have the same `invocation`.
        """
        with self.lock:
            self.calls.append({"call": name, "parameters": call})
            for rule in self.rules:
                if self.holds(rule, name, call, invocation):
                    self.calls[-1]["rule"] = rule["do"]
                    rule = {**THROTTLED, **rule} if rule["do"] == "throttle" else rule
                    return {**rule, "entry": self.calls[-1]}
        return None

    def holds(self, rule, name, call, invocation):
        """Whether the rule decides over this call; counts it."""
        fits = fnmatch.fnmatchcase(name, rule["call"])
        fits = fits and rule.get("only") in (None, "changes" if is_change(name) else "reads")
        patterns = rule.get("with", {}).items()
        fits = fits and all(key in call and fnmatch.fnmatchcase(call[key], pattern) for key, pattern in patterns)
        if fits and rule.get("after", 0) > 0:
            rule["after"] -= 1
            return False
        if "each" in rule:
            one, seen = name if rule["each"] == "name" else invocation, rule.setdefault("seen", set())
            is_first = one not in seen
            seen.update([one] if fits else [])
            return fits and is_first
        if not fits or rule["times"] <= 0:
            return False
        rule["times"] -= 1
        return True
