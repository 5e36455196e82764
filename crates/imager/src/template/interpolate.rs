//! Packer's template language: the subset of Go's text/template that its users use.
//!
//! `{{user `name`}}`, `{{.Device}}`, `{{timestamp}}`, `{{upper (user `name`)}}` and
//! pipelines such as `{{user `name` | lower}}`.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::go_layout;

/// Values that a template's text can ask for.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    /// User variables; `None` inside the variables' own defaults, where only `env` makes sense.
    pub(crate) user: BTreeMap<String, String>,
    /// Whether `env` is allowed, as it is in the defaults of variables only.
    pub(crate) env: bool,
    /// Fields: `{{.Name}}`.
    pub(crate) fields: BTreeMap<&'static str, String>,
    /// `{{.SourceAMITags}}`, once the source image is known.
    pub(crate) source_tags: Option<BTreeMap<String, String>>,
    /// `{{build_name}}`
    pub(crate) build_name: String,
    /// `{{build_type}}`
    pub(crate) build_type: String,
    /// `{{template_dir}}`
    pub(crate) template_dir: String,
    /// `{{pwd}}`
    pub(crate) pwd: String,
    /// The moment that `timestamp` and `isotime` mean: one for the whole run.
    pub(crate) now: Timestamp,
}

impl Values {
    /// Replaces every `{{…}}` in `text`. An error says what is wrong within the braces.
    pub(crate) fn interpolate(&self, text: &str) -> Result<String, String> {
        let mut result = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((inside, after)) = closing(after).map(|end| (&after[..end], &after[end + 2..])) else {
                return Err(format!("'{{{{' without '}}}}' in '{text}'"));
            };
            let trimmed = inside.trim_start_matches("- ").trim_end_matches(" -");
            result.push_str(if inside.starts_with("- ") { before.trim_end() } else { before });
            result.push_str(&self.pipeline(trimmed).map_err(|why| format!("{{{{{inside}}}}}: {why}"))?);
            rest = if inside.ends_with(" -") { after.trim_start() } else { after };
        }
        result.push_str(rest);
        Ok(result)
    }

    fn pipeline(&self, text: &str) -> Result<String, String> {
        let mut tokens = tokens(text)?.into_iter().peekable();
        let mut piped = None;
        loop {
            let value = self.call(&mut tokens, piped.take())?;
            match tokens.next() {
                None => return Ok(value),
                Some(Token::Pipe) => piped = Some(value),
                Some(other) => return Err(format!("unexpected {other:?}")),
            }
        }
    }

    fn call(&self, tokens: &mut Tokens, piped: Option<String>) -> Result<String, String> {
        let name = match tokens.next() {
            Some(Token::Word(name)) => name,
            Some(Token::Text(text)) if piped.is_none() => return Ok(text),
            Some(Token::Open) if piped.is_none() => return self.group(tokens),
            _ => return Err("a function or a field is missing".into()),
        };
        if name == "index" {
            return self.index(tokens, piped);
        }
        let mut arguments = Vec::new();
        loop {
            match tokens.peek() {
                None | Some(Token::Pipe | Token::Close) => break,
                Some(_) => arguments.push(self.argument(tokens)?),
            }
        }
        arguments.extend(piped);
        self.apply(&name, &arguments)
    }

    /// `index .SourceAMITags "Name"`: the only map that there is.
    fn index(&self, tokens: &mut Tokens, piped: Option<String>) -> Result<String, String> {
        match (tokens.next(), &self.source_tags) {
            (Some(Token::Word(map)), Some(tags)) if map == ".SourceAMITags" => {
                let key = if piped.is_some() { piped } else { Some(self.argument(tokens)?) };
                Ok(key.and_then(|key| tags.get(&key).cloned()).unwrap_or_default())
            }
            _ => Err("index works on .SourceAMITags, in a builder that has a source image".into()),
        }
    }

    fn argument(&self, tokens: &mut Tokens) -> Result<String, String> {
        match tokens.next() {
            Some(Token::Text(text)) => Ok(text),
            Some(Token::Open) => self.group(tokens),
            Some(Token::Word(word)) if word.parse::<i64>().is_ok() => Ok(word),
            Some(Token::Word(word)) => self.apply(&word, &[]),
            _ => Err("an argument is missing".into()),
        }
    }

    fn group(&self, tokens: &mut Tokens) -> Result<String, String> {
        let value = self.call(tokens, None)?;
        match tokens.next() {
            Some(Token::Close) => Ok(value),
            _ => Err("')' is missing".into()),
        }
    }

    fn apply(&self, name: &str, arguments: &[String]) -> Result<String, String> {
        if let Some(field) = name.strip_prefix('.') {
            return self.field(field).ok_or_else(|| format!("there is no .{field} here"));
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        match (name, &arguments[..]) {
            ("user", [variable]) => self
                .user
                .get(*variable)
                .cloned()
                .ok_or_else(|| format!("there is no variable '{variable}': declare it in \"variables\"")),
            ("env", [variable]) if self.env => Ok(std::env::var(variable).unwrap_or_default()),
            ("env", _) => {
                Err("env works in the defaults of variables only: declare a variable and use {{user …}}".into())
            }
            ("timestamp", []) => Ok(self.now.as_second().to_string()),
            ("isotime", []) => go_layout::format(self.now, "2006-01-02T15:04:05Z07:00"),
            ("isotime", [layout]) => go_layout::format(self.now, layout),
            ("build", [field]) => {
                self.field(field).ok_or_else(|| format!("'{field}' is not known of a build; there are {BUILD_DATA}"))
            }
            ("strftime", [format]) => Ok(self.now.strftime(*format).to_string()),
            ("uuid", []) => Ok(uuid::Uuid::new_v4().to_string()),
            ("build_name", []) => Ok(self.build_name.clone()),
            ("build_type", []) => Ok(self.build_type.clone()),
            ("template_dir", []) => Ok(self.template_dir.clone()),
            ("pwd", []) => Ok(self.pwd.clone()),
            ("upper", [text]) => Ok(text.to_uppercase()),
            ("lower", [text]) => Ok(text.to_lowercase()),
            ("replace_all", [old, new, text]) => Ok(text.replace(old, new)),
            ("replace", [old, new, count, text]) => {
                let count = count.parse::<i64>().map_err(|_| format!("'{count}' is not a number"))?;
                Ok(usize::try_from(count)
                    .map_or_else(|_| text.replace(old, new), |count| text.replacen(old, new, count)))
            }
            ("split", [text, separator, index]) => {
                let index = index.parse::<usize>().map_err(|_| format!("'{index}' is not a number"))?;
                text.split(separator).nth(index).map(str::to_owned).ok_or_else(|| format!("there is no part {index}"))
            }
            ("clean_resource_name", [text]) => Ok(clean_resource_name(text)),
            _ if FUNCTIONS.contains(&name) => Err(format!("{name} does not take {} arguments", arguments.len())),
            _ => Err(format!("there is no function '{name}'; there are {}", FUNCTIONS.join(", "))),
        }
    }
}

