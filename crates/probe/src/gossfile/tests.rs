use super::*;
use crate::gossfile::schema::{RESOURCE_TYPES, Shape};

fn refused(text: &str) -> String {
    Gossfile::parse("goss.yaml", text).map(|_| ()).unwrap_err().to_string()
}

#[test]
fn a_gossfile_with_everything() {
    let text = r"
file:
  /etc/passwd: {exists: true, mode: '0644', contains: ['root:x'], size: {gt: 1}}
  alias: {path: ~root/.ssh, exists: false, contents: []}
package:
  nginx:
    title: the web server
    meta: {ticket: 12}
    installed: true
    versions: [1.22.1-9]
service:
  ssh: {running: true}
user:
  hello: {exists: true, uid: {ge: 100}, groups: [adm]}
group:
  hello: {exists: true}
port:
  22: {listening: true}
  udp6:53: {listening: false}
process:
  nginx: {running: true, skip: true}
command:
  yes:
    exec: true
    exit-status: 0
    stdout: []
    timeout: 500
    retry_count: 3
    retry_delay: 2s
http:
  http://localhost:8080/health:
    status: 200
    method: post
    request-headers: ['Accept: text/plain']
    username: me
    headers: ['Content-Type: text/plain']
    body: [ok]
";
    let gossfile = Gossfile::parse("goss.yaml", text).unwrap();
    assert_eq!(gossfile.resources.len(), 11);
    assert_eq!(gossfile.checks(), 4 + 1 + 2 + 1 + 3 + 1 + 2 + 1 + 1 + 3);
    let subject = |id: &str| gossfile.resources.iter().find(|it| it.id == id).unwrap();
    assert_eq!(subject("alias").subject, Subject::File("~root/.ssh".to_owned()));
    assert_eq!(subject("nginx").title.as_deref(), Some("the web server"));
    assert_eq!(subject("nginx").meta["ticket"], 12);
    assert_eq!(subject("22").subject, Subject::Port(Port { transport: Transport::Tcp, number: 22 }));
    assert_eq!(subject("udp6:53").line, 19);
    let Subject::Command(command) = &subject("yes").subject else { panic!("a command") };
    assert_eq!((command.exec.as_str(), command.timeout.as_millis()), ("true", 500));
    assert_eq!((command.retries, command.retry_delay.as_millis()), (3, 2000));
    let Subject::Http(request) = &subject("http://localhost:8080/health").subject else { panic!("a request") };
    assert_eq!((request.method.as_str(), request.timeout.as_millis()), ("POST", 5000));
    assert_eq!(request.login, Some(("me".to_owned(), String::new())));
    assert_eq!(request.headers.len(), 1);
}

/// The output of `goss render`, and JSON, which goss reads as well.
#[test]
fn json_is_yaml() {
    let text = "{\n\t\"service\": {\n\t\t\"ssh\": {\"enabled\": true, \"running\": true}\n\t}\n}\n";
    assert_eq!(Gossfile::parse("goss.json", text).unwrap().checks(), 2);
}

