//! Templates: the Jinja2 that Ansible's users write, by minijinja.
//!
//! They are read once, at the start, and belong to the image: a template that changes on the disk of a running machine
//! changes nothing.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, Value};

use crate::bad_input::BadInput;
use crate::toml_file::nearest;

const DOING: &str = "reading a template";

/// Every template of the agent. They are kept as text and compiled for each rendering, which takes microseconds;
/// compiled, each would take ten kilobytes.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
    texts: HashMap<PathBuf, String>,
}

impl Templates {
    /// Without any template yet.
    pub fn new() -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // As Ansible's template module does it: a line with only a block leaves no line, and the last newline stays.
        let mut syntax = SyntaxConfig::builder();
        syntax.trim_blocks(true).keep_trailing_newline(true);
        environment.set_syntax(syntax.build().unwrap_or_default());
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        // Methods of Python's strings, lists and dicts, such as `.items()` and `.split(',')`.
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        // A template is one file: what it includes would be read when it is rendered.
        environment.add_filter("to_json", to_json);
        environment.add_filter("to_nice_json", to_nice_json);
        environment.add_filter("from_json", from_json);
        environment.add_filter("quote", quote);
        Self { environment, texts: HashMap::new() }
    }

    /// Reads and compiles the template at `path`, which has the variables `known`.
    pub fn load<'a>(&mut self, path: &Path, known: impl Iterator<Item = &'a str> + Clone) -> Result<(), BadInput> {
        let name = path.display().to_string();
        let complaint = |why: String, remedy: &str| BadInput::new(DOING, why, remedy).in_file(path);
        let text = fs::read_to_string(path).map_err(|error| {
            let remedy = match error.kind() {
                io::ErrorKind::NotFound => "check the path; templates are part of the image",
                _ => "check that it is a file of text",
            };
            complaint(format!("it cannot be read ({error})"), remedy)
        })?;
        let template = self
            .environment
            .template_from_named_str(&name, &text)
            .map_err(|error| complaint(described(&error), "mend the line").at_line(error.line()))?;
        let globals: Vec<_> = self.environment.globals().map(|(name, _)| name.to_owned()).collect();
        let mut unknown: Vec<_> = template.undeclared_variables(false).into_iter().collect();
        unknown.retain(|name| !known.clone().any(|known| known == name) && !globals.contains(name));
        unknown.sort_unstable();
        if let Some(unknown) = unknown.first() {
            let line = text.lines().position(|line| line.contains(unknown.as_str())).map(|index| index + 1);
            let why = format!("the variable '{unknown}' is not in [values] of the file that uses this template");
            return Err(complaint(why, &nearest(unknown, known)).at_line(line));
        }
        self.texts.insert(path.to_owned(), text);
        Ok(())
    }

    /// Renders a template that was loaded. The error says where and why it cannot be.
    pub fn render(&self, path: &Path, variables: Value) -> Result<String, String> {
        let text = self.texts.get(path).map(String::as_str).unwrap_or_default();
        let name = path.display().to_string();
        let template = self.environment.template_from_named_str(&name, text);
        let rendered = template.and_then(|template| template.render(variables));
        rendered.map_err(|error| {
            let line = error.line().map(|line| format!(":{line}")).unwrap_or_default();
            format!("rendering {}{line}: {}", path.display(), described(&error))
        })
    }
}

fn described(error: &Error) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    }
}

fn from_json(text: &str) -> Result<Value, Error> {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) => Ok(Value::from(Serde(value))),
        Err(error) => {
            Err(Error::new(ErrorKind::InvalidOperation, format!("from_json: the value is not JSON ({error})")))
        }
    }
}

fn to_json(value: &Value) -> Result<String, Error> {
    serde_json::to_string(value).map_err(not_json)
}

fn to_nice_json(value: &Value) -> Result<String, Error> {
    let mut bytes = Vec::new();
    // Four spaces, as Ansible has it.
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    serde::Serialize::serialize(value, &mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        .map_err(not_json)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// One word for a shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\"'\"'"))
}

fn not_json(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::InvalidOperation, "the value cannot be JSON").with_source(error)
}

#[cfg(test)]
mod tests {
    use minijinja::context;

    use super::*;

    fn load(text: &str, known: &[&str]) -> Result<(Templates, tempfile::NamedTempFile), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        let mut templates = Templates::new();
        let loaded = templates.load(file.path(), known.iter().copied());
        loaded.map_err(|error| error.to_string().replace(&file.path().display().to_string(), "T"))?;
        Ok((templates, file))
    }

    fn render(text: &str, variables: Value) -> String {
        let (templates, file) = load(text, &["a", "hosts"]).unwrap();
        templates.render(file.path(), variables).unwrap()
    }

    #[test]
    fn what_ansible_users_write() {
        let hosts = context! { hosts => context! { a => "1", b => "2" }, a => "x,y" };
        let text =
            "{% for name, address in hosts.items() %}\n{{ name }}={{ address }}\n{% endfor %}\n{{ a.split(',')[1] }}\n";
        assert_eq!(render(text, hosts), "a=1\nb=2\ny\n");
        let json = context! { a => "{\"port\": 80, \"tags\": [\"x\"]}" };
        assert_eq!(render("{{ (a | from_json).port }} {{ (a | from_json).tags | to_json }}", json), "80 [\"x\"]");
        assert_eq!(render("{{ a | default('d') | upper }} <&>", context! { a => "v" }), "V <&>");
        assert_eq!(render("{{ a | quote }}", context! { a => "it's" }), "'it'\"'\"'s'");
        assert_eq!(render("{{ {'k': a} | to_nice_json }}", context! { a => "v" }), "{\n    \"k\": \"v\"\n}");
    }

    #[test]
    fn faults_are_found_before_anything_is_rendered() {
        assert_eq!(
            load("ok\n{{ grreeting }}\n", &["greeting", "a"]).unwrap_err(),
            "reading a template: T:2: the variable 'grreeting' is not in [values] of the file that uses this template; \
             did you mean 'greeting'?"
        );
        let error = load("{% for x in y %}\n", &["y"]).unwrap_err();
        assert!(error.starts_with("reading a template: T:") && error.ends_with("; mend the line"), "{error}");
        assert!(load("{% for x in a %}{{ x }}{{ range(3) }}{% endfor %}", &["a"]).is_ok());
    }

    #[test]
    fn undefined_is_an_error_with_its_line() {
        let (templates, file) = load("\n{{ a.port }}\n", &["a"]).unwrap();
        let error = templates.render(file.path(), context! { a => context! {} }).unwrap_err();
        assert!(error.contains(":2: undefined value"), "{error}");
    }
}
