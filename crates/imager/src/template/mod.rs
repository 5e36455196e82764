//! Packer's JSON templates.

mod amazon;
mod builder;
mod go_layout;
mod interpolate;
mod json;
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::BadInput;
use jiff::Timestamp;

pub(crate) use builder::{Builder, Mount};
pub(crate) use interpolate::Values;
pub(crate) use json::{Content, DOING, Options};
pub(crate) use source::Source;

/// A template, read and checked as far as that goes without a builder.
pub(crate) struct Template {
    /// Directory against which its relative paths are resolved.
    pub(crate) base: PathBuf,
    path: PathBuf,
    variables: BTreeMap<String, String>,
    sensitive: BTreeSet<String>,
    builders: Vec<(String, Options)>,
    provisioners: Vec<Options>,
    post_processors: Vec<Vec<Options>>,
    /// The moment that `timestamp` and `isotime` mean: one for the whole run.
    now: Timestamp,
    /// Packer's name for a run.
    pub(crate) run_uuid: String,
}

/// The builders that there are: Packer's, and the same with names that belong to no provider.
const BUILDER_TYPES: &[&str] = &["amazon-chroot", "chroot"];

/// Options of builders that nobody is shown.
const SECRETS: &[&str] = &["access_key", "secret_key", "token"];

/// The post-processors that there are.
const POST_PROCESSORS: &[&str] = &["manifest", "shell-local"];

/// The version of Packer whose templates these are: what `min_packer_version` is compared with.
const PACKER: [u32; 3] = [1, 16, 0];

/// Values for user variables, in the order of their precedence, lowest first.
#[derive(Debug, Default)]
pub(crate) struct GivenVariables {
    /// What Kiln knows by itself; given only to templates that declare it.
    pub(crate) known: Vec<(String, String)>,
    /// Files of `-var-file`.
    pub(crate) files: Vec<PathBuf>,
    /// `-var name=value`.
    pub(crate) given: Vec<(String, String)>,
}

impl Template {
    /// Reads the template at `path`, whose relative paths start at `base`.
    pub(crate) fn load(path: &Path, base: &Path, given: &GivenVariables) -> Result<Self> {
        let text = fs::read_to_string(path)
            .map_err(|error| BadInput::new(DOING, error.to_string(), "name an existing JSON template").in_file(path))?;
        Self::parse(path, &text, base, given)
    }

    /// Reads a template's text, which is from `path`.
    pub(crate) fn parse(path: &Path, text: &str, base: &Path, given: &GivenVariables) -> Result<Self> {
        let mut root = Options::of(path, "the template", json::parse(path, text)?)?;
        check_version(&mut root)?;
        root.string("description")?;
        let sensitive: BTreeSet<String> = root.strings("sensitive-variables")?.into_iter().collect();
        let now = Timestamp::now();
        let variables = variables(&mut root, given, now)?;
        let builders = builders(&mut root)?;
        let provisioners = root.objects("provisioners")?;
        let provisioners = provisioners.into_iter().map(|node| Options::of(path, "a provisioner", node));
        let provisioners = provisioners.collect::<Result<_>>()?;
        let post_processors = post_processors(&mut root)?;
        if let Some(unknown) = sensitive.iter().find(|name| !variables.contains_key(*name)) {
            let why = format!("the sensitive variable '{unknown}' is not declared");
            let line = root.line_of("sensitive-variables");
            return Err(root.fault(line, why, "declare it in \"variables\"").into());
        }
        root.finish()?;
        Ok(Self {
            base: base.to_owned(),
            path: path.to_owned(),
            variables,
            sensitive,
            builders,
            provisioners,
            post_processors,
            now,
            run_uuid: uuid::Uuid::new_v4().to_string(),
        })
    }

    /// Names of the builders, in order.
    pub(crate) fn builder_names(&self) -> impl Iterator<Item = &str> {
        self.builders.iter().map(|(name, _)| name.as_str())
    }

    /// The options of a builder.
    pub(crate) fn builder(&self, name: &str) -> Option<Options> {
        self.builders.iter().find(|(builder, _)| builder == name).map(|(_, options)| options.clone())
    }