#[test]
fn broken_gossfiles() {
    for (text, message) in [
        (
            "",
            "goss.yaml:1: the gossfile has no resource: \
             add one of file, package, service, user, group, port, process, command, http",
        ),
        (
            "- a\n",
            "goss.yaml:1: a gossfile is a map of resource types, this is a list: start with a line such as `file:` or `service:`",
        ),
        (
            "dns:\n  localhost: {resolvable: true}\n",
            "goss.yaml:1: resource type `dns` is not supported yet: take it out, or check the same with a `command`",
        ),
        (
            "gossfile:\n  other.yaml: {}\n",
            "goss.yaml:1: resource type `gossfile` is not supported yet: take it out, or check the same with a `command`",
        ),
        ("\nservices:\n  ssh: {}\n", "goss.yaml:2: unknown resource type `services`: did you mean `service`?"),
        (
            "service: [ssh]\n",
            "goss.yaml:1: `service` must be a map of resources, this is a list: indent each service under its own key",
        ),
        (
            "service:\n  ssh: true\n",
            "goss.yaml:2: service `ssh` must be a map of attributes, this is a boolean: write `enabled: true` below it, indented",
        ),
        (
            "service:\n  ssh:\n    runing: true\n",
            "goss.yaml:3: service `ssh` has no attribute `runing`: did you mean `running`?",
        ),
        ("service:\n  ssh: {}\n", "goss.yaml:2: service `ssh` expects nothing: add one of enabled, running, runlevels"),
        (
            "command:\n  ls:\n    exit-status: []\n    stdout: [a]\n",
            "goss.yaml:2: command `ls` does not say `exit-status`, which goss requires: add `exit-status: 0`",
        ),
        (
            "group:\n  adm:\n    exists: true\n    elephants: 1\n",
            "goss.yaml:4: group `adm` has no attribute `elephants`: use one of exists, gid, groupname, title, meta, skip",
        ),
        (
            "file:\n  /etc/passwd:\n    mode: '0644'\n",
            "goss.yaml:2: file `/etc/passwd` does not say `exists`, which goss requires: add `exists: true`",
        ),
        (
            "command:\n  ls:\n    stdout: [a]\n",
            "goss.yaml:2: command `ls` does not say `exit-status`, which goss requires: add `exit-status: 0`",
        ),
        (
            "file:\n  /a:\n    exists: yes\n",
            "goss.yaml:3: `exists` is a string, `yes`: write true or false, without quotes",
        ),
        ("file:\n  /a:\n    exists: [true]\n", "goss.yaml:3: `exists` is a list: write true or false, without quotes"),
        (
            "file:\n  /a:\n    exists: true\n    size: {gte: 1}\n",
            "goss.yaml:4: unknown matcher `gte`: did you mean `ge`?",
        ),
        (
            "file:\n  /a:\n    exists: true\n    size:\n      gt: 1\n      lt: 2\n",
            "goss.yaml:6: a second matcher, `lt`, in one map: combine them as a list under `and` or `or`",
        ),
        (
            "file:\n  /a:\n    exists: true\n    size: {gt: many}\n",
            "goss.yaml:4: `gt` is given a string: write a number",
        ),
        (
            "file:\n  /a:\n    exists: true\n    owner: {or: root}\n",
            "goss.yaml:4: `or` is given a string: write a list",
        ),
        (
            "command:\n  ls:\n    exit-status: 0\n    stdout:\n      - ok\n      - /a(/\n",
            "goss.yaml:6: `/a(/` is not a regular expression (unclosed group): escape it with `\\`, or correct it",
        ),
        (
            "command:\n  ls:\n    exit-status: 0\n    stdout:\n      - {a: b}\n",
            "goss.yaml:5: a pattern is a map: write text, `!text`, `/expression/` or `!/expression/`",
        ),
        (
            "command:\n  ls:\n    exit-status: 0\n    stdout: {gjson: {a: b}}\n",
            "goss.yaml:4: matcher `gjson` is not supported yet: check the same with a `command` that prints the value",
        ),
        (
            "command:\n  ls:\n    exit-status: 0\n    timeout: soon\n",
            "goss.yaml:4: `timeout` of command `ls` is a string: write a whole number of milliseconds",
        ),
        (
            "package:\n  a:\n    installed: true\n    versions: {semver-constraint: ^1}\n",
            "goss.yaml:4: `^1` is not a version constraint: write comparisons such as `>=1.2.0 <2.0.0 || 3.x`",
        ),
        (
            "port:\n  tcp:70000: {listening: true}\n",
            "goss.yaml:2: `tcp:70000` is not a port: write a number from 0 to 65535 after `tcp:`, `tcp6:`, `udp:` or `udp6:`",
        ),
        (
            "http:\n  localhost:\n    status: 200\n",
            "goss.yaml:2: http `localhost`: `localhost` is not a web address: write it in full, as in http://localhost:8080/health",
        ),
        (
            "http:\n  http://a/:\n    status: 200\n    request-headers: [Accept]\n",
            "goss.yaml:4: http `http://a/`: `Accept` is not a header: write `Name: value`",
        ),
        (
            "http:\n  http://a/:\n    status: 200\n    skip: 1\n",
            "goss.yaml:4: `skip` of http `http://a/` is a number: write true or false",
        ),
        (
            "# {{.Vars.a}}\npackage:\n{{range .Vars.packages}}\n  a: {}\n{{end}}\n",
            "goss.yaml:3: templates are not supported yet: render the file first, with `goss render`",
        ),
        (
            "user:\n  root:\n    exists: true\n    home: \"{{.Env.HOME}}\"\n",
            "goss.yaml:4: templates are not supported yet: render the file first, with `goss render`",
        ),
    ] {
        assert_eq!(refused(text), message, "{text}");
    }
}

#[test]
fn what_is_no_yaml() {
    for (text, line, remedy) in [
        ("file:\n\t/a: {exists: true}\n", 2, "indent with spaces"),
        ("file:\n  /a:\n    exists: true\n   mode: '0644'\n", 4, "correct the indentation"),
        ("file:\n  /a: {exists: true}\n  /a: {exists: false}\n", 3, "correct the indentation"),
    ] {
        let error = Gossfile::parse("goss.yaml", text).map(|_| ()).unwrap_err();
        assert_eq!(error.line, Some(line), "{error}");
        assert!(error.why.starts_with("not valid YAML ("), "{error}");
        assert!(error.remedy.starts_with(remedy), "{error}");
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

#[test]
fn double_braces_in_a_command_are_no_template() {
    let text = "command:\n  \"docker inspect -f '{{.State.Running}}' web\":\n    exit-status: 0\n";
    assert_eq!(Gossfile::parse("goss.yaml", text).unwrap().checks(), 1);
}

#[test]
fn every_gate_is_the_first_property() {
    for schema in &RESOURCE_TYPES {
        let (_, shape) = schema.properties[0];
        assert!(!schema.gated || shape == Shape::Truth || ["exit-status", "status"].contains(&schema.properties[0].0));
    }
}
