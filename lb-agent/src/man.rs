//! `man`: manual pages, from the definition of the command line.

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::args::{CommandLine, ManArgs};
use crate::print::print;

pub fn run(args: &ManArgs) -> anyhow::Result<()> {
    let command = CommandLine::command();
    let Some(folder) = &args.folder else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        return print(&String::from_utf8_lossy(&page));
    };
    clap_mangen::generate_to(command, folder)
        .with_context(|| format!("the pages cannot be written into {}: is it a folder?", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_subcommand_has_a_page() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        run(&ManArgs { folder: Some(folder.path().to_owned()) }).expect("it is writable");
        let pages = std::fs::read_dir(folder.path()).expect("it exists");
        let pages: BTreeSet<String> =
            pages.map(|page| page.expect("a page").file_name().to_string_lossy().into_owned()).collect();
        for command in CommandLine::command().get_subcommands() {
            assert!(pages.contains(&format!("lb-agent-{}.1", command.get_name())), "{pages:?}");
        }
        assert!(pages.contains("lb-agent.1"), "{pages:?}");
        let page = std::fs::read_to_string(folder.path().join("lb-agent-run.1")).expect("text");
        assert!(page.contains(".TH") && page.contains("print\\-config"), "{page}");
        let absent = ManArgs { folder: Some("/nonexistent/folder".into()) };
        assert!(format!("{:#}", run(&absent).expect_err("no folder")).contains("/nonexistent/folder"));
    }
}