    /// The provisioners that run for `builder`, as they are written.
    pub(crate) fn provisioners(&self, builder: &str) -> Result<Vec<Options>> {
        let mut chosen = Vec::new();
        for options in &self.provisioners {
            let mut options = options.clone();
            let runs = self.runs_for(&mut options, builder)?;
            for (name, line, node) in self.overrides(&mut options)? {
                if name == builder {
                    let Content::Object(members) = node.content else {
                        let why = format!("the override for '{name}' must be an object");
                        return Err(options.fault(line, why, "write it as {…}").into());
                    };
                    options.replace(members);
                }
            }
            if runs {
                chosen.push(options);
            }
        }
        Ok(chosen)
    }

    /// Whether `only` and `except` of a provisioner or post-processor let it run for `builder`.
    fn runs_for(&self, options: &mut Options, builder: &str) -> Result<bool> {
        let (only, except) = (options.strings("only")?, options.strings("except")?);
        for name in only.iter().chain(&except) {
            if self.builder(name).is_none() {
                let why = format!("there is no builder '{name}'");
                let line = options.line_of(if only.contains(name) { "only" } else { "except" });
                return Err(options.fault(line, why, self.builders_remedy()).into());
            }
        }
        Ok((only.is_empty() || only.iter().any(|name| name == builder)) && !except.iter().any(|name| name == builder))
    }

    /// A provisioner's `override`: options by builder.
    fn overrides(&self, options: &mut Options) -> Result<Vec<(String, usize, json::Node)>> {
        let line = options.line_of("override");
        let Some(node) = options.node("override") else { return Ok(Vec::new()) };
        let Content::Object(overrides) = node.content else {
            return Err(options.fault(line, "'override' must be an object", "write it as {\"builder\": {…}}").into());
        };
        match overrides.iter().find(|(name, ..)| self.builder(name).is_none()) {
            Some((unknown, line, _)) => {
                let why = format!("there is no builder '{unknown}' to override options for");
                Err(options.fault(*line, why, self.builders_remedy()).into())
            }
            None => Ok(overrides),
        }
    }

    /// The sequences of post-processors that run for `builder`, as they are written. One that is left out by
    /// `only` and `except` ends its sequence, for what follows works on its result.
    pub(crate) fn post_processors(&self, builder: &str) -> Result<Vec<Vec<Options>>> {
        let mut sequences = Vec::new();
        for sequence in &self.post_processors {
            let mut chosen = Vec::new();
            for options in sequence {
                let mut options = options.clone();
                if !self.runs_for(&mut options, builder)? {
                    break;
                }
                chosen.push(options);
            }
            sequences.push(chosen);
        }
        Ok(sequences)
    }

    /// The type of a builder, such as `amazon-chroot`.
    pub(crate) fn builder_type(&self, builder: &str) -> &str {
        let found = self.builders.iter().find(|(name, _)| name == builder);
        found.map_or("", |(_, options)| options.kind())
    }

    /// Checks that names of `-only` and `-except` are builders, and says which remain.
    pub(crate) fn select(&self, only: &[String], except: &[String]) -> Result<Vec<String>> {
        if let Some(unknown) = only.iter().chain(except).find(|name| self.builder(name).is_none()) {
            return Err(BadInput::new(
                "choosing the builders",
                format!("there is no builder '{unknown}' in {}", self.path.display()),
                self.builders_remedy(),
            )
            .into());
        }
        let chosen = |name: &&str| {
            (only.is_empty() || only.iter().any(|only| only == name)) && !except.iter().any(|except| except == name)
        };
        Ok(self.builder_names().filter(chosen).map(str::to_owned).collect())
    }

    fn builders_remedy(&self) -> String {
        format!("the builders are {}", self.builder_names().collect::<Vec<_>>().join(", "))
    }

    /// What the text of `builder` and its provisioners can ask for.
    pub(crate) fn values(&self, builder: &str) -> Values {
        Values {
            user: self.variables.clone(),
            env: false,
            fields: [("PackerRunUUID", self.run_uuid.clone())].into(),
            source_tags: None,
            build_name: builder.to_owned(),
            build_type: self.builder_type(builder).to_owned(),
            template_dir: directory_of(&self.path),
            pwd: self.base.display().to_string(),
            now: self.now,
        }
    }

    /// The values of the variables, those of sensitive ones replaced.
    pub(crate) fn shown_variables(&self) -> BTreeMap<String, String> {
        let shown = |(name, value): (&String, &String)| {
            (name.clone(), if self.sensitive.contains(name) { "<sensitive>".to_owned() } else { value.clone() })
        };
        self.variables.iter().map(shown).collect()
    }

