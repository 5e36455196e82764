use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread::{self, JoinHandle};

use super::super::{CheckResult, Outcome, run};
use super::*;
use crate::gossfile::Gossfile;

/// Answers one request on a port of its own, and hands back what it was sent.
fn serve(answer: &'static str) -> (u16, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            reader.read_line(&mut request).unwrap();
        }
        stream.write_all(answer.as_bytes()).unwrap();
        request
    });
    (port, server)
}

fn check(attributes: &str, port: u16) -> Vec<CheckResult> {
    let text = format!("http: {{'http://localhost:{port}/health': {{{attributes}}}}}");
    run(&Gossfile::parse("goss.yaml", &text).unwrap())
}

#[test]
fn status_headers_and_body() {
    let (port, server) =
        serve("HTTP/1.1 404 Not Found\r\ncontent-type: text/plain\r\nContent-Length: 9\r\n\r\nnot here\n");
    let results = check(
        "status: 404, headers: ['Content-Type: text/plain'], body: ['not here'], username: me, password: secret, request-headers: ['X-Test: yes']",
        port,
    );
    assert!(results.iter().all(|result| result.outcome == Outcome::Passed), "{results:#?}");
    let request = server.join().unwrap().to_ascii_lowercase();
    assert!(request.contains("authorization: basic bwu6c2vjcmv0\r\n"), "{request}");
    assert!(request.contains("x-test: yes\r\n"), "{request}");
}

#[test]
fn a_redirect_is_an_answer_if_it_is_not_followed() {
    let (port, _server) = serve("HTTP/1.1 302 Found\r\nLocation: http://localhost:1/\r\nContent-Length: 0\r\n\r\n");
    let results = check("status: 302, no-follow-redirects: true, headers: ['Location: http://localhost:1/']", port);
    assert!(results.iter().all(|result| result.outcome == Outcome::Passed), "{results:#?}");
}

#[test]
fn silence_is_a_failure_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let results = check("status: 200, timeout: 200, body: [x]", listener.local_addr().unwrap().port());
    assert_eq!(results[0].message.as_deref(), Some("no answer within 200 ms"));
    assert_eq!(results[1].outcome, Outcome::Skipped);
}

#[test]
fn header_names_as_go_spells_them() {
    for (name, expected) in [("content-type", "Content-Type"), ("ETAG", "Etag"), ("x-b3-id", "X-B3-Id")] {
        assert_eq!(canonical(name), expected);
    }
}
