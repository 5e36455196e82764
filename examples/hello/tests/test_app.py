import json
import tempfile
import unittest
from wsgiref.util import setup_testing_defaults

from hello.app import VERSION, app, configuration


def get(path):
    environ = {"PATH_INFO": path}
    setup_testing_defaults(environ)
    answer = {}

    def start_response(status, headers):
        answer.update(status=status, headers=dict(headers))

    body = b"".join(app(environ, start_response))
    return answer["status"], answer["headers"], body


class AppTest(unittest.TestCase):
    def test_root_names_the_version(self):
        status, headers, body = get("/")
        self.assertEqual(status, "200 OK")
        self.assertEqual(int(headers["Content-Length"]), len(body))
        self.assertEqual(json.loads(body)["version"], VERSION)

    def test_a_later_file_has_the_last_word_and_a_missing_one_is_none(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as one, tempfile.NamedTemporaryFile("w") as two:
            json.dump({"greeting": "Hiya", "country": "uk"}, one)
            json.dump({"country": "us"}, two)
            one.flush(), two.flush()
            values = configuration([one.name, "/nowhere.json", two.name])
        self.assertEqual(values, {"greeting": "Hiya", "country": "us"})

    def test_healthz_is_healthy(self):
        self.assertEqual(get("/healthz")[0], "200 OK")

    def test_anything_else_is_not_found(self):
        self.assertEqual(get("/nope")[0], "404 Not Found")


if __name__ == "__main__":
    unittest.main()
