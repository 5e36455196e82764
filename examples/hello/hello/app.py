"""The service: a WSGI application without dependencies."""

import json
import os
import socket

try:
    from hello.version import VERSION  # written by ../build.sh
except ImportError:
    VERSION = "development"

GREETING = os.environ.get("HELLO_GREETING", "Hello")


def app(environ, start_response):
    """Answers /healthz for the balancer and / for everybody."""
    path = environ.get("PATH_INFO", "/")
    if path == "/healthz":
        return respond(start_response, "200 OK", {"status": "healthy"})
    if path == "/":
        hello = {"greeting": GREETING, "component": "hello", "version": VERSION, "host": socket.gethostname()}
        return respond(start_response, "200 OK", hello)
    return respond(start_response, "404 Not Found", {"error": f"nothing at {path}"})


def respond(start_response, status, document):
    body = json.dumps(document).encode() + b"\n"
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]
