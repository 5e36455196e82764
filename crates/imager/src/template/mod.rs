//! Packer's JSON templates.

mod builder;
mod interpolate;
mod json;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cli::BadInput;

pub(crate) use builder::{AmazonChroot, Mount};
pub(crate) use interpolate::Values;
pub(crate) use json::{Content, DOING, Options};

/// A template, read and checked as far as that goes without a builder.
pub(crate) struct Template {
    /// Directory against which its relative paths are resolved.
    pub(crate) base: PathBuf,
    path: PathBuf,
    variables: BTreeMap<String, String>,
    sensitive: BTreeSet<String>,
    builders: Vec<(String, Options)>,
    provisioners: Vec<Options>,
}

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
        let mut root = Options::of(path, "the template", json::parse(path, &text)?)?;
        for (name, remedy) in
            [("post-processors", "remove them: `imager` writes its own manifest"), ("min_packer_version", "remove it")]
        {
            if root.node(name).is_some() {
                return Err(root.fault(root.line_of(name), format!("'{name}' is not supported"), remedy).into());
            }
        }
        root.string("description")?;
        let sensitive: BTreeSet<String> = root.strings("sensitive-variables")?.into_iter().collect();
        let variables = variables(&mut root, given)?;
        let builders = builders(&mut root)?;
        let provisioners = root.objects("provisioners")?;
        let provisioners = provisioners.into_iter().map(|node| Options::of(path, "a provisioner", node));
        let provisioners = provisioners.collect::<Result<_>>()?;
        root.finish()?;
        Ok(Self { base: base.to_owned(), path: path.to_owned(), variables, sensitive, builders, provisioners })
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
            let (only, except) = (options.strings("only")?, options.strings("except")?);
            for name in only.iter().chain(&except) {
                if self.builder(name).is_none() {
                    let why = format!("there is no builder '{name}'");
                    let line = options.line_of(if only.contains(name) { "only" } else { "except" });
                    return Err(options.fault(line, why, self.builders_remedy()).into());
                }
            }
            if (only.is_empty() || only.iter().any(|name| name == builder))
                && !except.iter().any(|name| name == builder)
            {
                chosen.push(options);
            }
        }
        Ok(chosen)
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
    pub(crate) fn values(&self, builder: &str, build_type: &str) -> Values {
        Values {
            user: self.variables.clone(),
            env: false,
            fields: BTreeMap::new(),
            build_name: builder.to_owned(),
            build_type: build_type.to_owned(),
            template_dir: self.path.parent().unwrap_or(Path::new(".")).display().to_string(),
            pwd: self.base.display().to_string(),
            now: jiff::Timestamp::now(),
        }
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
        build_name: String::new(),
        build_type: String::new(),
        template_dir: String::new(),
        pwd: String::new(),
        now: jiff::Timestamp::now(),
    };
    values.interpolate(text).map_err(|why| BadInput::new(DOING, format!("'{text}': {why}"), "mend it").into())
}

fn variables(root: &mut Options, given: &GivenVariables) -> Result<BTreeMap<String, String>> {
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
    defaults(root, declared, set)
}

/// Fills in the defaults, which may ask for the environment and for other variables.
fn defaults(
    root: &Options,
    declared: BTreeMap<String, (usize, Option<String>)>,
    set: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>> {
    let mut values = Values {
        user: set,
        env: true,
        fields: BTreeMap::new(),
        build_name: String::new(),
        build_type: String::new(),
        template_dir: root.file().parent().unwrap_or(Path::new(".")).display().to_string(),
        pwd: std::env::current_dir().unwrap_or_default().display().to_string(),
        now: jiff::Timestamp::now(),
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

fn progressed(open: &[(String, (usize, Option<String>))], values: &Values) -> bool {
    open.iter().any(|(_, (_, text))| text.as_ref().is_some_and(|text| values.interpolate(text).is_ok()))
}

fn builders(root: &mut Options) -> Result<Vec<(String, Options)>> {
    let file = root.file().to_owned();
    let mut builders: Vec<(String, Options)> = Vec::new();
    for node in root.objects("builders")? {
        let mut options = Options::of(&file, "a builder", node)?;
        let kind = options.required("type")?;
        if kind != "amazon-chroot" {
            let why = format!("there is no builder type '{kind}'");
            return Err(options.fault(options.line_of("type"), why, "the type is amazon-chroot").into());
        }
        let name = options.string("name")?.unwrap_or(kind);
        let options = options.called(format!("builder '{name}'"));
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
