//! Flags before the environment, the environment before the file, the file before defaults.
//!
//! A value of the environment or of the file is tried as a flag on its own, so that one parser judges all values, and
//! an error names the place.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Parser};

use super::settings::{flags, is_list, key};
use super::{Origin, Setting, Settings};
use crate::likely::likely;
use crate::source::settings::{self as file, Value};

/// The beginning of all our variables.
const PREFIX: &str = "LB_AGENT_";
/// The older name of `LB_AGENT_NODE_NAME`, as manifests have it.
const NODE_NAME: &str = "NODE_NAME";
const RUN: &str = "run";

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Also help and version.
    #[error(transparent)]
    Arguments(#[from] clap::Error),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Settings(Vec<Mistake>),
}

/// A mistake outside the command line.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct Mistake {
    /// A variable, or a file with the line.
    pub place: String,
    pub problem: String,
}

/// A value that is no flag.
struct Layered {
    id: String,
    origin: Origin,
    words: Vec<OsString>,
}

/// Reads the arguments. The environment and the file concern `run` only.
pub fn parse<L: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Vec<(OsString, OsString)>,
) -> Result<(L, Settings), Error> {
    let mut arguments: Vec<OsString> = arguments.into_iter().collect();
    let strict = L::command();
    // What is required may be in the file.
    let lenient = strict.clone().mut_subcommand(RUN, |run| run.mut_args(|flag| flag.required(false)));
    let matches = lenient.clone().try_get_matches_from(&arguments)?;
    let Some(given) = matches.subcommand_matches(RUN) else {
        let matches = strict.try_get_matches_from(&arguments)?;
        return Ok((L::from_arg_matches(&matches)?, Settings::default()));
    };
    let run = lenient.find_subcommand(RUN).expect("it matched");
    let (layered, unknown) = layered(&lenient, given, environment)?;
    let wrong: Vec<Mistake> = layered.iter().filter_map(|value| value.mistake(&lenient)).collect();
    if !wrong.is_empty() {
        return Err(Error::Settings(wrong));
    }
    let mut origins = BTreeMap::new();
    for Layered { id, origin, words } in layered {
        arguments.extend(words);
        origins.insert(id, origin);
    }
    let matches = strict.try_get_matches_from(&arguments)?;
    let of_run = matches.subcommand_matches(RUN).expect("it matched");
    let list = flags(run).map(|flag| Setting::read(flag, of_run, origins.remove(flag.get_id().as_str()))).collect();
    Ok((L::from_arg_matches(&matches)?, Settings { list, unknown }))
}

/// The values of the environment, and those of the file for what neither it nor the command line sets. Also the
/// variables that are not known.
fn layered(
    lenient: &clap::Command,
    given: &ArgMatches,
    environment: Vec<(OsString, OsString)>,
) -> Result<(Vec<Layered>, Vec<String>), Error> {
    let run = lenient.find_subcommand(RUN).expect("it matched");
    let is_given = |flag: &Arg| given.value_source(flag.get_id().as_str()) == Some(ValueSource::CommandLine);
    let variables: BTreeMap<String, OsString> =
        environment.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
    let mut layered = Vec::new();
    for flag in flags(run).filter(|flag| !is_given(flag)) {
        let name = variable(key(flag).unwrap_or_default());
        let older = (name == "LB_AGENT_NODE_NAME").then_some(NODE_NAME);
        let found = [&*name].into_iter().chain(older).find_map(|name| variables.get_key_value(name));
        if let Some((name, value)) = found {
            layered.push(Layered::new(flag, Origin::Environment(name.clone()), vec![value.clone()]));
        }
    }
    if let Some(path) = given.get_one::<PathBuf>("config") {
        let is_set = |flag: &Arg| is_given(flag) || layered.iter().any(|value| flag.get_id() == &*value.id);
        let of_file = of_file(lenient, path, is_set)?;
        layered.extend(of_file);
    }
    let known: Vec<String> = flags(run).filter_map(key).map(variable).chain([variable("config")]).collect();
    Ok((layered, unknown(&known, variables.keys())))
}

