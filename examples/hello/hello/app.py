"""The service: a WSGI application without dependencies."""

import json
import os
import socket

try:
    from hello.version import VERSION  # written by ../build.sh
except ImportError:
    VERSION = "development"

# Chosen when the machine boots, and made from what a key-value store says: each only where the image does that.
FILES = ["/etc/hello/conf.json", "/etc/hello/announcement.json"]


def configuration(files):
    """What the files that are there say; a later one has the last word."""
    values = {"greeting": os.environ.get("HELLO_GREETING", "Hello")}
    for file in files:
        if os.path.exists(file):
            with open(file, encoding="utf-8") as content:
                values.update(json.load(content))
    return values


# Read once: who changes a file reloads the service.
CONFIGURATION = configuration(FILES)


def app(environ, start_response):
    """Answers /healthz for the balancer and / for everybody."""
    path = environ.get("PATH_INFO", "/")
    if path == "/healthz":
        return respond(start_response, "200 OK", {"status": "healthy"})
    if path == "/":
        hello = {**CONFIGURATION, "component": "hello", "version": VERSION, "host": socket.gethostname()}
        return respond(start_response, "200 OK", hello)
    return respond(start_response, "404 Not Found", {"error": f"nothing at {path}"})


def respond(start_response, status, document):
    body = json.dumps(document).encode() + b"\n"
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