impl Values {
    /// A field, and of the map of tags Go's way of writing it or one of its members.
    fn field(&self, name: &str) -> Option<String> {
        match (name.strip_prefix("SourceAMITags"), &self.source_tags) {
            (Some(""), Some(tags)) => {
                let tags: Vec<_> = tags.iter().map(|(name, value)| format!("{name}:{value}")).collect();
                Some(format!("map[{}]", tags.join(" ")))
            }
            (Some(member), Some(tags)) => Some(tags.get(member.strip_prefix('.')?).cloned().unwrap_or_default()),
            _ => self.fields.get(name).cloned(),
        }
    }
}

/// What `{{build …}}` knows, for messages.
const BUILD_DATA: &str =
    "SourceAMI, SourceAMIName, SourceAMITags, BuildRegion, PackerRunUUID and, in shell-local, Device and MountPath";

const FUNCTIONS: &[&str] = &[
    "build",
    "index",
    "user",
    "env",
    "timestamp",
    "isotime",
    "strftime",
    "uuid",
    "build_name",
    "build_type",
    "template_dir",
    "pwd",
    "upper",
    "lower",
    "replace",
    "replace_all",
    "split",
    "clean_resource_name",
];

/// Where the `}}` is that ends an action: one within a string does not.
fn closing(text: &str) -> Option<usize> {
    let mut within = None;
    let mut escaped = false;
    for (offset, c) in text.char_indices() {
        match within {
            None if text[offset..].starts_with("}}") => return Some(offset),
            None if c == '`' || c == '"' => within = Some(c),
            Some('"') if c == '\\' && !escaped => {
                escaped = true;
                continue;
            }
            Some(quote) if c == quote && !escaped => within = None,
            _ => {}
        }
        escaped = false;
    }
    // An unfinished string is told by who reads what is inside.
    text.find("}}").filter(|_| within.is_some())
}