/// The values of the file, as far as nothing else sets them. All keys are looked at.
fn of_file(lenient: &clap::Command, path: &Path, is_set: impl Fn(&Arg) -> bool) -> Result<Vec<Layered>, Error> {
    let run = lenient.find_subcommand(RUN).expect("it matched");
    let whole = |problem: String| Error::Settings(vec![Mistake { place: path.display().to_string(), problem }]);
    let at = |line: usize, problem: String| Mistake { place: format!("{}:{line}", path.display()), problem };
    let text = std::fs::read_to_string(path).map_err(|error| whole(format!("--config cannot be read: {error}")))?;
    let entries = file::read(&text).map_err(|fault| Error::Settings(vec![at(fault.line, fault.problem)]))?;
    let (mut layered, mut wrong) = (Vec::new(), Vec::new());
    for file::Entry { key: name, line, value } in entries {
        let Some(flag) = flags(run).find(|flag| is_named(flag, &name)) else {
            wrong.push(at(line, format!("{name}: {}", no_setting(&name, flags(run).filter_map(key)))));
            continue;
        };
        let origin = Origin::File { path: path.to_owned(), line };
        let value = Layered::new(flag, origin, words(flag, value));
        let is_repeated = layered.iter().any(|other: &Layered| other.id == value.id);
        if is_repeated {
            let problem = format!("{name}: is another name of a setting above: keep one of them");
            wrong.push(at(line, problem));
        }
        // What does not count is judged as well: it counts once the flag is gone.
        layered.push(value);
    }
    wrong.extend(layered.iter().filter_map(|value| value.mistake(lenient)));
    if !wrong.is_empty() {
        return Err(Error::Settings(wrong));
    }
    let counts = |value: &Layered| !flags(run).any(|flag| flag.get_id() == &*value.id && is_set(flag));
    layered.retain(counts);
    Ok(layered)
}

/// The texts of a value. Where a flag takes a list in one text, commas separate.
fn words(flag: &Arg, value: Value) -> Vec<OsString> {
    match value {
        Value::One(text) => vec![text.into()],
        Value::Many(texts) if is_list(flag) => texts.into_iter().map(OsString::from).collect(),
        Value::Many(texts) => vec![texts.join(",").into()],
    }
}

fn is_named(flag: &Arg, name: &str) -> bool {
    key(flag) == Some(name) || flag.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

/// The variables that may be settings, in order.
pub fn ours(environment: Vec<(OsString, OsString)>) -> Vec<(String, String)> {
    let text = |value: OsString| value.to_string_lossy().into_owned();
    let all = environment.into_iter().map(|(name, value)| (text(name), text(value)));
    let mut ours: Vec<_> = all.filter(|(name, _)| name.starts_with(PREFIX) || name == NODE_NAME).collect();
    ours.sort();
    ours
}

/// The variable of a setting.
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('-', "_").to_ascii_uppercase())
}

/// That a name is no setting, and which one may be meant.
fn no_setting<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    match likely(name, known) {
        Some(meant) => format!("is no setting: did you mean {meant}?"),
        None => "is no setting: `lb-agent run --print-config` lists all".to_owned(),
    }
}

/// A text for each variable that looks like ours and is not known.
fn unknown<'a>(known: &[String], variables: impl Iterator<Item = &'a String>) -> Vec<String> {
    let ours = variables.filter(|name| name.starts_with(PREFIX) && !known.contains(name) && !is_of_a_service(name));
    ours.map(|name| format!("{name}: {}", no_setting(name, known.iter().map(String::as_str)))).collect()
}

/// Whether the kubelet sets the variable, for a Service whose name begins as ours.
fn is_of_a_service(name: &str) -> bool {
    let of_link = |rest: &str| rest.split('_').next().is_some_and(|port| port.parse::<u16>().is_ok());
    name.ends_with("_PORT")
        || name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.split_once("_PORT_").is_some_and(|(_, rest)| of_link(rest))
}

impl Layered {
    fn new(flag: &Arg, origin: Origin, values: Vec<OsString>) -> Self {
        let id = flag.get_id().as_str().to_owned();
        let name = format!("--{}", key(flag).unwrap_or(&id));
        let word = |value: OsString| {
            if !matches!(flag.get_action(), ArgAction::SetTrue) {
                let mut word = OsString::from(format!("{name}="));
                word.push(value);
                return Some(word);
            }
            match value.to_str() {
                Some("false") => None,
                Some("true") => Some(name.clone().into()),
                // clap refuses it.
                _ => Some(format!("{name}={}", value.to_string_lossy()).into()),
            }
        };
        Self { words: values.into_iter().filter_map(word).collect(), id, origin }
    }

    /// What is wrong with the value.
    fn mistake(&self, lenient: &clap::Command) -> Option<Mistake> {
        let words = ["lb-agent", RUN].map(OsString::from).into_iter().chain(self.words.iter().cloned());
        let error = lenient.clone().try_get_matches_from(words).err()?.to_string();
        let lines = error.lines().map(str::trim).take_while(|line| !line.starts_with("For more information"));
        let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
        let problem = lines.join("; ");
        let problem = problem.strip_prefix("error: ").unwrap_or(&problem).to_owned();
        Some(Mistake { place: self.origin.to_string(), problem })
    }
}

#[cfg(test)]
mod tests;
