//! `docs/reference/flags.md` is what the command line says of itself.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::{Arg, Command, CommandFactory as _};

use super::CommandLine;
use super::layers::variable;
use super::settings::{flags, key};

const TOP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
const PAGE: &str = "docs/reference/flags.md";
const HEAD: &str = "# Flags

<!-- Written by LB_REWRITE=1 cargo test -p lb-agent --lib -- args::tests -->

All subcommands and their flags, as `--help` prints them. How `run` reads them from the environment and from a file:
[the configuration]({CONFIGURATION}).
";

/// From the folder of the page.
const CONFIGURATION: [&str; 2] = ["../configuration", "md"];

fn page() -> String {
    let mut command = CommandLine::command();
    command.build();
    let mut text = HEAD.replace("{CONFIGURATION}", &CONFIGURATION.join("."));
    for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
        section(&mut text, subcommand);
    }
    text
}

fn section(text: &mut String, command: &Command) {
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = write!(text, "\n## lb-agent {}\n\n{about}.\n", command.get_name());
    let mut heading = None;
    let settings: Vec<&str> = flags(command).filter_map(key).collect();
    for flag in command.get_arguments().filter(|flag| !flag.is_hide_set() && flag.get_id() != "help") {
        if heading != Some(flag.get_help_heading()) {
            heading = Some(flag.get_help_heading());
            if let Some(title) = flag.get_help_heading() {
                let _ = write!(text, "\n### {title}\n");
            }
            text.push_str("\n| flag | default | meaning |\n|---|---|---|\n");
        }
        let is_setting = command.get_name() == "run" && key(flag).is_some_and(|key| settings.contains(&key));
        row(text, flag, is_setting);
    }
}

fn row(text: &mut String, flag: &Arg, is_setting: bool) {
    let value = flag.get_action().takes_values().then(|| flag.get_value_names().unwrap_or_default().join(" "));
    let value = value.filter(|value| !value.is_empty());
    let name = match (key(flag), value) {
        (Some(key), Some(value)) => format!("`--{key} {value}`"),
        (Some(key), None) => format!("`--{key}`"),
        (None, value) => format!("`{}`", value.unwrap_or_default()),
    };
    let own = flag.get_env().map(|name| name.to_string_lossy().into_owned());
    let environment = own.or_else(|| key(flag).filter(|_| is_setting).map(variable));
    let environment = environment.map_or_else(String::new, |name| format!("<br>`{name}`"));
    let default: Vec<_> = flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let default = if default.is_empty() { String::new() } else { format!("`{}`", default.join(",")) };
    let help = flag.get_long_help().or_else(|| flag.get_help()).map(ToString::to_string).unwrap_or_default();
    let mut help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let words: Vec<_> = flag.get_possible_values().iter().map(|word| format!("`{}`", word.get_name())).collect();
    // clap takes the last full stop off.
    if !help.ends_with([']', '.']) {
        help.push('.');
    }
    if !words.is_empty() && flag.get_action().takes_values() {
        let _ = write!(help, " One of {}.", words.join(", "));
    }
    let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;").replace("&lt;br>", "<br>");
    let _ = writeln!(text, "| {}{environment} | {} | {} |", cell(&name), cell(&default), cell(&help));
}

#[test]
fn the_page_has_every_flag() {
    let page = page();
    let path = Path::new(TOP).join(PAGE);
    if std::env::var_os("LB_REWRITE").is_some() {
        fs::write(&path, &page).expect("the page is writable");
    }
    let found = fs::read_to_string(&path).expect("the page exists");
    let differs = page.lines().zip(found.lines()).find(|(wanted, found)| wanted != found);
    let remedy = "LB_REWRITE=1 cargo test -p lb-agent --lib -- args::tests";
    assert!(found == page, "{PAGE} is not what --help says, first at {differs:?}: run {remedy}");
}

#[test]
fn a_client_is_an_address_or_a_prefix() {
    for text in ["10.0.0.0/33", "x", "10.0.0.1/x"] {
        assert!(super::values::client(text).is_err(), "{text}");
    }
    assert!(["10.0.0.1", "10.0.0.0/8", "fd00::1"].iter().all(|text| super::values::client(text).is_ok()));
}
