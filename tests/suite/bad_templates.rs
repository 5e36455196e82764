//! What is wrong in a template is said with its line, and nothing is created.

use std::fs;

use crate::rig::Rig;

const BUILDER: &str = r#"{"name": "b", "type": "amazon-chroot", "source_ami": "bookworm", "ami_name": "image-b"}"#;

/// A template with a good builder and these further members.
fn with(members: &str) -> String {
    format!("{{ \"builders\": [{BUILDER}],\n{members} }}")
}

/// A template with a builder of these options.
fn builder(options: &str) -> String {
    format!("{{ \"builders\": [\n{{ \"type\": \"amazon-chroot\", {options} }}] }}")
}

#[test]
fn every_fault_names_its_line_and_what_to_do() {
    let rig = Rig::new();
    let component = rig.small_component();
    rig.build_artifact(&component);
    let manifest = fs::read(rig.manifest_path()).unwrap();
    let good = r#""source_ami": "bookworm", "ami_name": "image""#;
    let cases = [
        ("{".to_owned(), ":1: Unterminated object"),
        (String::new(), ":1: the file is empty"),
        ("[]".into(), ":1: the template must be an object"),
        ("{ \"builders\": [],\n}".into(), ":1: Trailing commas are not allowed"),
        ("{ 'builders': [] }".into(), ":1: "),
        ("{\n}".into(), ":1: there is no builder"),
        (
            with("\"provisioner\": []"),
            ":2: the template has no option 'provisioner' here; did you mean 'provisioners'?",
        ),
        (with("\"post-processors\": [\"amazon-import\"]"), ":2: there is no post-processor type 'amazon-import'"),
        (
            with("\"variables\": {\n\"v\": null }"),
            ":3: variable 'v' is required and has no value; give it with -var v=…",
        ),
        (
            with("\"variables\": {\n\"v\": \"{{user `w`}}\" }"),
            ":3: variable 'v': {{user `w`}}: there is no variable 'w'",
        ),
        (with("\"variables\": {\n\"v\": {} }"), ":3: variable 'v' must be a string"),
        ("{ \"builders\": [\n{ \"type\": \"docker\" }] }".into(), ":2: there is no builder type 'docker'"),
        (builder("\"ami_name\": \"image\""), ":2: builder 'amazon-chroot' needs the option 'source_ami'"),
        (builder("\"source_ami\": \"bookworm\""), ":2: builder 'amazon-chroot' needs the option 'ami_name'"),
        (
            builder("\"source_ami\": \"bookwrm\", \"ami_name\": \"image\""),
            ":2: there is no image 'bookwrm'; `imager images`",
        ),
        (builder("\"source_ami\": \"bookworm\", \"ami_name\": \"a:b:c\""), ":2: 'a:b:c' cannot be an image's name"),
        (
            builder(&format!("{good},\n\"from_scratch\": true")),
            ":2: 'source_ami', 'source_ami_filter' and 'from_scratch' exclude each other",
        ),
        (
            builder(&format!("{good},\n\"copy_file\": []")),
            ":3: builder 'amazon-chroot' has no option 'copy_file' here; did you mean 'copy_files'?",
        ),
        (
            builder(&format!("{good},\n\"chroot_mounts\": [[\"proc\"]]")),
            ":3: a chroot mount must be a list of three strings",
        ),
        (
            builder(&format!("{good},\n\"ami_virtualization_type\": \"xen\"")),
            ":3: there is no virtualization type 'xen'",
        ),
        (with("\"provisioners\": [\n{ \"type\": \"puppet\" }]"), ":3: there is no provisioner type 'puppet'"),
        (
            with("\"provisioners\": [\n{ \"type\": \"shell\" }]"),
            ":3: provisioner 'shell' needs either 'inline' or 'script'",
        ),
        (
            with("\"provisioners\": [\n{ \"type\": \"shell\", \"script\": \"no.sh\" }]"),
            ":3: script 'no.sh': No such file",
        ),
        (
            with("\"provisioners\": [\n{ \"type\": \"shell\", \"inline\": [\"x\"],\n\"inlin\": 1 }]"),
            ":4: provisioner 'shell' has no option 'inlin' here; did you mean 'inline'?",
        ),
        (
            with("\"provisioners\": [\n{ \"type\": \"shell\", \"inline\": [\"{{usr}}\"] }]"),
            ":3: inline: {{usr}}: there is no function 'usr'",
        ),
        (
            with("\"provisioners\": [\n{ \"type\": \"shell\", \"inline\": [\"x\"], \"only\": [\"c\"] }]"),
            ":3: there is no builder 'c'; the builders are b",
        ),
        (
            with("\"provisioners\": [\n{ \"type\": \"ansible-local\", \"playbook_file\": \"site.yml\" }]"),
            ":3: playbook_file 'site.yml': No such file",
        ),
        (
            with("\"provisioners\": [\n{ \"type\": \"file\", \"source\": \".\", \"destination\": \"srv\" }]"),
            ":3: destination 'srv' is not absolute",
        ),
    ];
    for (template, expected) in cases {
        let ended = rig.provision(&template, &[]);
        assert_eq!(ended.code, Some(2), "{template}\n{}", ended.stderr);
        let expected = format!("error: reading the image template: {}/template.json{expected}", rig.path().display());
        assert!(ended.stderr.contains(&expected), "{template}\nexpected {expected}\nfound    {}", ended.stderr);
        assert_eq!(ended.stderr.matches("error:").count(), 1, "{}", ended.stderr);
    }
    assert_eq!(fs::read(rig.manifest_path()).unwrap(), manifest);
    assert!(!rig.state().join("volumes").exists() && !rig.state().join("layers").exists());
}

#[test]
fn a_manifest_that_cannot_be_used_is_refused() {
    let rig = Rig::new();
    let component = rig.small_component();
    let refused = |expected: &str| {
        let ended = rig.ask("imager", &["provision"]);
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains(expected), "expected {expected}\nfound {}", ended.stderr);
    };
    refused("no manifest at");
    fs::write(rig.manifest_path(), "{\n  \"schema_version\": 99\n}\n").unwrap();
    refused("its schema_version is 99, and this build knows up to 1");
    fs::write(rig.manifest_path(), "{\n  \"schema_version\": 1,\n  \"component\": 7\n}\n").unwrap();
    refused("manifest.json:3:");
    fs::remove_file(rig.manifest_path()).unwrap();
    rig.build_artifact(&component);
    let ended = rig.ask("imager", &["snapshot"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("it has no volume yet; run `imager provision` first"), "{}", ended.stderr);
}
