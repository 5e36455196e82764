//! Services on AWS as components ask for them: with a certificate, at another place than where they stand, and behind a
//! classic balancer that does not take the new group.

use std::fs;

use manifest::BalancerKind;
use serde_json::{Value, json};

use crate::aws_region::{Region, SERVICE};
use crate::rig::{Ended, wait_for};

/// A region and a component whose balancer is a classic one.
fn classic() -> Region {
    Region::with(|fleet| {
        fleet.steps = Some(vec![100]);
        fleet.healthy_checks = Some(2);
        fleet.healthy_seconds = Some(60);
        fleet.aws.as_mut().unwrap().balancer.kind = Some(BalancerKind::Classic);
    })
}

/// Gives the component a certificate, deploys it and returns what the balancer has.
fn with_certificate(region: &Region) -> String {
    let certificate = region.emulator.ask("acm", "request_certificate", &json!({"DomainName": "hello.example.com"}));
    let certificate = certificate["CertificateArn"].as_str().unwrap();
    region.change_settings(0, |fleet| fleet["aws"]["balancer"]["certificate"] = json!(certificate));
    assert_eq!(region.run("deploy", 0), "https://hello.example.com/");
    certificate.to_owned()
}

#[test]
fn a_balancer_with_a_certificate_listens_with_https() {
    let region = Region::new();
    let certificate = with_certificate(&region);
    region.assert_serves("hello-local-v000", None, 0);
    let balancers = region.emulator.ask("elbv2", "describe_load_balancers", &json!({}));
    let of = json!({"LoadBalancerArn": balancers["LoadBalancers"][0]["LoadBalancerArn"]});
    let listener = &region.emulator.ask("elbv2", "describe_listeners", &of)["Listeners"][0];
    assert_eq!((&listener["Port"], &listener["Protocol"]), (&json!(443), &json!("HTTPS")));
    assert_eq!(listener["Certificates"], json!([{"CertificateArn": certificate}]));
    assert!(region.ask("deploy", 0).stderr.contains("unchanged: "));
    region.run("destroy", 0);
    region.assert_empty();

    let region = classic();
    let certificate = with_certificate(&region);
    let balancers = region.emulator.ask("elb", "describe_load_balancers", &json!({}));
    let listener = &balancers["LoadBalancerDescriptions"][0]["ListenerDescriptions"][0]["Listener"];
    assert_eq!((&listener["LoadBalancerPort"], &listener["Protocol"]), (&json!(443), &json!("HTTPS")));
    assert_eq!(listener["SSLCertificateId"], certificate);
    // moto says that instances are asked with HTTPS as well.
    let created =
        region.emulator.calls().into_iter().find(|it| it["call"] == "elasticloadbalancing:CreateLoadBalancer");
    let created = &created.unwrap()["parameters"];
    let asked = ["InstanceProtocol", "InstancePort"].map(|name| created[format!("Listeners.member.1.{name}")].as_str());
    assert_eq!(asked, [Some("HTTP"), Some("8000")], "{created:#}");
    region.run("destroy", 0);
    region.assert_empty();
}

#[test]
fn what_all_groups_share_is_not_changed_while_the_service_stands() {
    let region = Region::new();
    region.run("deploy", 0);
    let other = json!({"Name": "example.org", "CallerReference": "2"});
    region.emulator.ask("route53", "create_hosted_zone", &other);
    let path = region.manifest(1);
    let text = fs::read_to_string(&path).unwrap();
    for (key, changed) in [
        ("vpc", json!({"vpc": "vpc-0123456789abcdef0"})),
        ("hosted_zone", json!({"hosted_zone": "example.org"})),
        ("balancer", json!({"balancer": {"scheme": "internal"}})),
        // Where the balancer's subnets are not said, they are the instances'.
        ("balancer", json!({"instances": {"instance_type": "t3.small", "subnets": ["subnet-0123456789abcdef0"]}})),
    ] {
        region.change_settings(1, |fleet| {
            fleet["aws"].as_object_mut().unwrap().extend(changed.as_object().unwrap().clone());
        });
        let before = region.emulator.calls().len();
        let ended = region.ask("deploy", 1);
        assert_eq!(ended.code, Some(2), "{key}: {}", ended.stderr);
        let said = format!("the service {SERVICE} stands with another `{key}` of [deploy.fleet.aws]");
        assert!(
            ended.stderr.contains(&said) && ended.stderr.contains("run `deployer destroy` first"),
            "{}",
            ended.stderr
        );
        let changes = region.changes_since(before);
        assert!(changes.iter().all(|call| call.starts_with("ssm:")), "more than the lock: {changes:?}");
        fs::write(&path, &text).unwrap();
    }
    region.assert_serves("hello-local-v000", None, 0);
    region.run("destroy", 0);
    region.assert_empty();
}

#[test]
fn a_group_that_a_classic_balancer_does_not_take_is_taken_off() {
    let region = classic();
    region.run("deploy", 0);
    let instances = |group: &str| region.look()["groups"][group]["instances"].as_array().cloned().unwrap_or_default();
    let old = instances("hello-local-v000");
    let deployer = region.rig.spawn("deployer", &["deploy", "--manifest", &region.manifest(1)]);
    // It is attached when it has been healthy twice, which takes five seconds at least.
    let new = wait_for("the new group", || Some(instances("hello-local-v001")).filter(|new| new.len() == 2));
    let state = |state: &str, id: &Value| {
        format!("<member><InstanceId>{}</InstanceId><State>{state}</State></member>", id.as_str().unwrap())
    };
    let old_in = old.iter().map(|id| state("InService", id));
    let states: String = old_in.chain(new.iter().map(|id| state("OutOfService", id))).collect();
    let body = format!(
        "<DescribeInstanceHealthResponse><DescribeInstanceHealthResult><InstanceStates>{states}</InstanceStates>\
         </DescribeInstanceHealthResult></DescribeInstanceHealthResponse>"
    );
    region.emulator.script(&json!({
        "call": "elasticloadbalancing:DescribeInstanceHealth", "times": 1000, "do": "answer", "body": body
    }));
    let ended = Ended::of(deployer.wait_with_output().unwrap());
    assert_eq!(ended.code, Some(1), "{}", ended.stderr);
    let said = "did not have all instances of hello-local-v001 in service within 60 s";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert!(ended.stderr.contains("the traffic is with hello-local-v000"), "{}", ended.stderr);
    region.emulator.forget_script();

    let calls = region.emulator.calls().into_iter();
    let mut detached = calls.filter(|call| call["call"] == "autoscaling:DetachLoadBalancers");
    assert!(detached.any(|call| call["parameters"]["AutoScalingGroupName"] == "hello-local-v001"));
    // In moto a balancer has the instances of the group alone that came last.
    let look = region.look();
    assert_eq!(look["groups"].as_object().unwrap().keys().collect::<Vec<_>>(), ["hello-local-v000"], "{look:#}");
    assert_eq!(look["groups"]["hello-local-v000"]["balancers"], json!([SERVICE]), "{look:#}");
    assert_eq!(look["instances"], json!(old), "{look:#}");
    assert_eq!(region.status_of_carrier(), "hello-local-v000");
    region.run("deploy", 1);
    assert_eq!(region.status_of_carrier(), "hello-local-v002");
    region.run("destroy", 0);
    region.assert_empty();
}