/// What EC2 allows in an image's name; anything else becomes a dash.
fn clean_resource_name(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "()[] ./-'@_".contains(c);
    text.chars().map(|c| if allowed(c) { c } else { '-' }).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Pipe,
    Open,
    Close,
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Token>>;

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut found = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '|' | '(' | ')' => {
                found.push(match first {
                    '|' => Token::Pipe,
                    '(' => Token::Open,
                    _ => Token::Close,
                });
                &rest[1..]
            }
            '`' => {
                let (inside, after) = rest[1..].split_once('`').ok_or("'`' without its end")?;
                found.push(Token::Text(inside.to_owned()));
                after
            }
            '"' => {
                // Go's interpreted string literals have JSON's escapes.
                let mut values = serde_json::Deserializer::from_str(rest).into_iter::<String>();
                let inside = values.next().and_then(Result::ok).ok_or("'\"' without its end")?;
                found.push(Token::Text(inside));
                &rest[values.byte_offset()..]
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "|()`\"".contains(c)).unwrap_or(rest.len());
                found.push(Token::Word(rest[..end].to_owned()));
                &rest[end..]
            }
        }
        .trim_start();
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            user: [("name".to_owned(), "My Service".to_owned())].into(),
            env: false,
            fields: [("Device", "/dev/loop7".to_owned()), ("SourceAMI", "img-1".to_owned())].into(),
            source_tags: Some([("Name".to_owned(), "base".to_owned()), ("v".to_owned(), "1".to_owned())].into()),
            build_name: "hvm".into(),
            build_type: "amazon-chroot".into(),
            template_dir: "/t".into(),
            pwd: "/w".into(),
            now: Timestamp::from_second(1_453_293_673).unwrap(),
        }
    }

    #[test]
    fn what_templates_write_is_replaced() {
        for (text, expected) in [
            ("plain", "plain"),
            ("{{user `name`}}", "My Service"),
            ("a {{ user \"name\" | lower }} b", "a my service b"),
            ("{{upper (user `name`)}}", "MY SERVICE"),
            ("{{.Device}}-{{build_name}}", "/dev/loop7-hvm"),
            ("{{timestamp}}", "1453293673"),
            ("{{isotime}}", "2016-01-20T12:41:13Z"),
            ("{{isotime \"20060102-1504\"}}", "20160120-1241"),
            ("{{isotime `2006` | clean_resource_name}}", "2016"),
            ("{{strftime `%Y.%m`}}", "2016.01"),
            ("{{replace `e` `E` 1 `here`}}", "hEre"),
            ("{{build `SourceAMI`}} {{.SourceAMI}}", "img-1 img-1"),
            ("{{.SourceAMITags}}", "map[Name:base v:1]"),
            ("{{.SourceAMITags.Name}} {{index .SourceAMITags `v`}}", "base 1"),
            ("{{template_dir}} {{pwd}} {{build_type}}", "/t /w amazon-chroot"),
            ("{{replace_all ` ` `-` (user `name`)}}", "My-Service"),
            ("{{split `a,b` `,` 1}}", "b"),
            ("{{clean_resource_name `a:b`}}", "a-b"),
            ("{{ `{{` }}", "{{"),
            ("{{ `{{.Names}}` }} {{upper \"a}}\\\"\"}}", "{{.Names}} A}}\""),
        ] {
            assert_eq!(values().interpolate(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, expected) in [
            ("{{user `nme`}}", "there is no variable 'nme'"),
            ("{{env `HOME`}}", "env works in the defaults of variables only"),
            ("{{usr `name`}}", "there is no function 'usr'"),
            ("{{user}}", "user does not take 0 arguments"),
            ("{{.Devise}}", "there is no .Devise here"),
            ("{{build `Host`}}", "'Host' is not known of a build"),
            ("{{vault `a` `b`}}", "there is no function 'vault'"),
            ("{{user `name`", "'{{' without '}}'"),
            ("{{user `name}}", "'`' without its end"),
            ("{{upper (user `name`}}", "')' is missing"),
        ] {
            let found = values().interpolate(text).unwrap_err();
            assert!(found.contains(expected), "{text}: {found}");
        }
    }
}
