//! The settings of `run`, each with where it comes from, as a file that `--config` reads again.

use std::ffi::OsStr;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches};

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    /// By this variable.
    Environment(String),
    File {
        path: PathBuf,
        line: usize,
    },
    Default,
    /// By default, from this.
    Implied(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(variable) => write!(f, "environment {variable}"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Default => f.write_str("default"),
            Self::Implied(from) => write!(f, "default: {from}"),
        }
    }
}

/// A setting of `run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// The name of the flag, without dashes.
    pub key: String,
    /// The heading of the flag in `--help`.
    pub heading: String,
    pub value: Given,
    pub origin: Origin,
}

/// The value of a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    One(String),
    Many(Vec<String>),
    /// There is none, and no default.
    Nothing,
}

/// All settings of `run`, in the order of `--help`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub list: Vec<Setting>,
    /// Variables that look like settings and are none, each with what may be meant.
    pub unknown: Vec<String>,
}

/// The flags that are settings: neither help, nor those that say what to do with the settings.
pub fn flags(run: &clap::Command) -> impl Iterator<Item = &Arg> {
    let is_setting = |arg: &&Arg| key(arg).is_some_and(|key| !matches!(key, "help" | "config" | "print-config"));
    run.get_arguments().filter(is_setting)
}

/// The name of a flag without dashes.
pub fn key(flag: &Arg) -> Option<&str> {
    flag.get_long()
}

/// Whether a flag may have several values.
pub fn is_list(flag: &Arg) -> bool {
    matches!(flag.get_action(), ArgAction::Append)
}

impl Setting {
    /// A setting as it was parsed. `origin` is that of a value which is no default.
    pub fn read(flag: &Arg, matches: &ArgMatches, origin: Option<Origin>) -> Self {
        let id = flag.get_id().as_str();
        let key = key(flag).unwrap_or(id).to_owned();
        let heading = flag.get_help_heading().unwrap_or_default().to_owned();
        let is_default = !matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable));
        let origin = origin.filter(|_| !is_default).unwrap_or(if is_default { Origin::Default } else { Origin::Flag });
        let text = |value: &OsStr| value.to_string_lossy().into_owned();
        let values: Vec<String> = match matches.try_get_many::<u32>(id) {
            // Suffixes are written out.
            Ok(numbers) => numbers.into_iter().flatten().map(ToString::to_string).collect(),
            Err(_) => matches.get_raw(id).into_iter().flatten().map(text).collect(),
        };
        let value = match values.as_slice() {
            _ if is_list(flag) => Given::Many(values),
            [] => Given::Nothing,
            [.., last] => Given::One(last.clone()),
        };
        Self { key, heading, value, origin }
    }
}

impl Settings {
    /// Fills in a value that follows from something else.
    pub fn imply(&mut self, key: &str, value: String, from: &'static str) {
        if let Some(setting) = self.list.iter_mut().find(|setting| setting.key == key)
            && setting.value == Given::Nothing
        {
            setting.value = Given::One(value);
            setting.origin = Origin::Implied(from);
        }
    }

    /// Where the value of a flag comes from, if it is none of the flags and no default.
    pub fn place(&self, flag: &str) -> Option<String> {
        let setting = self.list.iter().find(|setting| Some(&*setting.key) == flag.strip_prefix("--"))?;
        match &setting.origin {
            Origin::Flag | Origin::Default | Origin::Implied(_) => None,
            origin @ (Origin::Environment(_) | Origin::File { .. }) => Some(origin.to_string()),
        }
    }

    /// The settings as a file.
    pub fn yaml(&self) -> String {
        let mut text = String::from("# The settings of `lb-agent run`. --config reads this file.\n");
        let mut heading = "";
        for Setting { key, heading: own, value, origin } in &self.list {
            if heading != own {
                heading = own;
                let _ = write!(text, "\n# {}\n", if own.is_empty() { "Other" } else { own });
            }
            let _ = match value {
                Given::One(value) => writeln!(text, "{key}: {}  # {origin}", scalar(value)),
                Given::Many(values) => {
                    let values: Vec<_> = values.iter().map(|value| scalar(value)).collect();
                    writeln!(text, "{key}: [{}]  # {origin}", values.join(", "))
                }
                Given::Nothing => writeln!(text, "# {key}: not set"),
            };
        }
        text
    }
}

/// A scalar that any reader of YAML takes for this very text, or for this number.
fn scalar(text: &str) -> String {
    let is_number = text.parse::<u64>().is_ok_and(|number| number.to_string() == text);
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/'))
        && !matches!(&*text.to_ascii_lowercase(), "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null");
    if is_number || is_word { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}
