//! `config-agent status`.

use super::rig::Rig;

#[test]
fn it_says_what_is_rendered_from_what_and_since_when() {
    let rig = Rig::new();
    rig.keep("web", "{{ greeting }}\n", "", "greeting = \"/web/greeting\"");
    let ended = rig.run(&["status"]);
    assert_eq!(ended.code, Some(3));
    assert!(ended.stderr.contains("start the agent with `systemctl start config-agent`"), "{}", ended.stderr);

    rig.set("/web/greeting", "hello");
    let agent = rig.start();
    agent.wait_for(&rig, "web", "hello\n");
    agent.wait("it is current", || agent.file("web")["state"] == "current");
    let status = agent.status();
    assert_eq!((&status["store"]["kind"], &status["store"]["connected"]), (&"directory".into(), &true.into()));
    assert_eq!(status["pid"], agent.pid());
    let file = agent.file("web");
    assert_eq!(file["destination"], rig.path("out/web").to_str().unwrap());
    assert_eq!(file["revision"], status["store"]["revision"]);
    assert!(file["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());

    let ended = rig.run(&["status"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("\nweb: current\n"), "{}", ended.stdout);
    let ended = rig.run(&["status", "--metrics"]);
    assert!(ended.stdout.contains("config_agent_file_good{file=\"web\"} 1\n"), "{}", ended.stdout);

    rig.unset("/web/greeting");
    agent.wait("it has failed", || agent.file("web")["state"] == "failed");
    assert_eq!(rig.run(&["status"]).code, Some(1));
}
