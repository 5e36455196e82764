//! At a terminal: breakpoints, questions and colours.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::rig::{Rig, shell};

/// How long a program may take to say what is waited for.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program at a terminal of its own, and everything that it has shown there.
struct Terminal {
    child: Child,
    terminal: File,
    shown: String,
}

impl Terminal {
    fn start(rig: &Rig, arguments: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let side = || Stdio::from(OpenOptions::new().read(true).write(true).open(&name).unwrap());
        let program = rig.program("imager").args(arguments).env("TERM", "xterm").configure(|command| {
            command.env_remove("NO_COLOR").stdin(side()).stdout(side()).stderr(side());
        });
        Self { child: program.spawn().unwrap(), terminal: ours.into(), shown: String::new() }
    }

    /// Waits until `text` has been shown after all that was waited for before; forgets what came before it.
    fn wait_for(&mut self, text: &str) {
        let started = Instant::now();
        loop {
            if let Some((_, after)) = self.shown.split_once(text) {
                self.shown = after.to_owned();
                return;
            }
            assert!(started.elapsed() < PATIENCE, "waited for {text:?}:\n{}", self.shown);
            assert!(self.read(), "it ended before {text:?}:\n{}", self.shown);
        }
    }

    fn type_line(&mut self, line: &str) {
        self.terminal.write_all(format!("{line}\n").as_bytes()).unwrap();
    }

    /// Its exit code, and what it has shown since the last wait.
    fn end(mut self) -> (Option<i32>, String) {
        while self.read() {}
        (self.child.wait().unwrap().code(), std::mem::take(&mut self.shown))
    }

    /// Reads what there is; false if nobody has the terminal any more.
    fn read(&mut self) -> bool {
        let mut waiting = [PollFd::new(&self.terminal, PollFlags::IN)];
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        if poll(&mut waiting, Some(&second)).unwrap() == 0 {
            return true;
        }
        let mut buffer = [0; 4096];
        match self.terminal.read(&mut buffer) {
            Ok(count) if count > 0 => self.shown.push_str(&String::from_utf8_lossy(&buffer[..count])),
            // EIO: the other side has been closed (pty(7)).
            _ => return false,
        }
        true
    }
}

impl Drop for Terminal {
    /// A test that fails leaves nobody who waits for an answer.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A rig with a template of one builder, and the template's path.
fn rig(provisioners: &[&str]) -> (Rig, String) {
    let mut rig = Rig::new();
    rig.without_manifest();
    let template = format!(
        r#"{{ "builders": [{{ "name": "b", "type": "chroot", "source_image": "bookworm", "image_name": "image-b",
                  "isolation": "chroot", "force_deregister": true }}],
  "provisioners": [{}] }}"#,
        provisioners.join(",")
    );
    let path = rig.template(&template);
    (rig, path)
}

#[test]
fn a_breakpoint_waits_for_enter_and_says_how_to_look_inside() {
    let (rig, template) = rig(&[&shell("echo 1 > /one"), r#"{ "type": "breakpoint", "note": "look at /one" }"#]);
    let mut terminal = Terminal::start(&rig, &["build", &template]);
    terminal.wait_for("Pausing at breakpoint provisioner with note \"look at /one\"");
    terminal.wait_for("To look inside: ");
    terminal.wait_for("Press enter to continue. ");
    terminal.type_line("");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("img-"), "{shown}");
}

#[test]
fn a_person_decides_what_becomes_of_a_failure() {
    let (rig, template) = rig(&[&shell("test -e /again || { touch /again; exit 1; }")]);
    const QUESTION: &str = "[c] Clean up and exit, [a] abort without cleanup, or [r] retry the provisioner? ";
    let mut retried = Terminal::start(&rig, &["build", "-on-error=ask", &template]);
    retried.wait_for(QUESTION);
    retried.type_line("x");
    retried.wait_for(QUESTION);
    retried.type_line("r");
    let (code, shown) = retried.end();
    assert_eq!(code, Some(0), "{shown}");

    let mut cleaned = Terminal::start(&rig, &["build", "-on-error=ask", "-force", &template]);
    cleaned.wait_for(QUESTION);
    cleaned.type_line("c");
    let (code, shown) = cleaned.end();
    assert_eq!(code, Some(3), "{shown}");
    assert!(!shown.contains("the next run removes the volume"), "{shown}");

    let mut aborted = Terminal::start(&rig, &["build", "-on-error=ask", "-force", &template]);
    aborted.wait_for(QUESTION);
    aborted.type_line("a");
    let (code, shown) = aborted.end();
    assert_eq!(code, Some(3), "{shown}");
    assert!(shown.contains("the next run removes the volume"), "{shown}");
}

#[test]
fn each_of_several_builders_has_a_colour() {
    let (rig, template) = rig(&[&shell("echo said by $PACKER_BUILD_NAME")]);
    let text = std::fs::read_to_string(&template).unwrap();
    let two = text.replace(
        "\"builders\": [",
        r#""builders": [{ "name": "a", "type": "chroot", "source_image": "bookworm", "image_name": "image-a",
           "isolation": "chroot" }, "#,
    );
    let (code, shown) = Terminal::start(&rig, &["build", &rig.template(&two)]).end();
    assert_eq!(code, Some(0), "{shown}");
    // ECMA-48: 32 is green, 36 cyan.
    assert!(shown.contains("\x1b[32m    a: said by a\x1b[0m"), "{shown:?}");
    assert!(shown.contains("\x1b[36m    b: said by b\x1b[0m"), "{shown:?}");

    let (code, shown) = Terminal::start(&rig, &["build", "-color=false", "-force", &rig.template(&two)]).end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!shown.contains("\x1b[32m"), "{shown:?}");
}