    /// The template as far as it can be filled in before a build, without sensitive values.
    pub(crate) fn shown(&self, builders: &[String]) -> Result<serde_json::Value> {
        let mut shown = serde_json::Map::new();
        for builder in builders {
            let values = self.without_secrets(&self.values(builder));
            let of = |options: &Options| options.digestible(&values);
            let mut described = self.builder(builder).map_or(serde_json::Value::Null, |options| of(&options));
            for secret in SECRETS.iter().filter(|name| described.get(name).is_some()).collect::<Vec<_>>() {
                described[*secret] = "<sensitive>".into();
            }
            described["type"] = self.builder_type(builder).into();
            described["provisioners"] = self.provisioners(builder)?.iter().map(of).collect();
            let post_processors = self.post_processors(builder)?.into_iter().flatten().map(|options| {
                let mut described = of(&options);
                described["type"] = options.kind().into();
                described
            });
            described["post-processors"] = post_processors.collect();
            shown.insert(builder.clone(), described);
        }
        Ok(serde_json::json!({ "variables": self.shown_variables(), "builders": shown }))
    }

    /// The same with a placeholder for every sensitive value: for layer keys, which must not hold secrets.
    pub(crate) fn without_secrets(&self, values: &Values) -> Values {
        let mut redacted = values.clone();
        for name in &self.sensitive {
            redacted.user.insert(name.clone(), format!("<sensitive:{name}>"));
        }
        redacted
    }

    /// The sensitive values, to be kept out of everything that is shown.
    pub(crate) fn secrets(&self) -> Vec<String> {
        self.sensitive.iter().filter_map(|name| self.variables.get(name).cloned()).collect()
    }
}

/// Fills in fields such as `{{.Device}}` in a text that names nothing else.
pub(crate) fn fields(text: &str, fields: &[(&'static str, &Path)]) -> Result<String> {
    let fields = fields.iter().map(|(name, path)| (*name, path.display().to_string())).collect();
    let values = Values {
        user: BTreeMap::new(),
        env: false,
        fields,
        source_tags: None,
        build_name: String::new(),
        build_type: String::new(),
        template_dir: String::new(),
        pwd: String::new(),
        now: Timestamp::now(),
    };
    values.interpolate(text).map_err(|why| BadInput::new(DOING, format!("'{text}': {why}"), "mend it").into())
}

fn variables(root: &mut Options, given: &GivenVariables, now: Timestamp) -> Result<BTreeMap<String, String>> {
    let mut declared = BTreeMap::new();
    if let Some(node) = root.node("variables") {
        for (name, line, value) in Options::of(root.file(), "variables", node)?.rest() {
            let default = match value.content {
                Content::Null => None,
                Content::String(text) | Content::Number(text) => Some(text),
                Content::Bool(value) => Some(value.to_string()),
                _ => return Err(root.fault(line, format!("variable '{name}' must be a string"), "quote it").into()),
            };
            declared.insert(name, (line, default));
        }
    }
    let mut set = BTreeMap::new();
    for (name, value) in &given.known {
        if declared.contains_key(name) {
            set.insert(name.clone(), value.clone());
        }
    }
    for file in &given.files {
        let text = fs::read_to_string(file).with_context(|| format!("reading the variables in {}", file.display()))?;
        for (name, line, value) in Options::of(file, "the file of variables", json::parse(file, &text)?)?.rest() {
            let (Content::String(text) | Content::Number(text)) = value.content else {
                let why = format!("variable '{name}' must be a string");
                return Err(BadInput::new(DOING, why, "quote it").in_file(file).at_line(line).into());
            };
            set.insert(name, text);
        }
    }
    set.extend(given.given.iter().cloned());
    if let Some(unknown) = set.keys().find(|name| !declared.contains_key(*name)) {
        let why = format!("variable '{unknown}' is given but not declared");
        return Err(BadInput::new(DOING, why, "declare it in \"variables\"").in_file(root.file()).into());
    }
    defaults(root, declared, set, now)
}

/// Fills in the defaults, which may ask for the environment and for other variables.
fn defaults(
    root: &Options,
    declared: BTreeMap<String, (usize, Option<String>)>,
    set: BTreeMap<String, String>,
    now: Timestamp,
) -> Result<BTreeMap<String, String>> {
    let mut values = Values {
        user: set,
        env: true,
        fields: BTreeMap::new(),
        source_tags: None,
        build_name: String::new(),
        build_type: String::new(),
        template_dir: directory_of(root.file()),
        pwd: std::env::current_dir().unwrap_or_default().display().to_string(),
        now,
    };
    let mut open: Vec<_> = declared.into_iter().filter(|(name, _)| !values.user.contains_key(name)).collect();
    while !open.is_empty() {
        let mut later = Vec::new();
        let mut fault = None;
        for (name, (line, default)) in std::mem::take(&mut open) {
            let Some(text) = default else {
                let why = format!("variable '{name}' is required and has no value");
                return Err(root.fault(line, why, format!("give it with -var {name}=…")).into());
            };
            match values.interpolate(&text) {
                Ok(value) => drop(values.user.insert(name, value)),
                Err(why) => {
                    fault.get_or_insert_with(|| root.fault(line, format!("variable '{name}': {why}"), "mend it"));
                    later.push((name, (line, Some(text))));
                }
            }
        }
        // A default may rest on one that comes later; a round without progress is a fault.
        if let Some(fault) = fault.filter(|_| later.len() == open.len() || !progressed(&later, &values)) {
            return Err(fault.into());
        }
        open = later;
    }
    Ok(values.user)
}

/// The directory of a file, as an absolute path.
fn directory_of(file: &Path) -> String {
    let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    absolute.parent().unwrap_or(Path::new("/")).display().to_string()
}

fn progressed(open: &[(String, (usize, Option<String>))], values: &Values) -> bool {
    open.iter().any(|(_, (_, text))| text.as_ref().is_some_and(|text| values.interpolate(text).is_ok()))
}

fn builders(root: &mut Options) -> Result<Vec<(String, Options)>> {
    let file = root.file().to_owned();
    let mut builders: Vec<(String, Options)> = Vec::new();
    for node in root.objects("builders")? {
        let mut options = Options::of(&file, "a builder", node)?;
        let kind = options.required("type")?;
        if !BUILDER_TYPES.contains(&kind.as_str()) {
            let why = format!("there is no builder type '{kind}'");
            let remedy = format!("the types are {}", BUILDER_TYPES.join(" and "));
            return Err(options.fault(options.line_of("type"), why, remedy).into());
        }
        let name = options.string("name")?.unwrap_or_else(|| kind.clone());
        let options = options.called(format!("builder '{name}'")).of_kind(kind);
        if builders.iter().any(|(other, _)| *other == name) {
            let why = format!("there are two builders '{name}'");
            return Err(options.fault(options.line(), why, "give each a \"name\" of its own").into());
        }
        builders.push((name, options));
    }
    if builders.is_empty() {
        return Err(root.fault(root.line(), "there is no builder", "add one to \"builders\"").into());
    }
    Ok(builders)
}

/// Post-processors: each entry of the list is a name, an object, or a list of these that follow one another.
fn post_processors(root: &mut Options) -> Result<Vec<Vec<Options>>> {
    let file = root.file().to_owned();
    let one = |node: json::Node| -> Result<Options> {
        let node = match node.content {
            Content::String(kind) => json::Node::object_of(node.line, "type", kind),
            _ => node,
        };
        let mut options = Options::of(&file, "a post-processor", node)?;
        let kind = options.required("type")?;
        if !POST_PROCESSORS.contains(&kind.as_str()) {
            let why = format!("there is no post-processor type '{kind}'");
            let remedy = format!("the types are {}", POST_PROCESSORS.join(" and "));
            return Err(options.fault(options.line_of("type"), why, remedy).into());
        }
        Ok(options.called(format!("post-processor '{kind}'")).of_kind(kind))
    };
    let mut sequences = Vec::new();
    for node in root.objects("post-processors")? {
        sequences.push(match node.content {
            Content::Array(nodes) => nodes.into_iter().map(one).collect::<Result<_>>()?,
            _ => vec![one(node)?],
        });
    }
    Ok(sequences)
}

/// A template that asks for a later Packer than the one whose format this is might mean something else.
fn check_version(root: &mut Options) -> Result<()> {
    let line = root.line_of("min_packer_version");
    let Some(text) = root.string("min_packer_version")? else { return Ok(()) };
    let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
    let shown = PACKER.map(|number| number.to_string()).join(".");
    match numbers {
        Ok(numbers) if numbers <= PACKER.to_vec() => Ok(()),
        Ok(_) => {
            let why = format!("the template asks for Packer {text}, and this reads templates of Packer {shown}");
            Err(root.fault(line, why, "lower min_packer_version if the template needs nothing newer").into())
        }
        Err(_) => Err(root.fault(line, format!("'{text}' is not a version"), "write it as 1.2.3").into()),
    }
}
